package ai.epnet.engine

import java.io.File
import java.lang.ref.PhantomReference
import java.lang.ref.Reference
import java.lang.ref.ReferenceQueue
import java.nio.ByteBuffer
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test

/** Resident memory over many images and many openings. */
class SoakTest {
    @Before fun tflite() = Fixtures.needTflite()

    @Test fun manyImagesDoNotGrowTheProcess() =
        Fixtures.open(Fixtures.bundle).use { manyImages("in segments") { image -> it.classify(image) } }

    @Test fun manyImagesInOneFileDoNotGrowTheProcess() =
        openOneFile().use { manyImages("in one file") { image -> it.classify(image) } }

    @Test fun openingAndClosingGivesMemoryBack() = manyOpenings("of segments") { images ->
        Fixtures.open(Fixtures.bundle).use { images.forEach { image -> it.classify(image) } }
    }

    @Test fun openingAndClosingOneFileGivesMemoryBack() = manyOpenings("of one file") { images ->
        openOneFile().use { images.forEach { image -> it.classify(image) } }
    }

    private fun openOneFile() = OneFileClassifier.open(DirectoryFiles(Fixtures.bundle))

    private fun manyImages(what: String, classify: (ByteBuffer) -> Unit) {
        val images = Fixtures.length("epnet.soak.images", 10_000)
        fun run(count: Int) = repeat(count) { classify(Fixtures.images[it % Fixtures.images.size]) }
        run(WARM_IMAGES)
        val before = residentKilobytes()
        run(images - WARM_IMAGES)
        assertSteady("$images images $what", before, residentKilobytes())
    }

    private fun manyOpenings(what: String, openAndClassify: (List<ByteBuffer>) -> Unit) {
        val opens = Fixtures.length("epnet.soak.opens", 100)
        // Some of these go to the last exit: all segments are opened.
        fun open(count: Int) = repeat(count) { openAndClassify(Fixtures.images.take(30)) }
        open(opens / 10)
        val before = residentKilobytes()
        open(opens)
        assertSteady("$opens openings $what", before, residentKilobytes())
    }

    private fun assertSteady(what: String, before: Long, after: Long) {
        val growth = 100.0 * (after - before) / before
        println("$what: resident $before kB, then $after kB, %.2f %%".format(growth))
        assertTrue("$what grew the process by $growth %", growth <= 5)
    }

    /** Resident memory after a garbage collection, which also unmaps dropped files. */
    private fun residentKilobytes(): Long {
        repeat(3) { collectGarbage() }
        val line = File("/proc/self/status").readLines().first { it.startsWith("VmRSS") }
        return line.filter(Char::isDigit).toLong()
    }

    /** Returns when the thread that unmaps has come to what this collection found. */
    private fun collectGarbage() {
        val queue = ReferenceQueue<Any>()
        val garbage = PhantomReference(Any(), queue)
        System.gc()
        assertNotNull("no collection", queue.remove(PATIENCE_MS))
        Reference.reachabilityFence(garbage)
    }

    private companion object {
        const val WARM_IMAGES = 5_000
        const val PATIENCE_MS = 300_000L
    }
}
