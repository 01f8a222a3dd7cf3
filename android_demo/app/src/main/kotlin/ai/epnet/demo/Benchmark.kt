package ai.epnet.demo

import ai.epnet.engine.Answer
import ai.epnet.engine.OneFileClassifier
import android.content.Context
import android.os.Build
import android.os.PowerManager

/**
 * How a benchmark is run.
 *
 * @property threads threads of each interpreter.
 * @property warmUp runs before the first that counts.
 * @property repetitions runs that count.
 */
class BenchmarkPlan(val threads: Int = 1, val warmUp: Int = 50, val repetitions: Int = 200)

/**
 * What a benchmark has measured on this device.
 *
 * @property segments latency of each segment, all of them run for every image.
 * @property reaching latency up to and with each segment: what leaving there costs.
 * @property early latency with early exit, in segments.
 * @property oneFile the same in one file, or null where the bundle has none.
 * @property network latency of the whole network without early exits, or null.
 * @property evaluation all test images, with early exit, or null for other images.
 * @property thermal thermal state before and after; null where the device does not tell.
 */
class BenchmarkResult(
    val plan: BenchmarkPlan,
    val segments: List<Timings>,
    val reaching: List<Timings>,
    val early: Timings,
    val oneFile: Timings?,
    val network: Timings?,
    val evaluation: Evaluation?,
    val thermal: Pair<String, String>?,
)

/**
 * Measures the bundle of [setting] on some pictures: all its segments, early exit in segments
 * and in one file, and the whole network, in turn.
 */
fun measure(
    models: Models,
    setting: Setting,
    oneFile: OneFileClassifier?,
    pictures: List<Picture.Pixels>,
    plan: BenchmarkPlan,
    evaluation: () -> Evaluation?,
    thermalState: () -> String?,
): BenchmarkResult {
    val classifier = models.bundles[setting.bundle].classifier
    val last = classifier.manifest.lastExit
    val before = thermalState()
    val ways = ArrayList<Answer>()
    val early = ArrayList<Long>()
    val ones = ArrayList<Long>()
    val wholes = ArrayList<Long>()
    repeat(plan.warmUp + plan.repetitions) { run ->
        val picture = pictures[run % pictures.size]
        val way = classifier.classify(picture.pixels, setting.input, minExit = last)
        val segments = classifier.classify(picture.pixels, setting.input)
        val one = oneFile?.classify(picture.pixels, setting.input)
        val whole = models.classifyWhole(picture)
        if (run >= plan.warmUp) {
            ways += way
            early += segments.nanos
            one?.let { ones += it.nanos }
            whole?.let { wholes += it.nanos }
        }
    }
    val exits = classifier.manifest.segments.indices
    return BenchmarkResult(
        plan = plan,
        segments = exits.map { k -> Timings(ways.map { it.passed[k].nanos }) },
        reaching = exits.map { k ->
            Timings(ways.map { way -> way.passed.take(k + 1).sumOf { it.nanos } })
        },
        early = Timings(early),
        oneFile = if (ones.isEmpty()) null else Timings(ones),
        network = if (wholes.isEmpty()) null else Timings(wholes),
        evaluation = evaluation(),
        thermal = before?.let { it to (thermalState() ?: it) },
    )
}

/** Android's name for how hot the device is, from API 29 on. */
fun thermalState(context: Context): String? {
    if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return null
    val power = context.getSystemService(PowerManager::class.java) ?: return null
    return when (power.currentThermalStatus) {
        PowerManager.THERMAL_STATUS_NONE -> "none"
        PowerManager.THERMAL_STATUS_LIGHT -> "light"
        PowerManager.THERMAL_STATUS_MODERATE -> "moderate"
        PowerManager.THERMAL_STATUS_SEVERE -> "severe"
        PowerManager.THERMAL_STATUS_CRITICAL -> "critical"
        PowerManager.THERMAL_STATUS_EMERGENCY -> "emergency"
        else -> "shutdown"
    }
}
