package ai.epnet.engine

import java.nio.ByteBuffer
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Test

class PixelsTest {
    private fun convert(argb: List<Long>, width: Int, height: Int, vararg shape: Int): List<Int> {
        val spec = InputSpec("image", shape.toList(), PixelType.UINT8, null)
        val into = ByteBuffer.allocate(spec.numValues)
        convertPixels(argb.map { it.toInt() }.toIntArray(), width, height, spec, into)
        assertEquals(0, into.remaining())
        return into.array().map { it.toInt() and 255 }
    }

    private fun grey(vararg values: Int) = values.map { 0xff000000L or it * 0x010101L }

    @Test fun aPictureOfTheModelsSizeStaysAsItIs() {
        assertEquals(listOf(0, 1, 128, 255), convert(grey(0, 1, 128, 255), 2, 2, 2, 2, 1))
    }

    @Test fun shrinkingTakesTheMeanOfTheArea() {
        assertEquals(listOf(100), convert(grey(0, 100, 100, 200), 2, 2, 1, 1, 1))
        // 3 pixels into 2: each takes one and a half.
        assertEquals(listOf(20, 70), convert(grey(0, 60, 75), 3, 1, 1, 2, 1))
    }

    @Test fun enlargingRepeats() {
        assertEquals(
            listOf(10, 10, 200, 200, 10, 10, 200, 200),
            convert(grey(10, 200), 2, 1, 2, 4, 1),
        )
    }

    @Test fun coloursBecomeLumaOrStayInTheirOrder() {
        val colours = listOf(0xffff0000, 0xff00ff00, 0xff0000ff)
        assertEquals(listOf(76, 150, 29), convert(colours, 3, 1, 1, 3, 1))
        assertEquals(listOf(255, 0, 0, 0, 255, 0, 0, 0, 255), convert(colours, 3, 1, 1, 3, 3))
    }

    @Test fun transparencyIsBlack() {
        assertEquals(listOf(0, 128), convert(listOf(0x00ffffff, 0x80ffffff), 2, 1, 1, 2, 1))
    }

    @Test fun theImageTensorHoldsRawPixelsInTheModelsType() {
        val pixels = ByteBuffer.wrap(byteArrayOf(0, 1, 127, -1))
        val float = ImageBuffer(InputSpec("image", listOf(2, 2, 1), PixelType.FLOAT32, null))
        float.set(pixels)
        val values = FloatArray(4) { float.tensor.getFloat(4 * it) }
        assertArrayEquals(floatArrayOf(0f, 1f, 127f, 255f), values, 0f)
        assertEquals(listOf(0, 1, 127, -1), stored(PixelType.UINT8, null, pixels))
        val half = Quantization(2f, -128)
        // 1 / 2 and 127 / 2 lie between two steps: halves go to even.
        assertEquals(listOf(-128, -128, -64, 0), stored(PixelType.INT8, half, pixels))
        val one = Quantization(1f, -128)
        assertEquals(listOf(-128, -127, -1, 127), stored(PixelType.INT8, one, pixels))
    }

    private fun stored(
        type: PixelType,
        quantization: Quantization?,
        pixels: ByteBuffer,
    ): List<Int> {
        val image = ImageBuffer(InputSpec("image", listOf(2, 2, 1), type, quantization))
        image.set(pixels)
        return List(4) { image.tensor.get(it).toInt() }
    }
}
