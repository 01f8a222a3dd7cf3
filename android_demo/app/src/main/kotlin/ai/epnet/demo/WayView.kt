package ai.epnet.demo

import ai.epnet.engine.Answer
import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.text.TextPaint
import android.text.TextUtils
import android.util.AttributeSet
import android.view.View
import kotlin.math.min
import kotlin.math.roundToInt

/**
 * The exits in a row: above each its number, in it the label that it gave, below it how
 * sure it was; the other way round where labels are words. Those passed are filled, the one
 * that answered is emphasized.
 */
class WayView(context: Context, attributes: AttributeSet) : View(context, attributes) {
    private var exits: List<Int> = emptyList()
    private var labels: List<String> = emptyList()
    private var answer: Answer? = null

    private val paint = Paint(Paint.ANTI_ALIAS_FLAG)
    private val text = TextPaint(Paint.ANTI_ALIAS_FLAG).apply { textAlign = Paint.Align.CENTER }

    /** Shows the way of [answer], or an untrodden one, through a network with [exits]. */
    fun show(exits: List<Int>, labels: List<String>, answer: Answer?) {
        this.exits = exits
        this.labels = labels
        this.answer = answer
        contentDescription = describe(answer)
        invalidate()
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val width = MeasureSpec.getSize(widthMeasureSpec)
        setMeasuredDimension(width, (dp(HEIGHT_DP)).roundToInt())
    }

    override fun onDraw(canvas: Canvas) {
        if (exits.isEmpty()) return
        val slot = width.toFloat() / exits.size
        val radius = min(slot * 0.42f, dp(MAX_RADIUS_DP))
        val y = height / 2f
        val below = y + radius + dp(14f)
        val passed = answer?.passed.orEmpty()
        drawLine(canvas, slot, y, passed.size)
        for (k in exits.indices) {
            val x = slot * (k + 0.5f)
            val reached = passed.getOrNull(k)
            drawCircle(canvas, x, y, radius, reached != null, k == passed.lastIndex)
            if (slot < dp(MIN_SLOT_DP)) continue
            write(canvas, "${exits[k]}", x, y - radius - dp(6f), dp(10f), R.color.text_secondary)
            if (reached == null) continue
            val stopped = k == passed.lastIndex
            val colour = if (stopped) R.color.on_primary else R.color.on_passed
            val (label, sure) = labels[reached.label] to (100 * reached.confidence).roundToInt()
            if (labels.all { it.length <= 2 }) {
                write(canvas, label, x, y + radius * 0.4f, radius * 1.1f, colour)
                write(canvas, "$sure%", x, below, dp(10f), R.color.text_secondary)
            } else {
                write(canvas, "$sure", x, y + radius * 0.3f, radius * 0.85f, colour)
                val fits = TextUtils.ellipsize(label, text, slot, TextUtils.TruncateAt.END)
                write(canvas, "$fits", x, below, dp(10f), R.color.text_secondary)
            }
        }
    }

    private fun drawLine(canvas: Canvas, slot: Float, y: Float, passed: Int) {
        paint.style = Paint.Style.STROKE
        paint.strokeWidth = dp(2f)
        paint.color = context.getColor(R.color.outline)
        canvas.drawLine(slot / 2, y, width - slot / 2, y, paint)
        if (passed < 2) return
        paint.color = context.getColor(R.color.primary)
        canvas.drawLine(slot / 2, y, slot * (passed - 0.5f), y, paint)
    }

    private fun drawCircle(
        canvas: Canvas, x: Float, y: Float, radius: Float, passed: Boolean, stopped: Boolean,
    ) {
        val fill = if (stopped) R.color.primary else if (passed) R.color.passed else R.color.surface
        paint.style = Paint.Style.FILL
        paint.color = context.getColor(fill)
        canvas.drawCircle(x, y, radius, paint)
        paint.style = Paint.Style.STROKE
        paint.strokeWidth = dp(1.5f)
        paint.color = context.getColor(if (passed) R.color.primary else R.color.outline)
        canvas.drawCircle(x, y, radius, paint)
    }

    private fun write(canvas: Canvas, what: String, x: Float, y: Float, size: Float, colour: Int) {
        text.textSize = size
        text.color = context.getColor(colour)
        canvas.drawText(what, x, y, text)
    }

    private fun describe(answer: Answer?): String {
        if (answer == null) return context.getString(R.string.way_empty)
        val said = answer.passed.joinToString(" ") {
            val sure = (100 * it.confidence).roundToInt()
            context.getString(R.string.way_exit, it.exit, labels[it.label], sure)
        }
        return context.getString(R.string.way_description, exits.size, answer.passed.size, said)
    }

    private fun dp(value: Float) = value * resources.displayMetrics.density

    private companion object {
        const val HEIGHT_DP = 64f
        const val MAX_RADIUS_DP = 16f

        /** Below this width of an exit's place there is no room for text. */
        const val MIN_SLOT_DP = 20f
    }
}
