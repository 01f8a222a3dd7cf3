package ai.epnet.engine

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.ceil
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/**
 * Scales a picture to the model's shape and converts it to raw pixel values, one byte each,
 * rows from the top, channels last. Every value of the result is the mean of the area of the
 * picture that it covers; transparent pixels count as black; grey is the luma of BT.601. The
 * picture is stretched to [spec]'s height and width.
 *
 * @param argb pixels as `Bitmap.getPixels` gives them, [width] * [height] of them.
 * @param into takes `spec.numValues` bytes from its position on; its position moves.
 */
fun convertPixels(argb: IntArray, width: Int, height: Int, spec: InputSpec, into: ByteBuffer) {
    val rowStep = height.toDouble() / spec.height
    val columnStep = width.toDouble() / spec.width
    for (row in 0 until spec.height) {
        for (column in 0 until spec.width) {
            putMean(
                argb, width, row * rowStep, min((row + 1) * rowStep, height.toDouble()),
                column * columnStep, min((column + 1) * columnStep, width.toDouble()),
                spec.channels, into,
            )
        }
    }
}

/** Puts the mean colour of a rectangle, whose sides may lie between pixels, into [into]. */
private fun putMean(
    argb: IntArray,
    width: Int,
    top: Double,
    bottom: Double,
    left: Double,
    right: Double,
    channels: Int,
    into: ByteBuffer,
) {
    var red = 0.0
    var green = 0.0
    var blue = 0.0
    for (y in top.toInt() until ceil(bottom).toInt()) {
        val high = min(bottom, y + 1.0) - max(top, y.toDouble())
        for (x in left.toInt() until ceil(right).toInt()) {
            val wide = min(right, x + 1.0) - max(left, x.toDouble())
            val pixel = argb[y * width + x]
            val share = high * wide * (pixel ushr 24) / 255.0
            red += share * (pixel shr 16 and 255)
            green += share * (pixel shr 8 and 255)
            blue += share * (pixel and 255)
        }
    }
    val area = (bottom - top) * (right - left)
    if (channels == 1) {
        into.put(toByte((0.299 * red + 0.587 * green + 0.114 * blue) / area))
    } else {
        into.put(toByte(red / area)).put(toByte(green / area)).put(toByte(blue / area))
    }
}

/** Through Buffer: before Android 9, ByteBuffer has no method of its own for this. */
internal fun Buffer.moveTo(position: Int) {
    position(position)
}

private fun toByte(value: Double): Byte = (value + 0.5).toInt().coerceIn(0, 255).toByte()

/** The model's image tensor: raw pixels in, the model's own type out, in one direct buffer. */
internal class ImageBuffer(private val spec: InputSpec) {
    /** What the first segment reads. */
    val tensor: ByteBuffer =
        ByteBuffer.allocateDirect(spec.numValues * spec.type.bytes).order(ByteOrder.nativeOrder())

    private val floats = tensor.asFloatBuffer()
    private val bytes = ByteArray(spec.numValues)
    private val quantized = quantizedPixels(spec)

    /** Takes the bytes of [pixels] between its position and limit, which stay as they are. */
    fun set(pixels: ByteBuffer) {
        if (pixels.remaining() != spec.numValues) {
            val expected = with(spec) { "$numValues ($height x $width x $channels)" }
            throw fault("image, bytes", pixels.remaining(), expected)
        }
        val position = pixels.position()
        pixels.get(bytes)
        pixels.moveTo(position)
        if (spec.type == PixelType.FLOAT32) {
            for (i in bytes.indices) floats.put(i, (bytes[i].toInt() and 255).toFloat())
        } else {
            for (i in bytes.indices) tensor.put(i, quantized[bytes[i].toInt() and 255])
        }
    }
}

/** What each pixel value 0-255 is in an integer image tensor; halves go to even. */
private fun quantizedPixels(spec: InputSpec): ByteArray {
    val (scale, zeroPoint) = spec.quantization ?: Quantization(1f, 0)
    val range = if (spec.type == PixelType.INT8) -128..127 else 0..255
    return ByteArray(256) {
        val stored = round(it / scale.toDouble()).toInt() + zeroPoint
        stored.coerceIn(range.first, range.last).toByte()
    }
}
