package ai.epnet.engine

import java.io.File
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test

/**
 * Early termination, in segments and in one file, against the whole multi-exit model in one
 * interpreter, the plain network and the static exit of the nearest accuracy: one run, one
 * thread, image by image in turn. The tables are left in `target/latency.json`, too.
 * With `epnet.latency.rounds` (the long tests) all images are run so often, and early termination
 * has to take less than the static exit; without, a part of the images once.
 */
class LatencyTest {
    @Before fun tflite() = Fixtures.needTflite()

    private val rounds = Fixtures.length("epnet.latency.rounds", 0)
    private val images = if (rounds > 0) Fixtures.images.indices else 0 until 200

    private val tables = JSONArray()

    @Test fun earlyTerminationPays() {
        Fixtures.bundles.forEach(::compare)
        writeMeasured("latency.json", images.count(), maxOf(rounds, 1), tables)
    }

    private fun segments(name: String, classifier: EarlyExitClassifier) =
        Runner(name) { classifier.classify(it).passed.last() }

    private fun compare(bundle: File) {
        val static = nearestStatic(bundle)
        val folders = listOf(bundle, Fixtures.network("whole"), Fixtures.network("network"), static)
        val opened = folders.map { Fixtures.open(it) }
        val (early, whole, plain, fixed) = opened.zip(
            listOf(bundle.name, "whole, all exits", "plain network", static.name),
        ) { classifier, name -> segments(name, classifier) }
        val oneFile = opened.first().manifest.model?.let {
            OneFileClassifier.open(DirectoryFiles(bundle))
        }
        val one = oneFile?.let { Runner("${bundle.name}, one file") { image -> it.classify(image) } }
        val runners = listOfNotNull(early, one, whole, plain, fixed)
        runners.runInTurn(images, maxOf(rounds, 1))
        println(Runner.head())
        runners.forEach(::println)
        val rows = JSONArray(runners.map(Runner::toJson))
        tables.put(JSONObject().put("name", bundle.name).put("rows", rows))
        explain(opened.first(), early, whole)
        val share = early.meanMacs / opened.first().manifest.segments.last().cumulativeMacs
        val ratio = early.mean / (share * whole.mean)
        println("mean / (share of MACs x whole): %.3f, mean / static: %.3f".format(
            ratio, early.mean / fixed.mean,
        ))
        one?.let { println("one file / segments: %.3f".format(it.mean / early.mean)) }
        opened.forEach(EarlyExitClassifier::close)
        oneFile?.close()
        if (rounds == 0) return
        assertTrue("${early.mean} and ${fixed.mean} ms", early.mean < fixed.mean)
    }

    /** Where the time goes that the share of the multiply-adds does not explain. */
    private fun explain(classifier: EarlyExitClassifier, early: Runner, whole: Runner) {
        val segments = classifier.manifest.segments
        val times = segmentTimes(classifier)
        val share = early.meanMacs / segments.last().cumulativeMacs
        val reached = IntArray(segments.size)
        for (image in images) {
            val answer = classifier.classify(Fixtures.images[image])
            for (i in answer.passed.indices) reached[i]++
        }
        // The segments that ran on average, at the time that each takes.
        val spent = segments.indices.sumOf { times[it] * reached[it] / images.count() }
        println("  share of MACs x whole              %.4f ms".format(share * whole.mean))
        println("  + segments against one piece       %.4f ms".format(
            share * (times.sum() - whole.mean),
        ))
        println("  + early layers slower per MAC      %.4f ms".format(spent - share * times.sum()))
        println("  + everything around the segments   %.4f ms".format(early.mean - spent))
        println("  segments, us per M MACs: " + segments.indices.joinToString(" ") {
            "%.1f".format(1e3 * times[it] / (segments[it].macs / 1e6))
        })
    }

    /** Median milliseconds of each segment. */
    private fun segmentTimes(classifier: EarlyExitClassifier): List<Double> {
        val last = classifier.manifest.lastExit
        val ways = List(300) {
            val image = Fixtures.images[it % images.count()]
            classifier.classify(image, minExit = last).passed
        }
        return classifier.manifest.segments.indices.map { k ->
            ways.map { it[k].nanos }.sorted()[ways.size / 2] / 1e6
        }
    }

    private fun nearestStatic(bundle: File): File {
        val answers = Fixtures.answers(bundle.name)
        val accuracy = images.count { answers.labels[it] == Fixtures.trueLabels[it] }
        return Fixtures.network("whole").parentFile.listFiles()!!
            .filter { it.name.startsWith("static-") }
            .minBy { static ->
                Fixtures.open(static).use { classifier ->
                    val right = images.count {
                        classifier.classify(Fixtures.images[it]).label == Fixtures.trueLabels[it]
                    }
                    kotlin.math.abs(right - accuracy)
                }
            }
    }
}
