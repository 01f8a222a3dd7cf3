package ai.epnet.demo

import android.app.Activity
import android.view.Gravity
import android.view.View
import android.widget.Button
import android.widget.ProgressBar
import android.widget.SeekBar
import android.widget.TableLayout
import android.widget.TableRow
import android.widget.TextView
import kotlin.math.floor
import kotlin.math.roundToInt

/** Writes a [State] into the views. */
class Screen(private val activity: Activity) {
    private val way: WayView = activity.findViewById(R.id.way)

    /** @param correct class of the example that is shown, or null. */
    fun render(state: State, correct: Int?) {
        renderCards(state)
        renderSubtitle(state)
        text(R.id.message, state.message)
        renderAnswer(state, correct)
        renderCost(state)
        renderBeta(state)
        renderJobs(state)
        renderEvaluation(state)
    }

    /** What a screen reader says for an example. */
    fun describeExample(images: TestImages, place: Int, index: Int): String {
        val label = images.labels[index].toString()
        val difficulty = images.difficulty(index)
            ?: return string(R.string.example_plain, place + 1, label)
        return string(R.string.example, place + 1, difficulty, label)
    }

    /** Where the bundles cannot be used, there is nothing to show but the message. */
    private fun renderCards(state: State) {
        val useless = state.models == null && state.job == null
        for (id in listOf(R.id.picture_card, R.id.way_card, R.id.beta_card, R.id.tests_card)) {
            activity.findViewById<View>(id).visibility = if (useless) View.GONE else View.VISIBLE
        }
    }

    private fun renderSubtitle(state: State) {
        val models = state.models
        if (models == null) {
            text(R.id.subtitle, if (state.job == Job.LOADING) string(R.string.loading) else null)
            return
        }
        val input = models.manifest.input
        val subtitle = if (state.images != null) {
            string(R.string.subtitle)
        } else {
            val name = models.bundles.first().name
            string(R.string.subtitle_other, name, input.height, input.width, input.channels)
        }
        text(R.id.subtitle, subtitle)
    }

    private fun renderAnswer(state: State, correct: Int?) {
        val labels = state.models?.manifest?.labels.orEmpty()
        val shown = state.shown
        val answer = shown?.early
        val view = activity.findViewById<TextView>(R.id.answer)
        view.text = answer?.let { labels[it.label] } ?: string(R.string.no_answer)
        view.contentDescription = answer?.let { string(R.string.answer, labels[it.label]) }
        val sure = answer?.let { string(R.string.confidence, (100 * it.confidence).roundToInt()) }
        text(R.id.confidence, sure, View.INVISIBLE)
        val exits = exits(state)
        val stopped = answer?.let { string(R.string.stopped, it.exit, exits.last()) }
        text(R.id.stopped, stopped, View.INVISIBLE)
        val others = listOfNotNull(
            shown?.whole?.let { string(R.string.whole_says, labels[it.label]) },
            if (answer != null && correct != null) {
                string(R.string.correct_answer, labels[correct])
            } else {
                null
            },
        )
        text(R.id.others, others.joinToString("\n").ifEmpty { null }, View.INVISIBLE)
        way.show(exits, labels, answer)
    }

    private fun renderCost(state: State) {
        val shown = state.shown
        val full = state.models?.manifest?.fullMacs
        if (shown == null || full == null) {
            for (id in listOf(R.id.macs, R.id.time, R.id.macs_bar, R.id.time_bar)) hide(id)
            return
        }
        val spent = shown.early.macs
        bar(R.id.macs_bar, spent.toDouble() / full)
        text(R.id.macs, string(R.string.macs_spent, spent / 1e6, full / 1e6, saved(spent.toDouble() / full)))
        if (shown.whole == null) {
            hide(R.id.time)
            hide(R.id.time_bar)
            return
        }
        val (early, whole) = shown.earlyMs to shown.wholeMs
        bar(R.id.time_bar, early / whole)
        text(R.id.time, string(R.string.time_spent, early, whole, saved(early / whole)))
    }

    private fun renderBeta(state: State) {
        val control = activity.findViewById<SeekBar>(R.id.beta)
        control.isEnabled = state.settings.size > 1
        control.max = maxOf(0, state.settings.size - 1)
        control.progress = state.setting
        val setting = state.settings.getOrNull(state.setting)
        text(R.id.beta_value, setting?.let {
            val short = java.lang.String.format(java.util.Locale.ROOT, "%.1e", it.beta)
                .replace(".0e", "e")
            string(R.string.beta_value, it.beta * 1e6, short)
        })
    }

    private fun renderJobs(state: State) {
        val ready = state.job == null && state.images != null
        val runAll = activity.findViewById<Button>(R.id.run_all)
        runAll.text = string(R.string.run_all, state.images?.size ?: 0)
        enable(runAll, ready)
        enable(activity.findViewById(R.id.benchmark), ready)
        val share = activity.findViewById<View>(R.id.share)
        share.visibility = if (state.report != null) View.VISIBLE else View.GONE
        val running = when (state.job) {
            Job.LOADING -> R.string.loading
            Job.RUN_ALL -> R.string.running_all
            Job.BENCHMARK -> R.string.benchmarking
            null -> null
        }
        activity.findViewById<View>(R.id.running).visibility =
            if (running != null) View.VISIBLE else View.GONE
        text(R.id.running_text, running?.let { string(it) })
        text(R.id.benchmark_text, state.report?.result?.let { result ->
            string(
                R.string.benchmark_done, result.segments.size, result.plan.repetitions,
                result.plan.threads, result.network?.medianMs ?: 0.0,
                result.reaching.last().medianMs, result.early.medianMs,
            ) + result.oneFile?.let { string(R.string.benchmark_one_file, it.medianMs) }.orEmpty()
        })
    }

    private fun renderEvaluation(state: State) {
        val evaluation = state.evaluation
        val panel = activity.findViewById<View>(R.id.evaluation)
        panel.visibility = if (evaluation != null) View.VISIBLE else View.GONE
        if (evaluation == null) return
        val table = activity.findViewById<TableLayout>(R.id.table)
        table.removeAllViews()
        val columns = listOfNotNull(evaluation.early, evaluation.whole)
        val heads = listOf(R.string.column_early, R.string.column_whole).take(columns.size)
        table.addView(row(listOf("") + heads.map { string(it) }))
        fun add(name: Int, value: (Score) -> String) =
            table.addView(row(listOf(string(name)) + columns.map(value)))
        add(R.string.row_accuracy) { string(R.string.percent, 100 * it.accuracy) }
        add(R.string.row_macs) { string(R.string.millions, it.meanMacs / 1e6) }
        add(R.string.row_median) { string(R.string.milliseconds, it.timings.medianMs) }
        add(R.string.row_mean) { string(R.string.milliseconds, it.timings.meanMs) }
        text(R.id.agreement, evaluation.agreeing?.let {
            string(R.string.agreement, it, evaluation.images)
        })
        activity.findViewById<HistogramView>(R.id.histogram)
            .show(exits(state), evaluation.histogram)
    }

    private fun row(cells: List<String>): TableRow {
        val row = TableRow(activity)
        cells.forEachIndexed { column, content ->
            val cell = TextView(activity)
            cell.setTextAppearance(if (column == 0) R.style.Text_Secondary else R.style.Text)
            cell.text = content
            cell.gravity = if (column == 0) Gravity.START else Gravity.END
            cell.setPadding(if (column == 0) 0 else dp(16), dp(2), 0, dp(2))
            row.addView(cell)
        }
        return row
    }

    private fun exits(state: State): List<Int> {
        val bundle = state.settings.getOrNull(state.setting)?.bundle ?: return emptyList()
        return state.models?.bundles?.get(bundle)?.manifest?.segments.orEmpty().map { it.exit }
    }

    /** Never more than is saved: 99.7 % are shown as 99. */
    private fun saved(share: Double): String {
        val percent = floor(100 * (1 - share)).toInt()
        return if (percent < 0) string(R.string.more, -percent) else string(R.string.saved, percent)
    }

    private fun bar(id: Int, share: Double) {
        val bar = activity.findViewById<ProgressBar>(id)
        bar.progress = (1000 * share).roundToInt().coerceIn(0, 1000)
        bar.visibility = View.VISIBLE
    }

    /** Writes [content], or hides the view as [hidden] says where there is none. */
    private fun text(id: Int, content: String?, hidden: Int = View.GONE) {
        val view = activity.findViewById<TextView>(id)
        view.text = content
        view.visibility = if (content != null) View.VISIBLE else hidden
    }

    private fun enable(button: Button, enabled: Boolean) {
        button.isEnabled = enabled
        button.alpha = if (enabled) 1f else DISABLED_ALPHA
    }

    private fun hide(id: Int) {
        activity.findViewById<View>(id).visibility = View.GONE
    }

    private fun string(id: Int, vararg values: Any) = activity.getString(id, *values)

    private fun dp(value: Int) = (value * activity.resources.displayMetrics.density).roundToInt()

    private companion object {
        /** Material's opacity of what cannot be touched. */
        const val DISABLED_ALPHA = 0.38f
    }
}
