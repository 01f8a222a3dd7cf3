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
                var largest = 0.0
                val answered = Fixtures.images.mapIndexed { i, image ->
                    val answer = classifier.classify(image)
                    for ((found, expected) in answer.logits.toList() zip answers.logits[i]) {
                        largest = maxOf(largest, abs(found - expected))
                    }
                    answer.exit to answer.label
                }
                println("${bundle.name}: largest difference of a logit $largest")
                assertEquals(answers.exits zip answers.labels, answered)
                assertTrue("$largest", largest <= 1e-4)
            }
        }
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
