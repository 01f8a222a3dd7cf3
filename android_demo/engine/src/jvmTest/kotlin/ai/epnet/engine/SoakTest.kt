package ai.epnet.engine

import java.io.File
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test

/** Resident memory over many images and many openings. */
class SoakTest {
    @Before fun tflite() = Fixtures.needTflite()

    @Test fun manyImagesDoNotGrowTheProcess() {
        val images = Fixtures.length("epnet.soak.images", 10_000)
        Fixtures.open(Fixtures.bundle).use { classifier ->
            fun run(count: Int) = repeat(count) {
                classifier.classify(Fixtures.images[it % Fixtures.images.size])
            }
            run(WARM_IMAGES)
            val before = residentKilobytes()
            run(images - WARM_IMAGES)
            assertSteady("$images images", before, residentKilobytes())
        }
    }

    @Test fun openingAndClosingGivesMemoryBack() {
        val opens = Fixtures.length("epnet.soak.opens", 100)
        fun open(count: Int) = repeat(count) { i ->
            Fixtures.open(Fixtures.bundle).use { classifier ->
                // All segments are opened: one image that is sent to the last exit.
                classifier.classify(Fixtures.images[i % 10])
                Fixtures.images.take(30).forEach { classifier.classify(it) }
            }
        }
        open(opens / 10)
        val before = residentKilobytes()
        open(opens)
        assertSteady("$opens openings", before, residentKilobytes())
    }

    private fun assertSteady(what: String, before: Long, after: Long) {
        val growth = 100.0 * (after - before) / before
        println("$what: resident $before kB, then $after kB, %.2f %%".format(growth))
        assertTrue("$what grew the process by $growth %", growth <= 5)
    }

    /** Resident memory after a garbage collection, which also unmaps dropped files. */
    private fun residentKilobytes(): Long {
        repeat(3) {
            System.gc()
            Thread.sleep(100)
        }
        val line = File("/proc/self/status").readLines().first { it.startsWith("VmRSS") }
        return line.filter(Char::isDigit).toLong()
    }

    private companion object {
        const val WARM_IMAGES = 5_000
    }
}
