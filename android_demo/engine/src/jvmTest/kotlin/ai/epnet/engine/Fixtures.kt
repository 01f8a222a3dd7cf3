package ai.epnet.engine

import ai.epnet.headless.TfliteOnJvm
import java.io.File
import java.nio.ByteBuffer
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assume.assumeTrue

/** Test images, with what Python's runner answered for them with one bundle. */
class Answers(json: JSONObject) {
    val exits: List<Int> = json.getJSONArray("exits").integers()
    val labels: List<Int> = json.getJSONArray("labels").integers()
    val logits: List<List<Double>> = json.getJSONArray("logits").let { all ->
        List(all.length()) { all.getJSONArray(it).numbers() }
    }
}

/** Test images with their labels, in a folder such as the app's `test_images`. */
class LabelledImages(folder: File) {
    private val json = JSONObject(File(folder, "images.json").readText())
    val labels: List<Int> = json.getJSONArray("labels").integers()
    val images: List<ByteBuffer> = json.getJSONArray("shape").integers().let { shape ->
        readImages(File(folder, "images.bin"), shape.reduce(Int::times))
    }
}

/** The packaged bundles, test images and Python's answers. */
object Fixtures {
    private val assets = File(System.getProperty("epnet.assets") ?: "../app/src/main/assets")
    private val resources = File("src/jvmTest/resources")

    /** Bundles with early exits, in the app's assets. */
    val bundles: List<File> = directories(File(assets, "bundles"))

    /** Bundles of one segment: networks without early exits, to compare with. */
    fun network(name: String): File =
        sequenceOf(File(resources, "networks"), File(assets, "networks"))
            .map { File(it, name) }.first { it.isDirectory }

    /** A small bundle, made for tests alone. */
    fun small(name: String): File = File(resources, "bundles/$name")

    /** The images of such a bundle. */
    fun smallImages(name: String): List<ByteBuffer> {
        val shape = JSONObject(File(small(name), MANIFEST_FILE).readText())
            .getJSONObject("input").getJSONArray("shape").integers()
        return readImages(File(small(name), "images.bin"), shape.reduce(Int::times))
    }

    val bundle: File get() = bundles[bundles.size / 2]

    val packaged = LabelledImages(File(assets, "test_images"))
    val trueLabels: List<Int> = packaged.labels
    val images: List<ByteBuffer> = packaged.images

    fun answers(bundle: String): Answers =
        Answers(JSONObject(File(assets, "answers/$bundle.json").readText()))

    /** Makes TFLite usable; tests that need it are skipped where it cannot be. */
    fun needTflite() = assumeTrue("tflite.native is not set", loaded)

    fun open(bundle: File, options: Options = Options()) =
        EarlyExitClassifier.open(DirectoryFiles(bundle), options)

    /** A long test's length: short by default, long with `build.sh soak`. */
    fun length(property: String, default: Int): Int =
        System.getProperty(property)?.toInt() ?: default

    private val loaded by lazy { TfliteOnJvm.load() }

    private fun directories(parent: File): List<File> =
        parent.listFiles { file -> file.isDirectory }.orEmpty().sortedBy { betaOf(it) }

    private fun betaOf(bundle: File): Double =
        JSONObject(File(bundle, MANIFEST_FILE).readText()).getJSONObject("policy").optDouble("beta")
}

private fun readImages(file: File, size: Int): List<ByteBuffer> {
    val all = file.readBytes()
    return (all.indices step size).map { start ->
        ByteBuffer.allocateDirect(size).put(all, start, size).flip() as ByteBuffer
    }
}

internal fun JSONArray.integers(): List<Int> = List(length()) { getInt(it) }

internal fun JSONArray.numbers(): List<Double> = List(length()) { getDouble(it) }
