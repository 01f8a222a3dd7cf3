package ai.epnet.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.Path
import android.graphics.Rect
import android.graphics.RectF
import android.util.AttributeSet
import android.view.MotionEvent
import android.view.View

/**
 * A square to draw on with a finger, white on black like the images that the models are
 * trained on, or to show a picture in. Drawing takes a shown picture away; disabled, it only
 * shows.
 */
class DrawView(context: Context, attributes: AttributeSet) : View(context, attributes) {
    /** Called when the drawing has changed by hand. */
    var onDrawn: () -> Unit = {}

    /** Corners of the strokes, x and y from 0 to 1; a stroke ends with NaN, NaN. */
    private val points = ArrayList<Float>()
    private var shown: Bitmap? = null
    private var part: Rect? = null

    private val path = Path()
    private val clip = Path()
    private val frame = RectF()
    private val pen = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = Color.WHITE
        style = Paint.Style.STROKE
        strokeCap = Paint.Cap.ROUND
        strokeJoin = Paint.Join.ROUND
    }
    private val brush = Paint()
    private val rendered = Bitmap.createBitmap(RENDERED, RENDERED, Bitmap.Config.ARGB_8888)
    private val renderedCanvas = Canvas(rendered)

    val isEmpty: Boolean get() = points.isEmpty() && shown == null

    /** The strokes, to be given to [setStrokes] after the device was turned. */
    fun strokes(): FloatArray = points.toFloatArray()

    /** Draws [strokes] in place of what is there. */
    fun setStrokes(strokes: FloatArray) {
        shown = null
        points.clear()
        strokes.forEach(points::add)
        invalidate()
    }

    /** Shows the [part] of a [picture], or all of it, in place of what is there. */
    fun show(picture: Bitmap, part: Rect? = null) {
        points.clear()
        shown = picture
        this.part = part
        invalidate()
    }

    /** Whether [picture] is what is shown. */
    fun shows(picture: Bitmap): Boolean = shown === picture

    /** The drawing as a bitmap, which the next call draws into again. */
    fun render(): Bitmap {
        renderedCanvas.drawColor(Color.BLACK)
        drawStrokes(renderedCanvas, RENDERED.toFloat())
        return rendered
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val side = MeasureSpec.getSize(widthMeasureSpec)
        setMeasuredDimension(side, side)
    }

    override fun onDraw(canvas: Canvas) {
        frame.set(0f, 0f, width.toFloat(), height.toFloat())
        val corner = CORNER_DP * resources.displayMetrics.density
        clip.rewind()
        clip.addRoundRect(frame, corner, corner, Path.Direction.CW)
        canvas.clipPath(clip)
        canvas.drawColor(Color.BLACK)
        shown?.let {
            // The pixels of small images are to be seen.
            brush.isFilterBitmap = it.width > width
            canvas.drawBitmap(it, part, frame, brush)
        }
        drawStrokes(canvas, width.toFloat())
    }

    @SuppressLint("ClickableViewAccessibility") // There is nothing to click.
    override fun onTouchEvent(event: MotionEvent): Boolean {
        if (!isEnabled) return false
        when (event.actionMasked) {
            MotionEvent.ACTION_DOWN -> {
                // Or the page would scroll away under the finger.
                parent.requestDisallowInterceptTouchEvent(true)
                shown = null
                add(event.x, event.y)
            }
            MotionEvent.ACTION_MOVE -> {
                for (i in 0 until event.historySize) {
                    add(event.getHistoricalX(i), event.getHistoricalY(i))
                }
                add(event.x, event.y)
            }
            MotionEvent.ACTION_UP, MotionEvent.ACTION_CANCEL -> {
                points.add(Float.NaN)
                points.add(Float.NaN)
            }
            else -> return true
        }
        invalidate()
        onDrawn()
        return true
    }

    private fun add(x: Float, y: Float) {
        points.add(x / width)
        points.add(y / height)
    }

    private fun drawStrokes(canvas: Canvas, side: Float) {
        path.rewind()
        var begins = true
        for (i in points.indices step 2) {
            val (x, y) = points[i] * side to points[i + 1] * side
            if (x.isNaN()) {
                begins = true
            } else if (begins) {
                path.moveTo(x, y)
                // A touch that does not move is a dot.
                path.lineTo(x, y)
                begins = false
            } else {
                path.lineTo(x, y)
            }
        }
        pen.strokeWidth = side * PEN
        canvas.drawPath(path, pen)
    }

    private companion object {
        /** Side of the bitmap that is classified, a few times that of the model's image. */
        const val RENDERED = 200

        /** Width of the pen: MNIST's strokes are about 3 of 50 pixels wide. */
        const val PEN = 0.06f
        const val CORNER_DP = 12f
    }
}
