/*
 * A .tflite model that stops by itself, with TFLite's Interpreter alone.
 *
 * Arguments: MODEL IMAGES [BETA [MAX_EXIT]]. IMAGES holds raw pixels, one byte each, one image
 * after another. Prints for each image the exit that answered, counted from 1, the label and
 * the logits.
 */
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

fun main(arguments: Array<String>) {
    val pixels = File(arguments[1]).readBytes()
    val beta = arguments.getOrElse(2) { "0" }.toFloat()
    val signature = if (arguments.size > 3) "max_exit" else "serving_default"
    val maxExit = arguments.getOrElse(3) { "0" }.toInt()
    Interpreter(File(arguments[0]), Interpreter.Options().setNumThreads(1)).use { model ->
        val size = model.getInputTensorFromSignature("image", signature).numElements()
        val classes = model.getOutputTensorFromSignature("logits", signature).numElements()
        val image = ByteBuffer.allocateDirect(4 * size).order(ByteOrder.nativeOrder())
        val inputs = mapOf(
            "image" to image,
            "beta" to arrayOf(floatArrayOf(beta)),
            "max_exit" to intArrayOf(maxExit),
        ).filterKeys(model.getSignatureInputs(signature)::contains)

        val exit = IntArray(1)
        val logits = arrayOf(FloatArray(classes))
        val outputs = mapOf<String, Any>("exit" to exit, "logits" to logits)
        for (start in pixels.indices step size) {
            image.clear()
            for (i in start until start + size) image.putFloat(pixels[i].toUByte().toFloat())
            image.rewind()
            model.runSignature(inputs, outputs, signature)
            val label = logits[0].indices.maxBy { logits[0][it] }
            println("${exit[0]} $label ${logits[0].joinToString(" ")}")
        }
    }
}
