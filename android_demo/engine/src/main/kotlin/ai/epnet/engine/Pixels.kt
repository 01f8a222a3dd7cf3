package ai.epnet.engine

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/**
 * Scales a picture to the model's shape and converts it to raw pixel values, one byte each,
 * rows from the top, channels last, as Python's `read_image` does: transparent pixels lie over
 * white, grey is the luma of BT.601, and what [window] gives of the picture is stretched to
 * [spec]'s height and width bilinearly and with antialiasing.
 *
 * @param argb pixels as `Bitmap.getPixels` gives them, [width] * [height] of them.
 * @param into takes `spec.numValues` bytes from its position on; its position moves.
 */
fun convertPixels(argb: IntArray, width: Int, height: Int, spec: InputSpec, into: ByteBuffer) =
    PixelConverter(width, height, spec).convert(into) { x, y, row ->
        argb.copyInto(row, 0, y * width + x, y * width + x + row.size)
    }

/** A part of a picture, in pixels. */
data class Window(val left: Int, val top: Int, val width: Int, val height: Int)

/**
 * What a model sees of a picture of [width] x [height] pixels: all of it or, where
 * [InputSpec.crops] says so, the largest part about its centre with the image's proportions.
 */
fun InputSpec.window(width: Int, height: Int): Window {
    if (!crops) return Window(0, 0, width, height)
    fun side(full: Int, other: Int, wanted: Int, wantedOther: Int) =
        (other.toDouble() * wanted / wantedOther).toInt().coerceIn(1, full)
    val (wide, high) = side(width, height, this.width, this.height) to
        side(height, width, this.height, this.width)
    return Window((width - wide) / 2, (height - high) / 2, wide, high)
}

/** What [convertPixels] does, for many pictures of one size: its buffers are made once. */
internal class PixelConverter(val width: Int, val height: Int, private val spec: InputSpec) {
    private val window = spec.window(width, height)
    private val columns = Weights(window.width, spec.width)
    private val rows = Weights(window.height, spec.height)
    private val argb = IntArray(window.width)
    private val row = IntArray(window.width * spec.channels)
    private val narrow = IntArray(window.height * spec.width * spec.channels)

    /** @param read fills an array with the picture's pixels from x, y on, to the right. */
    fun convert(into: ByteBuffer, read: (x: Int, y: Int, row: IntArray) -> Unit) {
        val channels = spec.channels
        val stride = spec.width * channels
        for (y in 0 until window.height) {
            read(window.left, window.top + y, argb)
            separateChannels()
            for (x in 0 until stride) {
                narrow[y * stride + x] =
                    columns.mean(row, x / channels, x % channels, channels)
            }
        }
        for (y in 0 until spec.height) {
            for (x in 0 until stride) into.put(rows.mean(narrow, y, x, stride).toByte())
        }
    }

    /** The channels of the row that was read, over white. */
    private fun separateChannels() {
        var place = 0
        for (pixel in argb) {
            val opacity = pixel ushr 24
            val red = overWhite(pixel shr 16 and 255, opacity)
            val green = overWhite(pixel shr 8 and 255, opacity)
            val blue = overWhite(pixel and 255, opacity)
            if (spec.channels == 1) {
                // 0.299, 0.587 and 0.114 of 2^16.
                row[place++] = (19595 * red + 38470 * green + 7471 * blue + HALF_LUMA) shr 16
            } else {
                row[place++] = red
                row[place++] = green
                row[place++] = blue
            }
        }
    }

    private fun overWhite(value: Int, opacity: Int): Int =
        (value * opacity + 255 * (255 - opacity) + 127) / 255

    private companion object {
        const val HALF_LUMA = 1 shl 15
    }
}

/**
 * How [size] values become [wanted] ones: means under triangles as wide as two of the wider
 * steps, in Pillow's fixed-point arithmetic, so that no value differs from Python's.
 */
private class Weights(size: Int, wanted: Int) {
    private val first = IntArray(wanted)
    private val weights = Array(wanted) { IntArray(0) }

    init {
        val step = size.toDouble() / wanted
        val reach = max(step, 1.0)
        for (index in 0 until wanted) {
            val centre = (index + 0.5) * step
            first[index] = max((centre - reach + 0.5).toInt(), 0)
            val end = min((centre + reach + 0.5).toInt(), size)
            val shares = DoubleArray(end - first[index]) {
                max(1.0 - abs(first[index] + it + 0.5 - centre) / reach, 0.0)
            }
            val total = shares.sum()
            weights[index] = IntArray(shares.size) { (shares[it] / total * ONE + 0.5).toInt() }
        }
    }

    /** The value [index] of those that lie [stride] apart in [values], from [start] on. */
    fun mean(values: IntArray, index: Int, start: Int, stride: Int): Int {
        var sum = ONE / 2
        var place = start + first[index] * stride
        for (weight in weights[index]) {
            sum += weight * values[place]
            place += stride
        }
        return (sum shr BITS).coerceIn(0, 255)
    }

    private companion object {
        const val BITS = 22
        const val ONE = 1 shl BITS
    }
}

/** Through Buffer: before Android 9, ByteBuffer has no method of its own for this. */
internal fun Buffer.moveTo(position: Int) {
    position(position)
}

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
