package ai.epnet.demo

import ai.epnet.engine.MACS
import ai.epnet.engine.Manifest
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
        renderPictureCard(state)
        text(R.id.message, state.message)
        renderAnswer(state, correct)
        renderCost(state)
        renderBeta(state)
        renderJobs(state)
        renderEvaluation(state)
    }

    /** What a screen reader says for an example. */
    fun describeExample(place: Int, difficulty: String?, label: String): String {
        if (difficulty == null) return string(R.string.example_plain, place + 1, label)
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
        val subtitle = if (models.takePhotos) {
            string(R.string.subtitle_photos, models.manifest.labels.joinToString())
        } else if (state.images != null) {
            string(R.string.subtitle)
        } else {
            val name = models.bundles.first().name
            string(R.string.subtitle_other, name, input.height, input.width, input.channels)
        }
        text(R.id.subtitle, subtitle)
    }

    /** Photos are chosen; whatever else models take is drawn. */
    private fun renderPictureCard(state: State) {
        val photos = state.models?.takePhotos == true
        val canvas = activity.findViewById<View>(R.id.canvas)
        canvas.isEnabled = !photos
        canvas.contentDescription = string(if (photos) R.string.photo else R.string.canvas)
        val (shown, hidden) = if (photos) R.id.choose to R.id.clear else R.id.clear to R.id.choose
        activity.findViewById<View>(shown).visibility = View.VISIBLE
        hide(hidden)
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
        val manifest = manifest(state)
        if (shown == null || manifest == null) {
            for (id in COSTS) hide(id)
            return
        }
        val share = shown.early.macs.toDouble() / manifest.fullMacs
        bar(R.id.macs_bar, share)
        val (spent, full) = shown.early.macs / 1e6 to manifest.fullMacs / 1e6
        text(R.id.macs, string(R.string.macs_spent, spent, full, saved(share)))
        renderCostUnit(manifest, shown)
        if (shown.whole == null) {
            hide(R.id.time)
            hide(R.id.time_bar)
            return
        }
        val (early, whole) = shown.earlyMs to shown.wholeMs
        bar(R.id.time_bar, early / whole)
        text(R.id.time, string(R.string.time_spent, early, whole, saved(early / whole)))
    }

    /** What the policy counts, where that is not multiply-adds. */
    private fun renderCostUnit(manifest: Manifest, shown: Shown) {
        if (manifest.costUnit == MACS) {
            hide(R.id.cost)
            hide(R.id.cost_bar)
            return
        }
        val (spent, full) = manifest.costOf(shown.early.exit) to manifest.fullCost
        bar(R.id.cost_bar, spent / full)
        val unit = manifest.costUnit
        text(R.id.cost, string(R.string.cost_spent, spent, full, unit, saved(spent / full)))
    }

    private fun renderBeta(state: State) {
        val control = activity.findViewById<SeekBar>(R.id.beta)
        control.isEnabled = state.settings.size > 1
        control.max = maxOf(0, state.settings.size - 1)
        control.progress = state.setting
        val visibility = if (state.settings.size == 1) View.GONE else View.VISIBLE
        for (id in BETA_CHOICE) activity.findViewById<View>(id).visibility = visibility
        val setting = state.settings.getOrNull(state.setting)
        val manifest = manifest(state)
        text(R.id.policy, manifest?.let(::describePolicy))
        val unit = manifest?.costUnit ?: MACS
        val title = if (unit == MACS) string(R.string.beta) else string(R.string.beta_unit, unit)
        text(R.id.beta_title, title)
        text(R.id.beta_value, setting?.let { describeBeta(it.beta, unit) })
    }

    private fun describeBeta(beta: Double, unit: String): String {
        if (unit != MACS) return string(R.string.beta_value_unit, beta)
        val short = java.lang.String.format(java.util.Locale.ROOT, "%.1e", beta)
            .replace(".0e", "e")
        return string(R.string.beta_value, beta * 1e6, short)
    }

    private fun describePolicy(manifest: Manifest): String {
        val confidence = manifest.confidence ?: return string(R.string.policy_controller)
        val percent = confidence.joinToString { (100 * it).roundToInt().toString() }
        return string(R.string.policy_threshold, percent)
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
        val unit = manifest(state)?.costUnit ?: MACS
        if (unit != MACS) {
            add(R.string.row_cost) { string(R.string.cost, it.meanCost, unit) }
        }
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

    private fun exits(state: State): List<Int> =
        manifest(state)?.segments.orEmpty().map { it.exit }

    /** Of the bundle that the control for beta has chosen. */
    private fun manifest(state: State): Manifest? =
        state.settings.getOrNull(state.setting)
            ?.let { state.models?.bundles?.get(it.bundle)?.manifest }

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

        /** Views to choose β with, where there is a choice. */
        val BETA_CHOICE = listOf(R.id.beta, R.id.beta_ends)

        /** Views that tell what an answer cost. */
        val COSTS = listOf(
            R.id.macs, R.id.macs_bar, R.id.cost, R.id.cost_bar, R.id.time, R.id.time_bar,
        )
    }
}
