package ai.epnet.engine

import java.io.File
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test

/** One bundle whose controllers take beta. */
class BetaRangeTest {
    @Before fun tflite() = Fixtures.needTflite()

    private val folder = Fixtures.small("beta-range")
    private val answers = JSONObject(File(folder, "answers.json").readText())
    private val betas = answers.getJSONArray("betas").let { all ->
        List(all.length()) { all.getDouble(it) }
    }

    private fun expected(key: String) = answers.getJSONArray(key).let { all ->
        List(all.length()) { all.getJSONArray(it).integers() }
    }

    private val images = Fixtures.smallImages("beta-range")

    @Test fun everyBetaStopsWherePythonSays() = Fixtures.open(folder).use { classifier ->
        val (exits, labels) = expected("exits") to expected("labels")
        assertTrue(exits.flatten().distinct().size > 1)
        for ((k, beta) in betas.withIndex()) {
            for (i in exits[k].indices) {
                val answer = classifier.classify(images[i], beta)
                assertEquals(exits[k][i] to labels[k][i], answer.exit to answer.label)
            }
        }
    }

    @Test fun betaIsNeededAndInTheRange() = Fixtures.open(folder).use { classifier ->
        val range = classifier.manifest.betaRange!!
        val expected = "${range.start} to ${range.endInclusive}"
        assertFault("beta: found none, expected $expected.") {
            classifier.classify(images[0])
        }
        assertFault("beta: found 0.5, expected $expected.") {
            classifier.classify(images[0], beta = 0.5)
        }
    }
}
