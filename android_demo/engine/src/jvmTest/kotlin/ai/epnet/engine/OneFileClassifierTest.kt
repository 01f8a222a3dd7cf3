package ai.epnet.engine

import java.io.File
import java.security.MessageDigest
import kotlin.math.abs
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** The bundle's model in one file answers as its segments and as Python. */
class OneFileClassifierTest {
    @get:Rule val folder = TemporaryFolder()

    @Before fun tflite() = Fixtures.needTflite()

    private val answers by lazy { Fixtures.answers(Fixtures.bundle.name) }

    private fun open(bundle: File = Fixtures.bundle) =
        OneFileClassifier.open(DirectoryFiles(bundle))

    @Test fun everyImageLeavesWherePythonSays() = open().use { classifier ->
        val found = Fixtures.images.map { classifier.classify(it) }
        assertEquals(answers.exits zip answers.labels, found.map { it.exit to it.label })
        val furthest = found.indices.maxOf { i ->
            val logits = found[i].logits
            logits.indices.maxOf { abs(logits[it] - answers.logits[i][it]) }
        }
        println("one file: largest difference of a logit $furthest")
        assertTrue("$furthest", furthest <= 1e-4)
    }

    @Test fun answersAreThoseOfTheSegmentsToTheBit() = open().use { one ->
        Fixtures.open(Fixtures.bundle).use { segments ->
            for (image in Fixtures.images.take(300)) {
                val (expected, found) = segments.classify(image) to one.classify(image)
                assertEquals(expected.exit, found.exit)
                assertArrayEquals(expected.logits, found.logits, 0f)
                assertEquals(expected.macs, found.macs)
                assertTrue(found.nanos > 0)
            }
        }
    }

    /** An output that is only right from the second run on would not show otherwise. */
    @Test fun theFirstImageAfterOpeningIsRight() {
        for (exit in answers.exits.distinct()) {
            val image = answers.exits.indexOf(exit)
            open().use { classifier ->
                val answer = classifier.classify(Fixtures.images[image])
                assertEquals(exit to answers.labels[image], answer.exit to answer.label)
            }
        }
    }

    @Test fun maxExitForcesAnAnswer() = open().use { one ->
        Fixtures.open(Fixtures.bundle).use { segments ->
            for (maxExit in 1..12) {
                for (image in Fixtures.images.take(20)) {
                    val expected = segments.classify(image, maxExit = maxExit)
                    val found = one.classify(image, maxExit = maxExit)
                    assertEquals(expected.exit, found.exit)
                    assertArrayEquals(expected.logits, found.logits, 0f)
                }
            }
            assertFault("maxExit: found 13, expected one of 1..12.") {
                one.classify(Fixtures.images[0], maxExit = 13)
            }
        }
    }

    @Test fun everyBetaStopsWhereTheSegmentsDo() {
        val bundle = Fixtures.small("beta-range")
        val json = JSONObject(File(bundle, "answers.json").readText())
        val images = Fixtures.smallImages("beta-range")
        open(bundle).use { classifier ->
            fun answered(image: Int, beta: Double, maxExit: Int) =
                classifier.classify(images[image], beta, maxExit).let { it.exit to it.label }
            val limit = json.getInt("max_exit")
            for ((k, beta) in json.getJSONArray("betas").numbers().withIndex()) {
                val free = expected(json, k) to classifier.manifest.lastExit
                val limited = expected(json.getJSONObject("limited"), k) to limit
                for ((expected, maxExit) in listOf(free, limited)) {
                    assertEquals(expected, images.indices.map { answered(it, beta, maxExit) })
                }
            }
            assertFault("beta: found none, expected 1.0E-6 to 0.001.") {
                classifier.classify(images[0])
            }
        }
    }

    private fun expected(json: JSONObject, beta: Int): List<Pair<Int, Int>> {
        fun row(key: String): JSONArray = json.getJSONArray(key).getJSONArray(beta)
        return row("exits").integers() zip row("labels").integers()
    }

    @Test fun theOneFileNeedsNoSegments() {
        val bundle = folder.newFolder("bundle")
        File(Fixtures.bundle, "model.tflite").copyTo(File(bundle, "model.tflite"))
        val json = JSONObject(File(Fixtures.bundle, MANIFEST_FILE).readText())
        val macs = json.getJSONArray("segments").getJSONObject(answers.exits[0] - 1)
            .getLong("cumulative_macs")
        json.put("segments", JSONArray())
        File(bundle, MANIFEST_FILE).writeText(json.toString())
        open(bundle).use { classifier ->
            val answer = classifier.classify(Fixtures.images[0])
            assertEquals(answers.exits[0] to answers.labels[0], answer.exit to answer.label)
            assertEquals(macs, answer.macs)
            assertEquals(12, classifier.manifest.numExits)
        }
    }

    @Test fun faultsAreOneSentence() {
        val bundle = folder.newFolder("bundle")
        Fixtures.bundle.copyRecursively(bundle, overwrite = true)
        val file = File(bundle, "model.tflite")
        val good = file.readBytes()
        file.writeBytes(good.copyOf().also { it[500] = (it[500] + 1).toByte() })
        val message = fault(bundle)
        assertTrue(message, Regex("$file: found sha256 \\w{64}, expected \\w{64}.").matches(message))
        signed(bundle, Fixtures.small("beta-range").resolve("model.tflite").readBytes())
        val inputs = "found [beta, image], expected [image] as in $MANIFEST_FILE."
        assertFault("$file, inputs: $inputs") { open(bundle) }
        file.delete()
        assertTrue(fault(bundle).startsWith("$file: found no file, expected "))
        val manifest = File(bundle, MANIFEST_FILE)
        val json = JSONObject(manifest.readText())
        json.remove("model")
        manifest.writeText(json.toString())
        assertFault("$manifest, model: found nothing, expected the model in one file.") {
            open(bundle)
        }
    }

    @Test fun anotherModelOrNoneIsRefused() {
        val bundle = folder.newFolder("bundle")
        Fixtures.small("beta-range").copyRecursively(bundle, overwrite = true)
        val file = File(bundle, "model.tflite")
        signed(bundle, File(bundle, "segment_01.tflite").readBytes())
        assertTrue(fault(bundle).startsWith("$file, outputs: found [features_01_1, "))
        signed(bundle, otherImages(bundle))
        assertFault("$file, image: found 2304 bytes, expected 10000.") { open(bundle) }
        signed(bundle, ByteArray(4000) { it.toByte() })
        assertTrue(fault(bundle).startsWith("$file: found a model that TFLite cannot open ("))
    }

    /** Says that the bundle takes other images than its model; returns the model. */
    private fun otherImages(bundle: File): ByteArray {
        val manifest = File(bundle, MANIFEST_FILE)
        val json = JSONObject(manifest.readText())
        json.getJSONObject("input").put("shape", JSONArray("[1, 50, 50, 1]"))
        manifest.writeText(json.toString())
        return Fixtures.small("beta-range").resolve("model.tflite").readBytes()
    }

    private fun fault(bundle: File): String =
        assertThrows(EarlyExitException::class.java) { open(bundle) }.message!!

    /** Puts a model with its own checksum into the bundle, as someone hostile would. */
    private fun signed(bundle: File, content: ByteArray) {
        File(bundle, "model.tflite").writeBytes(content)
        File(bundle, "$MANIFEST_FILE.sha256").delete()
        val json = JSONObject(File(bundle, MANIFEST_FILE).readText())
        val digest = MessageDigest.getInstance("SHA-256").digest(content)
        val sha256 = digest.joinToString("") { "%02x".format(it) }
        json.getJSONObject("model").put("sha256", sha256).put("bytes", content.size)
        File(bundle, MANIFEST_FILE).writeText(json.toString())
    }

    @Test fun aClosedClassifierRefuses() {
        val classifier = open()
        classifier.classify(Fixtures.images[0])
        classifier.close()
        classifier.close()
        assertFault("classifier: found a closed one, expected an open one.") {
            classifier.classify(Fixtures.images[0])
        }
    }
}
