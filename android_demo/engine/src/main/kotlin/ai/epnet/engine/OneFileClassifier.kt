package ai.epnet.engine

import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor

/**
 * Classifies images with the bundle's model in one file, which stops by itself: the same
 * answers as [EarlyExitClassifier]'s, by one call of TFLite.
 *
 * ```
 * OneFileClassifier.open(AssetFiles(context.assets, "bundles/maxmin")).use { classifier ->
 *     val answer = classifier.classify(pixels)
 *     println("${classifier.manifest.labels[answer.label]} at exit ${answer.exit}")
 * }
 * ```
 *
 * What the exits before said stays in the model. Any app can run the file without this class,
 * with TFLite's `Interpreter` alone; it adds the checks, the labels and the multiply-adds.
 * Not thread-safe: use it, and close it, from one thread at a time. Every fault is an
 * [EarlyExitException].
 */
class OneFileClassifier private constructor(
    /** What the bundle says about itself. */
    val manifest: Manifest,
    private val where: String,
    private val cumulativeMacs: List<Long>,
    model: ByteBuffer,
    options: Options,
) : AutoCloseable {
    private val interpreter = options.toInterpreterOptions().let {
        native(where, "a model that TFLite cannot open") { Interpreter(model, it) }
    }
    private val image = ImageBuffer(manifest.input)
    private val beta = direct(Float.SIZE_BYTES)
    private val maxExit = direct(Int.SIZE_BYTES)
    private val logits = direct(manifest.labels.size * Float.SIZE_BYTES)
    private val exit = direct(Int.SIZE_BYTES)
    private val inputs = buildMap {
        put(manifest.input.name, image.tensor)
        if (manifest.betaRange != null) put(BETA_NAME, beta)
    }
    private val limitedInputs = inputs + (MAX_EXIT to maxExit)
    private val outputs = mapOf("logits" to logits, "exit" to exit)
    private var closed = false

    init {
        try {
            native(where, "a model without memory") { interpreter.allocateTensors() }
            native(where, "a model that does not stop by itself", ::check)
        } catch (e: RuntimeException) {
            interpreter.close()
            throw e
        }
    }

    /**
     * Classifies one image.
     *
     * @param pixels raw pixel values 0-255, one byte each, rows from the top, channels last.
     * @param beta cost sensitivity per unit of cost, for a bundle with a `betaRange` alone.
     * @param maxExit the exit that answers at the latest, to keep a deadline.
     * @return the answer of the exit at which the model stopped; without its stop logit.
     */
    fun classify(
        pixels: ByteBuffer,
        beta: Double? = null,
        maxExit: Int = manifest.lastExit,
    ): ExitAnswer {
        if (closed) throw fault("classifier", "a closed one", "an open one")
        checkBeta(manifest, beta)
        val exits = manifest.firstExit..manifest.lastExit
        if (maxExit !in exits) throw fault("maxExit", maxExit, "one of $exits")
        image.set(pixels)
        beta?.let { this.beta.putFloat(0, it.toFloat()) }
        this.maxExit.putInt(0, maxExit)
        for (output in outputs.values) output.moveTo(0)
        val start = System.nanoTime()
        native(where, "a model that fails") {
            if (maxExit < manifest.lastExit) {
                interpreter.runSignature(limitedInputs, outputs, MAX_EXIT)
            } else {
                interpreter.runSignature(inputs, outputs, NO_LIMIT)
            }
        }
        return answer(System.nanoTime() - start)
    }

    /** Gives back the interpreter's memory. The classifier cannot be used afterwards. */
    override fun close() {
        closed = true
        interpreter.close()
    }

    private fun check() {
        val (takes, makes) = with(interpreter) {
            getSignatureInputs(NO_LIMIT).toList() to getSignatureOutputs(NO_LIMIT).toList()
        }
        checkNames("$where, inputs", takes, inputs.keys)
        if (!makes.containsAll(outputs.keys)) {
            throw fault("$where, outputs", makes.sorted(), "also ${outputs.keys.sorted()}")
        }
        for ((name, buffer) in inputs) {
            checkSize(name, interpreter.getInputTensorFromSignature(name, NO_LIMIT), buffer)
        }
        for ((name, buffer) in outputs) {
            checkSize(name, interpreter.getOutputTensorFromSignature(name, NO_LIMIT), buffer)
        }
    }

    private fun checkSize(name: String, tensor: Tensor, buffer: ByteBuffer) {
        if (tensor.numBytes() != buffer.capacity()) {
            throw fault("$where, $name", "${tensor.numBytes()} bytes", buffer.capacity())
        }
    }

    private fun answer(nanos: Long): ExitAnswer {
        val stopped = exit.getInt(0)
        val macs = cumulativeMacs.getOrNull(stopped - 1)
            ?: throw fault("$where, exit", stopped, "one of 1..${cumulativeMacs.size}")
        val values = FloatArray(manifest.labels.size) { logits.getFloat(it * Float.SIZE_BYTES) }
        return ExitAnswer(stopped, values, Float.NaN, macs, nanos)
    }

    companion object {
        /** Names of the model's signatures. */
        private const val NO_LIMIT = "serving_default"
        private const val MAX_EXIT = "max_exit"

        /** Opens and checks the bundle in [files]: manifest, model, its sha256. */
        fun open(files: BundleFiles, options: Options = Options()): OneFileClassifier {
            val manifest = openManifest(files)
            val spec = manifest.model ?: throw fault(
                "${files.describe(MANIFEST_FILE)}, model", "nothing", "the model in one file",
            )
            return OneFileClassifier(
                manifest, files.describe(spec.file), spec.cumulativeMacs, mapModel(files, spec),
                options,
            )
        }

        private fun direct(bytes: Int): ByteBuffer =
            ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())
    }
}
