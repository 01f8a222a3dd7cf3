package ai.epnet.demo

import ai.epnet.headless.TfliteOnJvm
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Looper
import android.os.SystemClock
import android.view.MotionEvent
import android.view.View
import android.widget.LinearLayout
import android.widget.SeekBar
import android.widget.TextView
import java.io.File
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController

/** A finger and an eye for the app in Robolectric; inference runs on its own thread. */
class Phone(intent: Intent = Intent()) : AutoCloseable {
    var controller: ActivityController<MainActivity>
        private set
    val activity: MainActivity get() = controller.get()

    init {
        assumeTrue("tflite.native is not set", tflite)
        controller = Robolectric.buildActivity(MainActivity::class.java, intent).setup()
    }

    fun <T : View> view(id: Int): T = activity.findViewById(id)

    fun text(id: Int): String = view<TextView>(id).text.toString()

    fun isShown(id: Int): Boolean = view<View>(id).visibility == View.VISIBLE

    /** Waits until the worker has nothing to do and its results have arrived. */
    fun settle() {
        val end = System.nanoTime() + PATIENCE_NANOS
        do {
            assertTrue("Waited in vain; ${text(R.id.message)}", System.nanoTime() < end)
            Thread.sleep(5)
            shadowOf(Looper.getMainLooper()).idle()
        } while (!activity.session.isIdle)
    }

    fun click(id: Int) {
        view<View>(id).performClick()
        shadowOf(Looper.getMainLooper()).idle()
    }

    fun chooseExample(place: Int) {
        view<LinearLayout>(R.id.examples).getChildAt(place).performClick()
        settle()
    }

    /** Draws a stroke through corners given as shares of the canvas. */
    fun draw(vararg corners: Pair<Float, Float>) {
        val canvas = view<DrawView>(R.id.canvas)
        fun touch(action: Int, corner: Pair<Float, Float>) {
            val now = SystemClock.uptimeMillis()
            val (x, y) = corner.first * canvas.width to corner.second * canvas.height
            val event = MotionEvent.obtain(now, now, action, x, y, 0)
            canvas.dispatchTouchEvent(event)
            event.recycle()
        }
        touch(MotionEvent.ACTION_DOWN, corners.first())
        corners.drop(1).forEach { touch(MotionEvent.ACTION_MOVE, it) }
        touch(MotionEvent.ACTION_UP, corners.last())
        settle()
    }

    /** Moves the control for beta as a finger does, and waits for what it brings. */
    fun moveBeta(position: Int) {
        val bar = view<SeekBar>(R.id.beta)
        val listener = SeekBar::class.java.getDeclaredField("mOnSeekBarChangeListener")
        listener.isAccessible = true
        bar.progress = position
        val moved = listener.get(bar) as SeekBar.OnSeekBarChangeListener
        moved.onProgressChanged(bar, position, true)
        settle()
    }

    /** Turns the device, or changes to dark: the Activity is made anew. */
    fun recreate() {
        controller.recreate()
        shadowOf(Looper.getMainLooper()).idle()
    }

    /** Saves what is on the screen; [whole] also what one would have to scroll to. */
    fun screenshot(name: String, whole: Boolean = false) {
        val folder = File(System.getProperty("epnet.screenshots") ?: return)
        folder.mkdirs()
        val decor = activity.window.decorView
        // Nobody waits for animations.
        decor.jumpDrawablesToCurrentState()
        val (width, shown) = decor.width to decor.height
        if (whole) layOut(decor, width, 4 * shown)
        val bottom = if (whole) contentHeight() else shown
        val bitmap = Bitmap.createBitmap(width, bottom, Bitmap.Config.ARGB_8888)
        decor.draw(Canvas(bitmap))
        File(folder, "$name.png").outputStream().use {
            assertTrue(bitmap.compress(Bitmap.CompressFormat.PNG, 100, it))
        }
        if (whole) layOut(decor, width, shown)
    }

    private fun contentHeight(): Int {
        val content = view<View>(R.id.content)
        val place = IntArray(2).also(content::getLocationInWindow)
        return place[1] + content.height
    }

    private fun layOut(view: View, width: Int, height: Int) {
        val exactly = View.MeasureSpec.EXACTLY
        view.measure(
            View.MeasureSpec.makeMeasureSpec(width, exactly),
            View.MeasureSpec.makeMeasureSpec(height, exactly),
        )
        view.layout(0, 0, width, height)
    }

    override fun close() {
        controller.pause().stop().destroy()
    }

    private companion object {
        const val PATIENCE_NANOS = 900_000_000_000

        val tflite by lazy { TfliteOnJvm.load() }
    }
}
