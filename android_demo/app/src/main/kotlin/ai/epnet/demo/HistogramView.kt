package ai.epnet.demo

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.util.AttributeSet
import android.view.View

/** How many images left through each exit: a bar for each, its number below it. */
class HistogramView(context: Context, attributes: AttributeSet) : View(context, attributes) {
    private var exits: List<Int> = emptyList()
    private var counts: List<Int> = emptyList()

    private val bar = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = context.getColor(R.color.primary)
    }
    private val text = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = context.getColor(R.color.text_secondary)
        textAlign = Paint.Align.CENTER
        textSize = dp(10f)
    }

    /** Shows [counts] images at [exits]. */
    fun show(exits: List<Int>, counts: List<Int>) {
        this.exits = exits
        this.counts = counts
        val said = exits.indices.filter { counts[it] > 0 }.joinToString {
            context.getString(R.string.histogram_exit, exits[it], counts[it])
        }
        contentDescription = context.getString(R.string.histogram_description, said)
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        val most = counts.maxOrNull()?.takeIf { it > 0 } ?: return
        val slot = width.toFloat() / counts.size
        val line = dp(14f)
        val bottom = height - line
        for (k in counts.indices) {
            val x = slot * (k + 0.5f)
            val top = bottom - (bottom - line) * counts[k] / most
            if (counts[k] > 0) {
                val half = slot * 0.36f
                val round = dp(3f)
                canvas.drawRoundRect(x - half, top - dp(1f), x + half, bottom, round, round, bar)
            }
            canvas.drawText("${counts[k]}", x, top - dp(4f), text)
            canvas.drawText("${exits[k]}", x, height - dp(2f), text)
        }
    }

    private fun dp(value: Float) = value * resources.displayMetrics.density
}
