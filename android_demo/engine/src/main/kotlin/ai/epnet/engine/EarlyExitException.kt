package ai.epnet.engine

/**
 * The one exception of this library. Its message is a sentence that names the file (or
 * argument), what was found and what was expected.
 */
class EarlyExitException(message: String, cause: Throwable? = null) :
    RuntimeException(message, cause)

/** Makes the sentence "[where]: found [found], expected [expected]." */
internal fun fault(
    where: String,
    found: Any?,
    expected: Any?,
    cause: Throwable? = null,
): EarlyExitException =
    EarlyExitException("$where: found $found, expected $expected.", cause)
