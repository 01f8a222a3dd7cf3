package ai.epnet.engine

import java.nio.ByteBuffer
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Test

class PixelsTest {
    private fun convert(argb: List<Long>, width: Int, height: Int, vararg shape: Int): List<Int> =
        convert(argb, width, height, InputSpec("image", shape.toList(), PixelType.UINT8, null))

    private fun convert(argb: List<Long>, width: Int, height: Int, spec: InputSpec): List<Int> {
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
        // 4 into 2: under each triangle lie 3 of them, with 3, 3 and 1 sevenths.
        assertEquals(listOf(41, 79), convert(grey(0, 60, 105, 60), 4, 1, 1, 2, 1))
    }

    @Test fun enlargingGoesEvenlyFromOneToTheNext() {
        val row = listOf(0, 50, 150, 200)
        assertEquals(row + row, convert(grey(0, 200), 2, 1, 2, 4, 1))
    }

    @Test fun coloursBecomeLumaOrStayInTheirOrder() {
        val colours = listOf(0xffff0000, 0xff00ff00, 0xff0000ff)
        assertEquals(listOf(76, 150, 29), convert(colours, 3, 1, 1, 3, 1))
        assertEquals(listOf(255, 0, 0, 0, 255, 0, 0, 0, 255), convert(colours, 3, 1, 1, 3, 3))
    }

    @Test fun transparentPixelsLieOverWhite() {
        val pixels = listOf(0x00000000L, 0x80000000L, 0xff000000L)
        assertEquals(listOf(255, 127, 0), convert(pixels, 3, 1, 1, 3, 1))
        assertEquals(listOf(255, 255, 255), convert(listOf(0x00ff0000L), 1, 1, 1, 1, 3))
    }

    @Test fun theWindowIsTheLargestOfTheImagesProportionsAboutTheCentre() {
        fun window(width: Int, height: Int, vararg shape: Int, crops: Boolean = true) =
            InputSpec("image", shape.toList(), PixelType.UINT8, null, crops).window(width, height)
        assertEquals(Window(0, 0, 40, 30), window(40, 30, 96, 96, 3, crops = false))
        assertEquals(Window(5, 0, 30, 30), window(40, 30, 96, 96, 3))
        assertEquals(Window(0, 5, 30, 30), window(30, 40, 96, 96, 3))
        // Twice as wide as high; what is left over is one pixel more on the far side.
        assertEquals(Window(0, 2, 11, 5), window(11, 10, 2, 4, 1))
        assertEquals(Window(50, 0, 1, 1), window(101, 1, 1000, 1, 1))
    }

    @Test fun croppingLeavesOutTheEdges() {
        val spec = InputSpec("image", listOf(2, 2, 1), PixelType.UINT8, null, crops = true)
        val picture = grey(1, 10, 20, 2, 3, 30, 40, 4)
        assertEquals(listOf(10, 20, 30, 40), convert(picture, 4, 2, spec))
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
