package ai.epnet.engine

import java.nio.ByteBuffer
import java.nio.FloatBuffer
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor

/** A tensor that a later segment may read: its data, and what tells it from another one. */
internal class LiveTensor(
    val data: ByteBuffer,
    val type: DataType,
    val shape: List<Int>,
    val maker: String,
) {
    constructor(tensor: Tensor, maker: String) :
        this(tensor.asReadOnlyBuffer(), tensor.dataType(), tensor.shape().toList(), maker)

    override fun toString(): String = "$type $shape"
}

/**
 * One segment in its own interpreter. Tensors are bound by their names in the signature, once;
 * running it copies only its inputs: outputs are read where the interpreter keeps them.
 *
 * @param where name of the segment's file, for messages.
 * @param live tensors that exist already; this segment's outputs are added.
 */
internal class Segment(
    val spec: SegmentSpec,
    where: String,
    model: ByteBuffer,
    options: Interpreter.Options,
    live: MutableMap<String, LiveTensor>,
    numClasses: Int,
    hasStop: Boolean,
) : AutoCloseable {
    private val interpreter = native(where, "a model that TFLite cannot open") {
        Interpreter(model, options)
    }
    private val inputs: Array<Any>
    private val logits: FloatBuffer
    private val stop: FloatBuffer?

    init {
        try {
            native(where, "a model without memory") { interpreter.allocateTensors() }
            val key = interpreter.signatureKeys.singleOrNull()
                ?: throw fault(where, "${interpreter.signatureKeys.size} signatures", "one")
            val takes = interpreter.getSignatureInputs(key).toList()
            val makes = interpreter.getSignatureOutputs(key).toList()
            checkNames("$where, inputs", takes, spec.inputs)
            checkNames("$where, outputs", makes, spec.outputs)
            inputs = bindInputs(where, key, takes, live)
            for (name in makes) {
                val tensor = interpreter.getOutputTensorFromSignature(name, key)
                live[name] = native("$where, $name", "a tensor of no fixed size") {
                    LiveTensor(tensor, where)
                }
            }
            logits = floats(where, spec.logitsName, numClasses, live)
            stop = if (hasStop) floats(where, spec.stopName, 1, live) else null
        } catch (e: RuntimeException) {
            interpreter.close()
            throw e
        }
    }

    /** Runs on what its inputs hold now. */
    fun run(): ExitAnswer {
        val start = System.nanoTime()
        native(spec.file, "a segment that fails") {
            interpreter.runForMultipleInputsOutputs(inputs, NO_COPIES)
        }
        val nanos = System.nanoTime() - start
        val values = FloatArray(logits.capacity()) { logits.get(it) }
        return ExitAnswer(spec.exit, values, stop?.get(0) ?: Float.NaN, spec.cumulativeMacs, nanos)
    }

    override fun close() = interpreter.close()

    /** The data of each input, by the position at which the interpreter takes it. */
    private fun bindInputs(
        where: String,
        key: String,
        names: List<String>,
        live: Map<String, LiveTensor>,
    ): Array<Any> {
        val byIndex = names.associateBy {
            interpreter.getInputTensorFromSignature(it, key).index()
        }
        return Array(interpreter.inputTensorCount) { position ->
            val tensor = interpreter.getInputTensor(position)
            val name = byIndex[tensor.index()]
                ?: throw fault(where, "input ${tensor.name()}", "only inputs of the signature")
            val given = live[name]
                ?: throw fault("$where, input $name", "nothing", "a tensor made before")
            val wanted = "${tensor.dataType()} ${tensor.shape().toList()}"
            if (given.toString() != wanted) {
                throw fault("$where, input $name", wanted, "$given of ${given.maker}")
            }
            given.data
        }
    }

    private companion object {
        /** No outputs are copied; they are read in place. */
        val NO_COPIES = emptyMap<Int, Any>()
    }
}

internal fun checkNames(where: String, found: List<String>, expected: Collection<String>) {
    if (found.toSet() != expected.toSet()) {
        throw fault(where, found.sorted(), "${expected.sorted()} as in $MANIFEST_FILE")
    }
}

private fun floats(
    where: String,
    name: String,
    size: Int,
    live: Map<String, LiveTensor>,
): FloatBuffer {
    val tensor = live.getValue(name)
    if (tensor.type != DataType.FLOAT32 || tensor.shape != listOf(1, size)) {
        throw fault("$where, output $name", tensor, "FLOAT32 [1, $size]")
    }
    return tensor.data.asFloatBuffer()
}

/** Runs [action] in TFLite, whose own exceptions become ours. */
internal fun <T> native(where: String, found: String, action: () -> T): T =
    try {
        action()
    } catch (e: IllegalArgumentException) {
        throw fault(where, "$found (${e.message?.trim()})", "a file as converted", e)
    } catch (e: IllegalStateException) {
        throw fault(where, "$found (${e.message?.trim()})", "a file as converted", e)
    }
