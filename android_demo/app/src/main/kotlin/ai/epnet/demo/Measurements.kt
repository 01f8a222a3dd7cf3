package ai.epnet.demo

import ai.epnet.engine.Answer

/** Latencies of the same work, in nanoseconds, in the order in which they were taken. */
class Timings(nanos: List<Long>) {
    private val sorted = nanos.sorted()

    val count: Int get() = sorted.size
    val meanMs: Double get() = sorted.average() / NANOS_PER_MS
    val medianMs: Double get() = quantile(0.5)
    val p90Ms: Double get() = quantile(0.9)

    /** The smallest latency that at least the share [share] of all does not exceed. */
    private fun quantile(share: Double): Double {
        val rank = kotlin.math.ceil(share * sorted.size).toInt().coerceIn(1, sorted.size)
        return sorted[rank - 1] / NANOS_PER_MS
    }

    companion object {
        const val NANOS_PER_MS = 1e6
    }
}

/**
 * What early exit, or the whole network, achieved on all test images.
 *
 * @property meanCost in the bundle's unit of cost.
 */
class Score(
    val accuracy: Double,
    val meanMacs: Double,
    val meanCost: Double,
    val timings: Timings,
)

/**
 * Result of a run over all test images.
 *
 * @property histogram number of images that left through each exit, the first one first.
 * @property agreeing images with the same exit and label as in Python, or null if unknown.
 */
class Evaluation(
    val images: Int,
    val early: Score,
    val whole: Score?,
    val histogram: List<Int>,
    val agreeing: Int?,
)

/** Runs all test images, each with early exit and then with the whole network. */
fun evaluate(
    models: Models,
    setting: Setting,
    images: TestImages,
    python: PythonAnswers?,
): Evaluation {
    val early = ArrayList<Answer>(images.size)
    val whole = ArrayList<Answer>(images.size)
    for (index in 0 until images.size) {
        val picture = Picture.Pixels(images.pixels(index))
        early += models.classify(picture, setting)
        models.classifyWhole(picture)?.let(whole::add)
    }
    val manifest = models.bundles[setting.bundle].manifest
    return Evaluation(
        images = images.size,
        early = score(early, images) { manifest.costOf(it.exit) },
        whole = if (whole.isEmpty()) null else score(whole, images) { manifest.fullCost },
        histogram = manifest.segments.map { segment ->
            early.count { it.exit == segment.exit }
        },
        agreeing = python?.let { answers ->
            early.indices.count {
                early[it].exit == answers.exits[it] && early[it].label == answers.labels[it]
            }
        },
    )
}

private fun score(
    answers: List<Answer>,
    images: TestImages,
    cost: (Answer) -> Double,
) = Score(
    accuracy = answers.indices.count { answers[it].label == images.labels[it] }
        .toDouble() / answers.size,
    meanMacs = answers.sumOf { it.macs }.toDouble() / answers.size,
    meanCost = answers.sumOf(cost) / answers.size,
    timings = Timings(answers.map { it.nanos }),
)
