package ai.epnet.engine

import java.io.File
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeNotNull
import org.junit.Before
import org.junit.Test

/**
 * Policies made for milliseconds against policies made for multiply-adds, by this machine's
 * clock: the bundles in the folders of `epnet.clock.bundles`, with colons between them, on
 * the images in `test_images` beside them, image by image in turn. The benefit is that at
 * the beta of each bundle whose cost unit is `ms`.
 */
class ClockTest {
    @Before fun tflite() = Fixtures.needTflite()

    @Test fun benefitsByTheClock() {
        val folders = System.getProperty("epnet.clock.bundles")
        assumeNotNull(folders)
        val rounds = Fixtures.length("epnet.latency.rounds", 1)
        val files = folders.split(':').map(::File)
        val test = LabelledImages(File(files.first().parentFile, "test_images"))
        val images = test.images.indices
        val bundles = files.map { Fixtures.open(it) to it.name }
        val betas = bundles.map { it.first.manifest }.filter { it.costUnit == "ms" }
            .map { it.beta!! }.distinct()
        assertTrue("no bundle with a beta for milliseconds in $folders", betas.isNotEmpty())
        val runners = bundles.map { (classifier, name) ->
            Runner(name, test) { classifier.classify(it).passed.last() }
        }
        runners.runInTurn(images, rounds)
        println(Runner.head() + betas.joinToString("") { "  at %.3g".format(it).padStart(12) })
        for (runner in runners) {
            println("$runner" + betas.joinToString("") { "%12.2f".format(runner.benefit(it)) })
        }
        val rows = runners.map { runner ->
            val benefits = betas.map { JSONObject().put("beta", it).put("points", runner.benefit(it)) }
            runner.toJson().put("benefit", JSONArray(benefits))
        }
        val table = JSONObject().put("name", "clock").put("rows", JSONArray(rows))
        writeMeasured("clock.json", images.count(), rounds, JSONArray().put(table))
        bundles.forEach { it.first.close() }
    }
}
