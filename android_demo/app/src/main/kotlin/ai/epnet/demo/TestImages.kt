package ai.epnet.demo

import android.content.res.AssetManager
import android.graphics.Bitmap
import android.graphics.Color
import java.io.IOException
import java.nio.ByteBuffer
import org.json.JSONArray
import org.json.JSONObject

/**
 * The packaged test images.
 *
 * @property height rows of each image.
 * @property labels correct class of each image.
 * @property difficulty name of each image's difficulty; empty where there are none.
 * @property examples images to choose from by hand.
 */
class TestImages private constructor(json: JSONObject, private val pixels: ByteArray) {
    val height: Int = json.getJSONArray("shape").getInt(0)
    val width: Int = json.getJSONArray("shape").getInt(1)
    val channels: Int = json.getJSONArray("shape").getInt(2)
    val labels: List<Int> = json.getJSONArray("labels").integers()
    val examples: List<Int> = json.getJSONArray("examples").integers()
    private val difficulties = json.getJSONArray("difficulties")
    private val difficulty = json.getJSONArray("difficulty").integers()

    val size: Int get() = labels.size

    private val bytesPerImage = height * width * channels

    /** Raw pixels of one image. */
    fun pixels(index: Int): ByteBuffer =
        ByteBuffer.wrap(pixels, index * bytesPerImage, bytesPerImage)

    /** Name of the image's difficulty, or null. */
    fun difficulty(index: Int): String? =
        if (difficulties.length() == 0) null else difficulties.getString(difficulty[index])

    /** The image as one shows it. */
    fun bitmap(index: Int): Bitmap {
        val colours = IntArray(height * width) { place ->
            val at = index * bytesPerImage + place * channels
            fun channel(c: Int) = pixels[at + c % channels].toInt() and 255
            Color.rgb(channel(0), channel(1), channel(2))
        }
        return Bitmap.createBitmap(colours, width, height, Bitmap.Config.ARGB_8888)
    }

    companion object {
        /** Reads the images of a collection. */
        fun read(assets: AssetManager, collection: Collection): TestImages {
            val folder = "${collection.folder}test_images"
            val json = assets.open("$folder/images.json").use { it.readBytes().decodeToString() }
            val pixels = assets.open("$folder/images.bin").use { it.readBytes() }
            return TestImages(JSONObject(json), pixels)
        }
    }
}

/** Exit and label that Python's runner gave for each test image with one bundle. */
class PythonAnswers private constructor(json: JSONObject) {
    val exits: List<Int> = json.getJSONArray("exits").integers()
    val labels: List<Int> = json.getJSONArray("labels").integers()

    companion object {
        /** The answers for the bundle [name] of a collection; null where there are none. */
        fun read(assets: AssetManager, collection: Collection, name: String): PythonAnswers? =
            try {
                val file = assets.open("${collection.folder}answers/$name.json")
                PythonAnswers(JSONObject(file.use { it.readBytes().decodeToString() }))
            } catch (_: IOException) {
                null
            }
    }
}

private fun JSONArray.integers(): List<Int> = List(length()) { getInt(it) }
