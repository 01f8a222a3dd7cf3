package ai.epnet.engine

import kotlin.math.abs
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test

/** The engine answers as Python's `SegmentRunner` does. */
class AgreementTest {
    @Before fun tflite() = Fixtures.needTflite()

    @Test fun everyImageLeavesWherePythonSays() {
        assertTrue(Fixtures.images.size >= 1000)
        for (bundle in Fixtures.bundles) {
            val answers = Fixtures.answers(bundle.name)
            Fixtures.open(bundle).use { classifier ->
                val found = Fixtures.images.map { classifier.classify(it) }
                val expected = answers.exits zip answers.labels
                assertEquals(expected, found.map { it.exit to it.label })
            }
        }
    }

    @Test fun logitsAreThoseOfPython() {
        val far = Fixtures.bundles.associate { bundle ->
            val answers = Fixtures.answers(bundle.name)
            val differences = Fixtures.open(bundle).use { classifier ->
                Fixtures.images.indices.map { i ->
                    val logits = classifier.classify(Fixtures.images[i]).logits
                    logits.indices.maxOf { abs(logits[it] - answers.logits[i][it]) }
                }
            }
            println("${bundle.name}: largest difference of a logit ${differences.max()}")
            bundle.name to differences.count { it > 1e-4 }
        }
        assertEquals("images with a logit off by more than 1e-4: $far", 0, far.values.sum())
    }

    @Test fun threadsDoNotChangeTheAnswer() {
        val answers = Fixtures.answers(Fixtures.bundle.name)
        for (threads in listOf(2, 4)) {
            Fixtures.open(Fixtures.bundle, Options(threads)).use { classifier ->
                for (i in 0 until 200) {
                    val answer = classifier.classify(Fixtures.images[i])
                    assertEquals(answers.exits[i] to answers.labels[i], answer.exit to answer.label)
                }
            }
        }
    }
}
