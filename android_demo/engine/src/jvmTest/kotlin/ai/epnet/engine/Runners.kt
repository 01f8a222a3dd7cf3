package ai.epnet.engine

import java.io.File
import java.lang.management.ManagementFactory
import java.lang.management.ThreadMXBean
import java.nio.ByteBuffer
import kotlin.math.ceil
import org.json.JSONArray
import org.json.JSONObject
import org.tensorflow.lite.TensorFlowLite

/**
 * Something that classifies test images, the packaged ones by default, and what came out.
 * Times are the thread's CPU time, which other processes on the machine disturb least.
 */
internal class Runner(
    val name: String,
    private val test: LabelledImages = Fixtures.packaged,
    private val classify: (ByteBuffer) -> ExitAnswer,
) {
    private val nanos = ArrayList<Long>()
    private var macs = 0L
    private var right = 0

    fun run(image: Int, counts: Boolean) {
        val start = threads.currentThreadCpuTime
        val answer = classify(test.images[image])
        val end = threads.currentThreadCpuTime
        if (!counts) return
        nanos += end - start
        macs += answer.macs
        if (answer.label == test.labels[image]) right++
    }

    val mean get() = nanos.average() / 1e6
    val p90 get() = nanos.sorted()[ceil(0.9 * nanos.size).toInt() - 1] / 1e6
    val accuracy get() = right.toDouble() / nanos.size
    val meanMacs get() = macs.toDouble() / nanos.size

    /** Points: accuracy less what the time costs, [beta] points a millisecond. */
    fun benefit(beta: Double) = 100 * accuracy - beta * mean

    fun toJson(): JSONObject = JSONObject()
        .put("name", name).put("accuracy", accuracy).put("mean_macs", meanMacs)
        .put("mean_ms", mean).put("p90_ms", p90)

    override fun toString(): String =
        "%-22s %8.4f %7.2f M %8.4f %8.4f".format(name, accuracy, meanMacs / 1e6, mean, p90)

    companion object {
        private val threads: ThreadMXBean = ManagementFactory.getThreadMXBean()

        /** What is over the columns of a runner. */
        fun head(): String =
            "%-22s %8s %9s %8s %8s".format("", "accuracy", "MACs", "mean ms", "p90 ms")
    }
}

/** Runs each image through all in turn, [rounds] times after a first one that does not count. */
internal fun List<Runner>.runInTurn(images: Iterable<Int>, rounds: Int) {
    for (round in 0..rounds) {
        for (image in images) forEach { it.run(image, counts = round > 0) }
    }
}

/** Leaves what was measured in a file of the build, for `benchmarks/` to read. */
internal fun writeMeasured(file: String, images: Int, rounds: Int, tables: JSONArray) {
    val json = JSONObject()
        .put("format", "epnet-jvm-times").put("version", 1)
        .put("tflite", TensorFlowLite.runtimeVersion()).put("threads", 1)
        .put("images", images).put("rounds", rounds)
        .put("tables", tables)
    File("target/$file").writeText(json.toString(2) + "\n")
}
