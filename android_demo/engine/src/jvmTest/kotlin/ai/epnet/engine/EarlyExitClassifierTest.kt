package ai.epnet.engine

import com.sun.management.ThreadMXBean
import java.lang.management.BufferPoolMXBean
import java.lang.management.ManagementFactory
import java.nio.ByteBuffer
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test

class EarlyExitClassifierTest {
    @Before fun tflite() = Fixtures.needTflite()

    private val exits by lazy { Fixtures.answers(Fixtures.bundle.name).exits }

    /** An image that stops at an exit between the first and the last. */
    private val early by lazy { exits.indexOfFirst { it in 3..8 } }

    @Test fun segmentsAfterTheExitAreNeverOpened() {
        val opened = mutableListOf<Int>()
        val options = Options(onSegmentOpened = { opened += it.exit })
        for (exit in exits.distinct().sorted()) {
            opened.clear()
            Fixtures.open(Fixtures.bundle, options).use { classifier ->
                assertEquals(emptyList<Int>(), opened)
                val image = Fixtures.images[exits.indexOf(exit)]
                repeat(3) { assertEquals(exit, classifier.classify(image).exit) }
                assertEquals((1..exit).toList(), opened)
            }
        }
    }

    @Test fun anAnswerCarriesTheWholeWay() {
        Fixtures.open(Fixtures.bundle).use { classifier ->
            val answer = classifier.classify(Fixtures.images[early])
            val segments = classifier.manifest.segments
            assertEquals((1..answer.exit).toList(), answer.passed.map { it.exit })
            assertEquals(segments.take(answer.exit).sumOf { it.macs }, answer.macs)
            assertEquals(answer.passed.sumOf { it.nanos }, answer.nanos)
            assertTrue(answer.passed.all { it.nanos > 0 })
            assertEquals(1f, answer.probabilities.sum(), 1e-5f)
            assertEquals(answer.confidence, answer.probabilities.max(), 0f)
            assertTrue(answer.passed.dropLast(1).all { it.stopLogit <= 0f })
            assertTrue(answer.passed.last().stopLogit > 0f)
            assertFalse(answer.forced)
        }
    }

    @Test fun maxExitForcesAnAnswer() {
        val opened = mutableListOf<Int>()
        val options = Options(onSegmentOpened = { opened += it.exit })
        Fixtures.open(Fixtures.bundle, options).use { classifier ->
            val free = classifier.classify(Fixtures.images[early])
            val forced = classifier.classify(Fixtures.images[early], maxExit = free.exit - 1)
            assertEquals(free.exit - 1, forced.exit)
            assertTrue(forced.forced)
            val expected = free.passed[forced.exit - 1].logits
            assertArrayEquals(expected, forced.logits, 0f)
            assertFalse(classifier.classify(Fixtures.images[early], maxExit = free.exit).forced)
        }
        Fixtures.open(Fixtures.bundle, options).use { classifier ->
            opened.clear()
            assertEquals(1, classifier.classify(Fixtures.images[early], maxExit = 1).exit)
            assertEquals(listOf(1), opened)
            assertFault("maxExit: found 0, expected one of 1..12.") {
                classifier.classify(Fixtures.images[early], maxExit = 0)
            }
        }
    }

    @Test fun heapDirectAndSlicedBuffersAreTheSameImage() {
        val pixels = ByteArray(2500).also { Fixtures.images[early].duplicate().get(it) }
        val padded = ByteBuffer.allocate(3000)
        padded.position(100)
        padded.put(pixels).flip().position(100)
        Fixtures.open(Fixtures.bundle).use { classifier ->
            val expected = classifier.classify(Fixtures.images[early]).logits
            for (buffer in listOf(ByteBuffer.wrap(pixels), padded, padded.slice())) {
                val position = buffer.position()
                assertArrayEquals(expected, classifier.classify(buffer).logits, 0f)
                assertEquals(position, buffer.position())
            }
        }
    }

    @Test fun theAnswerOfOneImageDoesNotChangeWithTheNext() {
        Fixtures.open(Fixtures.bundle).use { classifier ->
            val first = classifier.classify(Fixtures.images[0])
            val logits = first.logits.copyOf()
            for (image in Fixtures.images.take(20)) classifier.classify(image)
            assertArrayEquals(logits, first.logits, 0f)
            assertArrayEquals(logits, classifier.classify(Fixtures.images[0]).logits, 0f)
        }
    }

    @Test fun noBufferIsMadeAfterTheFirstImage() {
        val direct = ManagementFactory.getPlatformMXBeans(BufferPoolMXBean::class.java)
            .first { it.name == "direct" }
        val threads = ManagementFactory.getThreadMXBean() as ThreadMXBean
        Fixtures.open(Fixtures.bundle).use { classifier ->
            val longest = Fixtures.images[exits.indexOf(exits.max())]
            repeat(20) { classifier.classify(longest) }
            val buffers = direct.count
            val bytes = threads.currentThreadAllocatedBytes
            repeat(100) { classifier.classify(longest) }
            val perImage = (threads.currentThreadAllocatedBytes - bytes) / 100
            // Those of closed classifiers may go meanwhile.
            assertTrue("${direct.count} buffers, $buffers before", direct.count <= buffers)
            // The answer itself: an object with two rows of ten floats for each exit.
            assertTrue("$perImage bytes per image", perImage < 8192)
            println("$perImage bytes of objects per image at exit ${exits.max()}")
        }
    }

    @Test fun aClosedClassifierRefuses() {
        val classifier = Fixtures.open(Fixtures.bundle)
        classifier.classify(Fixtures.images[0])
        classifier.close()
        classifier.close()
        assertFault("classifier: found a closed one, expected an open one.") {
            classifier.classify(Fixtures.images[0])
        }
    }

    @Test fun anImageOfTheWrongSizeIsRefused() {
        Fixtures.open(Fixtures.bundle).use { classifier ->
            assertFault("image, bytes: found 784, expected 2500 (50 x 50 x 1).") {
                classifier.classify(ByteBuffer.allocate(784))
            }
            classifier.classify(Fixtures.images[0])
        }
    }

    @Test fun threadsAreCheckedAndBetaIsRefusedWhereNoneIsTaken() {
        assertFault("threads: found 0, expected at least 1.") {
            Fixtures.open(Fixtures.bundle, Options(threads = 0))
        }
        Fixtures.open(Fixtures.bundle).use { classifier ->
            val beta = classifier.manifest.beta
            assertFault("beta: found 1.0, expected none: the bundle is for beta $beta alone.") {
                classifier.classify(Fixtures.images[0], beta = 1.0)
            }
        }
    }
}

/** Runs [action], which must end in the engine's exception with the sentence [message]. */
internal fun assertFault(message: String, action: () -> Unit) {
    assertEquals(message, assertThrows(EarlyExitException::class.java) { action() }.message)
}
