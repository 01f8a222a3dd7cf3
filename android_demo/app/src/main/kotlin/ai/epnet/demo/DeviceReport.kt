package ai.epnet.demo

import android.os.Build
import java.text.SimpleDateFormat
import java.util.Date
import java.util.Locale
import java.util.TimeZone
import org.json.JSONArray
import org.json.JSONObject
import org.tensorflow.lite.TensorFlowLite

/**
 * A benchmark as JSON, which `python -m epnet_tf.device_report` reads. Its `exits` carry
 * what leaving through each exit costs in milliseconds, in place of multiply-adds.
 */
fun deviceReport(bundle: OpenBundle, setting: Setting, result: BenchmarkResult): JSONObject =
    JSONObject()
        .put("format", "epnet-device-report")
        .put("version", 1)
        .put("created", utcNow())
        .put("device", device(result))
        .put("tflite", TensorFlowLite.runtimeVersion())
        .put("threads", result.plan.threads)
        .put("warm_up", result.plan.warmUp)
        .put("repetitions", result.plan.repetitions)
        .put("bundle", bundle(bundle, setting))
        .put("exits", exits(bundle, result))
        .put("examples", examples(result))
        .putOpt("network", result.network?.let(::timings))
        .putOpt("early_exit", result.evaluation?.let { score(it.early, it.images) })
        .putOpt("network_on_test_images", result.evaluation?.let { evaluation ->
            evaluation.whole?.let { score(it, evaluation.images) }
        })

private fun utcNow(): String {
    val format = SimpleDateFormat("yyyy-MM-dd'T'HH:mm:ss'Z'", Locale.ROOT)
    format.timeZone = TimeZone.getTimeZone("UTC")
    return format.format(Date())
}

private fun device(result: BenchmarkResult) = JSONObject()
    .put("manufacturer", Build.MANUFACTURER)
    .put("model", Build.MODEL)
    .put("android_sdk", Build.VERSION.SDK_INT)
    .put("abi", Build.SUPPORTED_ABIS.firstOrNull() ?: "unknown")
    .put("cores", Runtime.getRuntime().availableProcessors())
    .putOpt("thermal_before", result.thermal?.first)
    .putOpt("thermal_after", result.thermal?.second)

private fun bundle(bundle: OpenBundle, setting: Setting) = JSONObject()
    .put("name", bundle.name)
    .put("quantization", bundle.manifest.quantization)
    .put("beta", setting.beta)
    .put("cost_unit", bundle.manifest.costUnit)
    .put("full_macs", bundle.manifest.fullMacs)

private fun exits(bundle: OpenBundle, result: BenchmarkResult): JSONArray {
    val exits = JSONArray()
    bundle.manifest.segments.forEachIndexed { k, segment ->
        val exit = JSONObject()
            .put("exit", segment.exit)
            .put("layer", segment.layer)
            .put("macs", segment.macs)
            .put("cumulative_macs", segment.cumulativeMacs)
            .put("segment", timings(result.segments[k]))
            .put("reaching", timings(result.reaching[k]))
        exits.put(exit)
    }
    return exits
}

/** Early exit on the same images, in both forms of the model. */
private fun examples(result: BenchmarkResult) = JSONObject()
    .put("segments", timings(result.early))
    .putOpt("one_file", result.oneFile?.let(::timings))

private fun score(score: Score, images: Int) = timings(score.timings)
    .put("images", images)
    .put("accuracy", score.accuracy)
    .put("mean_macs", score.meanMacs)

private fun timings(timings: Timings) = JSONObject()
    .put("mean_ms", timings.meanMs)
    .put("median_ms", timings.medianMs)
    .put("p90_ms", timings.p90Ms)
