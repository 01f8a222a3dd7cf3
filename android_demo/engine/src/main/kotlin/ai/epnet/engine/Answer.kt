package ai.epnet.engine

import kotlin.math.exp

/**
 * What one exit said on the way.
 *
 * @property exit counted from 1.
 * @property label index of the most probable class.
 * @property stopLogit the controller's answer or, of a threshold policy, by how much the
 *     confidence exceeds the exit's; NaN at the last exit.
 * @property macs multiply-adds spent up to and with this exit.
 * @property nanos time of this segment, in nanoseconds.
 */
class ExitAnswer internal constructor(
    val exit: Int,
    val logits: FloatArray,
    val stopLogit: Float,
    val macs: Long,
    val nanos: Long,
) {
    val probabilities: FloatArray = softmax(logits)
    val label: Int = logits.indices.maxByOrNull { logits[it] } ?: 0

    /** Probability of [label]. */
    val confidence: Float get() = probabilities[label]
}

/**
 * What the model answered for one image.
 *
 * @property passed every exit that was evaluated, in order; the last one is the answer.
 * @property forced whether `maxExit` ended it rather than the policy or the last exit.
 */
class Answer internal constructor(val passed: List<ExitAnswer>, val forced: Boolean) {
    private val final: ExitAnswer get() = passed.last()

    /** Index of the class in the manifest's labels. */
    val label: Int get() = final.label
    val probabilities: FloatArray get() = final.probabilities
    val logits: FloatArray get() = final.logits
    val confidence: Float get() = final.confidence

    /** The exit that answered, counted from 1. */
    val exit: Int get() = final.exit

    /** Multiply-adds spent. */
    val macs: Long get() = final.macs

    /** Time of all segments that ran, in nanoseconds. */
    val nanos: Long get() = passed.sumOf { it.nanos }
}

private fun softmax(logits: FloatArray): FloatArray {
    val largest = logits.max()
    val powers = FloatArray(logits.size) { exp(logits[it] - largest) }
    val sum = powers.sum()
    for (i in powers.indices) powers[i] /= sum
    return powers
}
