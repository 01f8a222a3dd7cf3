package ai.epnet.engine

import java.io.File
import java.security.MessageDigest
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** Every fault of a bundle is one exception with one sentence. */
class BundleFaultsTest {
    @get:Rule val folder = TemporaryFolder()
    private lateinit var bundle: File
    private val manifest get() = File(bundle, MANIFEST_FILE)

    @Before fun copyBundle() {
        Fixtures.needTflite()
        bundle = folder.newFolder("bundle")
        Fixtures.bundle.copyRecursively(bundle, overwrite = true)
        File(bundle, "$MANIFEST_FILE.sha256").delete()
    }

    private fun open() = Fixtures.open(bundle).close()

    private fun change(action: (JSONObject) -> Unit) {
        val json = JSONObject(manifest.readText())
        action(json)
        manifest.writeText(json.toString())
    }

    private fun JSONObject.segment(index: Int) = getJSONArray("segments").getJSONObject(index)

    /** Puts the changed file's own checksum into the manifest, as someone hostile would. */
    private fun sign(index: Int, content: ByteArray) {
        val digest = MessageDigest.getInstance("SHA-256").digest(content)
        change {
            val segment = it.segment(index)
            File(bundle, segment.getString("file")).writeBytes(content)
            segment.put("sha256", digest.joinToString("") { byte -> "%02x".format(byte) })
            segment.put("bytes", content.size)
        }
    }

    @Test fun missingFiles() {
        File(bundle, "segment_05.tflite").delete()
        val size = File(Fixtures.bundle, "segment_05.tflite").length()
        assertFault("$bundle/segment_05.tflite: found no file, expected $size bytes.", ::open)
        manifest.delete()
        assertFault("$manifest: found no file, expected a manifest.", ::open)
    }

    @Test fun alteredSegments() {
        val file = File(bundle, "segment_02.tflite")
        val good = file.readBytes()
        file.writeBytes(good.copyOf().also { it[500] = (it[500] + 1).toByte() })
        val message = assertThrows(EarlyExitException::class.java) { open() }.message!!
        val sentence = Regex("$file: found sha256 \\w{64}, expected \\w{64}.")
        assertTrue(message, sentence.matches(message))
        file.writeBytes(good.copyOf(100))
        assertFault("$file: found 100 bytes, expected ${good.size}.", ::open)
    }

    @Test fun otherFormatsAndVersions() {
        change { it.put("version", 2) }
        assertFault("$manifest, version: found 2, expected 1.", ::open)
        change { it.put("format", "zip") }
        assertFault("$manifest, format: found zip, expected epnet-bundle.", ::open)
        change { it.remove("format") }
        assertFault("$manifest, format: found nothing, expected a text.", ::open)
        manifest.writeText("[1]")
        val message = assertThrows(EarlyExitException::class.java) { open() }.message!!
        assertTrue(message, message.startsWith("$manifest: found text that is not JSON ("))
    }

    @Test fun valuesOfTheWrongKind() {
        val cases = mapOf<String, (JSONObject) -> Unit>(
            "full_macs: found many, expected a number." to { it.put("full_macs", "many") },
            "full_macs: found -1.0, expected a whole number of at least 0." to
                { it.put("full_macs", -1) },
            "labels: found none, expected at least one." to { it.put("labels", JSONArray()) },
            "labels: found 3, expected a list of texts." to { it.put("labels", JSONArray("[3]")) },
            "labels: found null, expected a list of texts." to
                { it.put("labels", JSONArray("[\"a\", null]")) },
            "input, shape: found [50, 50], expected [1, height, width, 1 or 3]." to
                { it.getJSONObject("input").put("shape", JSONArray("[50, 50]")) },
            "input, dtype: found int64, expected float32, uint8 or int8." to
                { it.getJSONObject("input").put("dtype", "int64") },
            "policy, type: found entropy, expected controller or threshold." to
                { it.getJSONObject("policy").put("type", "entropy") },
            "policy, beta_range: found [2.0, 1.0], expected [low, high] with 0 < low <= high." to
                { it.getJSONObject("policy").put("beta_range", JSONArray("[2, 1]")) },
            "segments: found none, expected at least one." to
                { it.put("segments", JSONArray()) },
            "model, exits: found none, expected at least one." to
                { it.getJSONObject("model").put("exits", JSONArray()) },
            "segments[1], file: found ../x.tflite, expected the name of a file in the bundle." to
                { it.segment(1).put("file", "../x.tflite") },
            "segments[1], sha256: found abc, expected 64 hexadecimal digits." to
                { it.segment(1).put("sha256", "abc") },
            "model, file: found ../x.tflite, expected the name of a file in the bundle." to
                { it.getJSONObject("model").put("file", "../x.tflite") },
            "model, sha256: found abc, expected 64 hexadecimal digits." to
                { it.getJSONObject("model").put("sha256", "abc") },
            "segments, exit of segment_02.tflite: found 1, expected more than 1." to
                { it.segment(1).put("exit", 1) },
        )
        assertFaults(cases)
    }

    private fun assertFaults(cases: Map<String, (JSONObject) -> Unit>) {
        val good = manifest.readText()
        for ((message, action) in cases) {
            manifest.writeText(good)
            change(action)
            assertFault("$manifest, $message", ::open)
        }
        manifest.writeText(good)
    }

    @Test fun thresholdsThatDoNotFit() {
        fun confidence(values: String) = { json: JSONObject ->
            json.getJSONObject("policy").put("type", "threshold")
                .put("confidence", JSONArray(values))
            Unit
        }
        val eleven = "[0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, "
        val cases = mapOf<String, (JSONObject) -> Unit>(
            "policy, confidence: found nothing, expected a list of numbers." to
                { it.getJSONObject("policy").put("type", "threshold") },
            "policy, confidence: found [0.9], expected 11 numbers from 0 to 1." to
                confidence("[0.9]"),
            "policy, confidence: found ${eleven}1.1], expected 11 numbers from 0 to 1." to
                confidence("${eleven}1.1]"),
            "policy, confidence: found ${eleven}-0.1], expected 11 numbers from 0 to 1." to
                confidence("$eleven-0.1]"),
            "policy, confidence: found [0.9], expected none: controllers decide." to
                { it.getJSONObject("policy").put("confidence", JSONArray("[0.9]")) },
            "policy, beta_range: found [1.0, 2.0], expected none: thresholds are for one beta." to
                {
                    confidence("${eleven}0.9]")(it)
                    it.getJSONObject("policy").put("beta_range", JSONArray("[1, 2]"))
                },
        )
        assertFaults(cases)
    }

    @Test fun costsThatDoNotFit() {
        val twelve = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, "
        fun costs(values: String, full: Any? = 12) = { json: JSONObject ->
            json.put("cost_unit", "ms").put("costs", JSONArray(values)).put("full_cost", full)
            Unit
        }
        val found = "[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 10.5]"
        assertFaults(mapOf(
            "costs: found [1.0], expected 12 numbers above 0 that do not fall." to costs("[1]"),
            "costs: found $found, expected 12 numbers above 0 that do not fall." to
                costs("${twelve}10.5]"),
            "costs: found [0.0, 1.0], expected 12 numbers above 0 that do not fall." to
                costs("[0, 1]"),
            "costs: found nothing, expected a list of numbers." to { it.put("cost_unit", "ms") },
            "full_cost: found 0.0, expected more than 0." to costs("${twelve}12]", full = 0),
            "full_cost: found nothing, expected a number." to costs("${twelve}12]", full = null),
            "cost_unit: found no word, expected a unit." to { it.put("cost_unit", " ") },
            "costs: found some, expected none where cost_unit is macs." to
                { it.put("costs", JSONArray("[1]")) },
            "full_cost: found some, expected none where cost_unit is macs." to
                { it.put("cost_unit", "macs").put("full_cost", 1) },
        ))
    }

    @Test fun preprocessingThatIsNotWhatIsDone() {
        fun with(key: String, value: Any) = { json: JSONObject ->
            json.put("preprocessing", preprocessing("none").put(key, value))
            Unit
        }
        assertFaults(mapOf(
            "preprocessing, height: found 96, expected 50." to with("height", 96),
            "preprocessing, width: found 96, expected 50." to with("width", 96),
            "preprocessing, channels: found RGB, expected L." to with("channels", "RGB"),
            "preprocessing, resize: found bicubic, expected bilinear." to
                with("resize", "bicubic"),
            "preprocessing, antialias: found false, expected true." to with("antialias", false),
            "preprocessing, antialias: found 1, expected true or false." to with("antialias", 1),
            "preprocessing, range: found [0.0, 1.0], expected [0.0, 255.0]." to
                with("range", JSONArray("[0, 1]")),
            "preprocessing, crop: found top, expected none or center." to with("crop", "top"),
        ))
    }

    private fun preprocessing(crop: String) = JSONObject()
        .put("height", 50).put("width", 50).put("resize", "bilinear").put("antialias", true)
        .put("crop", crop).put("range", JSONArray("[0, 255]")).put("channels", "L")

    @Test fun whatABundleSaysOfPolicyCostsAndPicturesIsRead() {
        with(Fixtures.open(bundle).use { it.manifest }) {
            assertEquals(PolicyType.CONTROLLER to null, policy to confidence)
            assertEquals(MACS to fullMacs.toDouble(), costUnit to fullCost)
            assertEquals(segments.map { it.cumulativeMacs.toDouble() }, costs)
            assertFalse(input.crops)
        }
        val probabilities = List(11) { it / 10.0 }
        change {
            it.getJSONObject("policy").put("type", "threshold")
                .put("confidence", JSONArray(probabilities))
            it.put("cost_unit", "mJ").put("costs", JSONArray(List(12) { k -> 0.5 * (k + 1) }))
            it.put("full_cost", 5.5).put("preprocessing", preprocessing("center"))
        }
        with(Fixtures.open(bundle).use { it.manifest }) {
            assertEquals(PolicyType.THRESHOLD to probabilities, policy to confidence)
            assertEquals("mJ" to 5.5, costUnit to fullCost)
            assertEquals(1.5, costOf(3), 0.0)
            assertTrue(input.crops)
        }
    }

    @Test fun macsThatDoNotAddUp() {
        val first = Fixtures.open(bundle).use { it.manifest.segments[0].macs }
        change { it.segment(0).put("cumulative_macs", 7) }
        val place = "$manifest, segments, cumulative_macs of segment_01.tflite"
        assertFault("$place: found 7, expected $first.", ::open)
    }

    @Test fun tensorsThatNoEarlierSegmentMade() {
        change { it.segment(0).put("inputs", JSONArray("[\"ghost\"]")) }
        val place = "$manifest, inputs of segment_01.tflite"
        val expected = "tensors that earlier segments made: [image]"
        assertFault("$place: found ghost, expected $expected.", ::open)
    }

    @Test fun exitsWithoutAnswer() {
        change { it.segment(0).put("outputs", JSONArray("[\"stop_01\"]")) }
        val place = "$manifest, outputs of segment_01.tflite"
        assertFault("$place: found [stop_01], expected also logits_01.", ::open)
    }

    @Test fun segmentsThatAreNotAsTheManifestSays() {
        fun classify() = Fixtures.open(bundle).use { it.classify(Fixtures.images[0], maxExit = 1) }
        change { it.put("labels", JSONArray("[\"a\", \"b\"]")) }
        val file = "$bundle/segment_01.tflite"
        assertFault("$file, output logits_01: found FLOAT32 [1, 10], expected FLOAT32 [1, 2].") {
            classify()
        }
        change {
            it.getJSONObject("input").put("shape", JSONArray("[1, 25, 100, 1]"))
            it.remove("preprocessing")
        }
        val image = "FLOAT32 [1, 25, 100, 1] of epnet.json"
        assertFault("$file, input image: found FLOAT32 [1, 50, 50, 1], expected $image.") {
            classify()
        }
        change { it.segment(0).getJSONArray("outputs").put("more") }
        assertThrows(EarlyExitException::class.java) { classify() }
    }

    @Test fun aSegmentThatIsNoModelEndsInAnExceptionEvenWithItsOwnChecksum() {
        sign(0, ByteArray(4000) { it.toByte() })
        Fixtures.open(bundle).use { classifier ->
            val message = assertThrows(EarlyExitException::class.java) {
                classifier.classify(Fixtures.images[0])
            }.message!!
            val start = "$bundle/segment_01.tflite: found a model that TFLite cannot open ("
            assertTrue(message, message.startsWith(start))
        }
    }

    @Test fun theChecksumOfTheManifestIsCheckedWhereThereIsOne() {
        val digest = MessageDigest.getInstance("SHA-256").digest(manifest.readBytes())
            .joinToString("") { "%02x".format(it) }
        val checksum = File(bundle, "$MANIFEST_FILE.sha256")
        checksum.writeText("$digest  $MANIFEST_FILE\n")
        open()
        manifest.appendText("\n")
        val message = assertThrows(EarlyExitException::class.java) { open() }.message!!
        assertTrue(message, message.startsWith("$manifest: found sha256 "))
    }

    @Test fun aGoodBundleStillOpens() {
        Fixtures.open(bundle).use { assertEquals(12, it.manifest.numExits) }
    }
}
