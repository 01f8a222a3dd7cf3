package ai.epnet.engine

import java.io.File
import java.nio.ByteBuffer
import java.security.MessageDigest
import java.util.Random
import org.junit.Assert.assertEquals
import org.junit.Before
import org.junit.Test

/** Damaged bundles end in the engine's exception, and nothing crashes the JVM. */
class MutationTest {
    @Before fun tflite() = Fixtures.needTflite()

    private val count = Fixtures.length("epnet.mutations", 200)

    @Test fun everyDamagedBundleIsRefused() {
        val files = good() + ("$MANIFEST_FILE.sha256" to checksum(good().getValue(MANIFEST_FILE)))
        val random = Random(1)
        var refused = 0
        repeat(count) {
            // Every other time the manifest, or its checksum, is what is damaged.
            val (about, segments) = files.keys.partition { it.startsWith(MANIFEST_FILE) }
            val names = if (it % 2 == 0) about else segments
            val damaged = mutate(files, names[random.nextInt(names.size)], random)
            if (!opensAndRuns(damaged)) refused++
        }
        println("$refused of $count damaged bundles were refused")
        assertEquals(count, refused)
    }

    /** Without its checksum a damaged manifest may still make sense: then it runs. */
    @Test fun aDamagedManifestWithoutChecksumIsRefusedOrRuns() {
        val files = good()
        val random = Random(2)
        var ran = 0
        repeat(count) { if (opensAndRuns(mutate(files, MANIFEST_FILE, random))) ran++ }
        println("$ran of $count damaged manifests without checksum made sense and ran")
    }

    private fun good(): Map<String, ByteArray> =
        Fixtures.bundle.listFiles()!!
            .filter { !it.name.endsWith(".sha256") }.associate { it.name to it.readBytes() }

    private fun mutate(files: Map<String, ByteArray>, name: String, random: Random) =
        files + (name to mutated(files.getValue(name), random))

    private fun mutated(content: ByteArray, random: Random): ByteArray =
        if (random.nextInt(4) == 0) {
            content.copyOf(random.nextInt(content.size))
        } else {
            content.copyOf().also { bytes ->
                repeat(1 + random.nextInt(3)) {
                    val position = random.nextInt(bytes.size)
                    val flipped = bytes[position].toInt() xor (1 shl random.nextInt(8))
                    bytes[position] = flipped.toByte()
                }
                // Flips that undo each other would be no damage.
                if (bytes.contentEquals(content)) bytes[0] = (bytes[0] + 1).toByte()
            }
        }

    /** Opens the bundle, segments and one file, and runs both; false where it is refused. */
    private fun opensAndRuns(files: Map<String, ByteArray>): Boolean =
        try {
            EarlyExitClassifier.open(MemoryFiles(files)).use { classifier ->
                val image = ByteBuffer.allocate(classifier.manifest.input.numValues)
                classifier.classify(image, beta = null)
                if (classifier.manifest.model != null) {
                    OneFileClassifier.open(MemoryFiles(files)).use { it.classify(image) }
                }
            }
            true
        } catch (_: EarlyExitException) {
            false
        }

    private fun checksum(content: ByteArray): ByteArray {
        val digest = MessageDigest.getInstance("SHA-256").digest(content)
        return (digest.joinToString("") { "%02x".format(it) } + "  $MANIFEST_FILE\n").toByteArray()
    }

    private class MemoryFiles(private val files: Map<String, ByteArray>) : BundleFiles {
        override fun describe(file: String) = File("memory", file).path

        override fun read(file: String) = files[file]

        override fun map(file: String): ByteBuffer? = files[file]?.let {
            ByteBuffer.allocateDirect(it.size).put(it).flip() as ByteBuffer
        }
    }
}
