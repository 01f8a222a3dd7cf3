package ai.epnet.demo

import ai.epnet.engine.DirectoryFiles
import ai.epnet.engine.EarlyExitClassifier
import ai.epnet.engine.EarlyExitException
import ai.epnet.engine.InputSpec
import ai.epnet.engine.convertPixels
import ai.epnet.engine.readPicture
import java.io.File
import java.nio.ByteBuffer
import java.util.Base64
import kotlin.math.abs
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode

/** Picture files through Android's decoders, against what Python's `read_image` sees. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class PicturesTest {
    @get:Rule val folder = TemporaryFolder()
    private val pictures = File("src/jvmTest/resources/pictures")

    @Test fun everyFileLooksAsInPython() {
        val seen = JSONArray(File(pictures, "pictures.json").readText())
        val specs = HashMap<String, InputSpec>()
        val wrong = ArrayList<String>()
        for (entry in List(seen.length()) { seen.getJSONObject(it) }) {
            val file = entry.getString("file")
            val shape = entry.getJSONArray("shape")
            val crop = entry.getBoolean("crop")
            val spec = specs.getOrPut("$shape $crop") { inputOf(shape, crop) }
            val off = farthest(pixels(file, spec), entry.getString("pixels"))
            // Decoders of JPEG round in their own ways; colours under transparency are
            // kept multiplied by it.
            val allowed = if (file.endsWith(".jpg")) 3 else if ("transparent" in file) 1 else 0
            if (off > allowed) wrong += "$file as $shape, crop $crop: off by $off, at most $allowed"
        }
        assertEquals(wrong.joinToString("\n"), 0, wrong.size)
        assertEquals(5 * (pictures.list()!!.size - 1), seen.length())
    }

    @Test fun otherFilesAreOneSentence() {
        val good = File(pictures, "colours.png").readBytes()
        for (content in listOf(ByteArray(0), "no picture".toByteArray(), good.copyOf(20))) {
            val message = assertThrows(EarlyExitException::class.java) {
                readPicture(content, "x.png")
            }.message!!
            val sentence = "x.png: found no picture that Android can read, expected an image file."
            assertEquals(sentence, message)
        }
    }

    private fun pixels(file: String, spec: InputSpec): ByteArray {
        val bitmap = readPicture(File(pictures, file).readBytes(), file)
        val argb = IntArray(bitmap.width * bitmap.height)
        bitmap.getPixels(argb, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        val into = ByteBuffer.allocate(spec.numValues)
        convertPixels(argb, bitmap.width, bitmap.height, spec, into)
        return into.array()
    }

    private fun farthest(found: ByteArray, inBase64: String): Int {
        val expected = Base64.getDecoder().decode(inBase64)
        assertEquals(expected.size, found.size)
        return found.indices.maxOf { abs(unsigned(found[it]) - unsigned(expected[it])) }
    }

    private fun unsigned(byte: Byte): Int = byte.toInt() and 255

    /** The input of a bundle for images of this [shape]; its segments are never run. */
    private fun inputOf(shape: JSONArray, crop: Boolean): InputSpec {
        val bundle = folder.newFolder()
        assertTrue(File("src/main/assets/bundles/maxmin-1e-06").copyRecursively(bundle, true))
        File(bundle, "epnet.json.sha256").delete()
        val manifest = File(bundle, "epnet.json")
        val json = JSONObject(manifest.readText())
        val withBatch = JSONArray(listOf(1) + List(shape.length()) { shape.getInt(it) })
        json.getJSONObject("input").put("shape", withBatch)
        val preprocessing = JSONObject()
            .put("height", shape.getInt(0)).put("width", shape.getInt(1))
            .put("resize", "bilinear").put("antialias", true)
            .put("crop", if (crop) "center" else "none").put("range", JSONArray("[0, 255]"))
            .put("channels", if (shape.getInt(2) == 1) "L" else "RGB")
        json.put("preprocessing", preprocessing)
        manifest.writeText(json.toString())
        return EarlyExitClassifier.open(DirectoryFiles(bundle)).use { it.manifest.input }
    }
}
