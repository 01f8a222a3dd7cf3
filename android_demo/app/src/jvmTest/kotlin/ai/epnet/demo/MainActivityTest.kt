package ai.epnet.demo

import android.content.Intent
import android.content.pm.ActivityInfo
import android.view.View
import android.view.ViewGroup
import android.widget.ImageButton
import android.widget.LinearLayout
import android.widget.SeekBar
import java.io.File
import java.nio.ByteBuffer
import java.util.Locale
import kotlin.math.abs
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode

/** The real Activity with the packaged bundles in real TFLite. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34], qualifiers = "w411dp-h731dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class MainActivityTest {
    @get:Rule val folder = TemporaryFolder()

    @Test fun drawingAnswersAndClearingForgets() = Phone().use { phone ->
        phone.settle()
        assertFalse(phone.isShown(R.id.stopped))
        phone.draw(0.5f to 0.3f, 0.5f to 0.7f)
        assertTrue(phone.text(R.id.answer).toInt() in 0..9)
        assertTrue(phone.text(R.id.stopped), phone.text(R.id.stopped).startsWith("Exit "))
        assertTrue(phone.text(R.id.macs), phone.text(R.id.macs).endsWith("saved"))
        assertTrue(phone.view<View>(R.id.way).contentDescription.contains("Exit 1: "))
        phone.click(R.id.clear)
        assertEquals("–", phone.text(R.id.answer))
        assertFalse(phone.isShown(R.id.stopped))
        assertTrue(phone.view<DrawView>(R.id.canvas).isEmpty)
    }

    @Test fun examplesStopWherePythonSays() = Phone().use { phone ->
        phone.settle()
        val images = TestImages.read(phone.activity.assets, Collection.DIGITS)
        val names = Collection.DIGITS.bundles(phone.activity.assets)
        val name = names[phone.view<SeekBar>(R.id.beta).progress]
        val python = PythonAnswers.read(phone.activity.assets, Collection.DIGITS, name)!!
        val row = phone.view<LinearLayout>(R.id.examples)
        assertEquals(images.examples.size, row.childCount)
        for ((place, index) in images.examples.withIndex()) {
            phone.click(R.id.clear)
            phone.chooseExample(place)
            assertEquals("${python.labels[index]}", phone.text(R.id.answer))
            assertEquals("Exit ${python.exits[index]} of 12", phone.text(R.id.stopped))
            assertTrue(phone.text(R.id.others).endsWith("Correct: ${images.labels[index]}"))
            assertTrue(row.getChildAt(place).isSelected)
        }
    }

    @Test fun movingBetaShowsWhereTheSameImageStops() = Phone().use { phone ->
        phone.settle()
        val bar = phone.view<SeekBar>(R.id.beta)
        val images = TestImages.read(phone.activity.assets, Collection.DIGITS)
        phone.chooseExample(images.examples.lastIndex)
        val names = Collection.DIGITS.bundles(phone.activity.assets)
        assertEquals(names.size - 1, bar.max)
        for ((position, name) in names.withIndex()) {
            phone.moveBeta(position)
            val python = PythonAnswers.read(phone.activity.assets, Collection.DIGITS, name)!!
            val exit = python.exits[images.examples.last()]
            assertEquals("Exit $exit of 12", phone.text(R.id.stopped))
            assertTrue(phone.text(R.id.beta_value).contains("β = "))
        }
    }

    @Test fun runAllAgreesWithPython() = Phone().use { phone ->
        phone.settle()
        // Results wait for the main thread: it is not idle between the touch and the look.
        phone.view<View>(R.id.run_all).performClick()
        assertFalse(phone.view<View>(R.id.run_all).isEnabled)
        phone.settle()
        assertTrue(phone.isShown(R.id.evaluation))
        val count = TestImages.read(phone.activity.assets, Collection.DIGITS).size
        assertEquals("Exit and label as Python's: $count of $count", phone.text(R.id.agreement))
        assertTrue(phone.view<View>(R.id.run_all).isEnabled)
        assertEquals(5, phone.view<ViewGroup>(R.id.table).childCount)
        // For another beta the numbers would be others.
        if (phone.view<SeekBar>(R.id.beta).max > 0) {
            phone.moveBeta(0)
            assertFalse(phone.isShown(R.id.evaluation))
        }
    }

    @Test fun turningTheDeviceKeepsWhatIsShown() = Phone().use { phone ->
        phone.settle()
        phone.draw(0.3f to 0.3f, 0.6f to 0.3f, 0.45f to 0.7f)
        val before = phone.text(R.id.stopped) to phone.text(R.id.answer)
        val strokes = phone.view<DrawView>(R.id.canvas).strokes()
        RuntimeEnvironment.setQualifiers("+land")
        phone.recreate()
        phone.settle()
        assertEquals(before, phone.text(R.id.stopped) to phone.text(R.id.answer))
        assertTrue(strokes.contentEquals(phone.view<DrawView>(R.id.canvas).strokes()))
        phone.chooseExample(1)
        val example = phone.text(R.id.stopped)
        RuntimeEnvironment.setQualifiers("+port")
        phone.recreate()
        phone.settle()
        assertEquals(example, phone.text(R.id.stopped))
        assertFalse(phone.view<DrawView>(R.id.canvas).isEmpty)
    }

    @Test fun turningTheDeviceWhileRunningKeepsTheResult() = Phone().use { phone ->
        phone.settle()
        phone.click(R.id.run_all)
        phone.recreate()
        phone.settle()
        assertTrue(phone.isShown(R.id.evaluation))
    }

    @Test fun aCorruptBundleIsAMessage() {
        val bundle = copyOfABundle()
        val segment = File(bundle, "segment_03.tflite")
        segment.writeBytes(segment.readBytes().also { it[1000] = (it[1000] + 1).toByte() })
        Phone(Intent().putExtra("directory", bundle.path)).use { phone ->
            phone.settle()
            assertTrue(phone.isShown(R.id.message))
            val message = phone.text(R.id.message)
            assertTrue(message, message.startsWith("$segment: found sha256 "))
            assertFalse(phone.view<View>(R.id.run_all).isEnabled)
            assertFalse(phone.isShown(R.id.picture_card))
            phone.screenshot("corrupt-bundle")
        }
    }

    @Test fun aBundleInADirectoryRuns() {
        val bundle = copyOfABundle()
        Phone(Intent().putExtra("directory", bundle.path)).use { phone ->
            phone.settle()
            phone.chooseExample(0)
            assertFalse(phone.view<View>(R.id.beta).isEnabled)
        }
    }

    @Test fun oneBundleForEveryBetaStopsWherePythonSays() {
        val bundle = File("../engine/src/jvmTest/resources/bundles/beta-range")
        val answers = JSONObject(File(bundle, "answers.json").readText())
        val pixels = File(bundle, "images.bin").readBytes()
        Phone(Intent().putExtra("directory", bundle.path)).use { phone ->
            phone.settle()
            val state = phone.activity.session.state
            val size = state.models!!.manifest.input.numValues
            assertEquals(20, phone.view<SeekBar>(R.id.beta).max)
            val betas = answers.getJSONArray("betas")
            for (k in 0 until betas.length()) {
                val beta = betas.getDouble(k)
                phone.moveBeta(state.settings.indexOfFirst { abs(it.beta / beta - 1) < 1e-9 })
                for (i in 0 until 10) {
                    val image = ByteBuffer.wrap(pixels, i * size, size)
                    phone.activity.session.show { Picture.Pixels(image) }
                    phone.settle()
                    val exit = answers.getJSONArray("exits").getJSONArray(k).getInt(i)
                    val label = answers.getJSONArray("labels").getJSONArray(k).getInt(i)
                    assertEquals("Exit $exit of 3", phone.text(R.id.stopped))
                    assertEquals("$label", phone.text(R.id.answer))
                }
            }
        }
    }

    @Test fun extrasRunTheBenchmarkWithoutATouch() {
        val intent = Intent().putExtra("benchmark", true).putExtra("repetitions", 20)
        Phone(intent).use { phone ->
            phone.settle()
            assertTrue(phone.isShown(R.id.benchmark_text))
            val file = File(phone.activity.filesDir, "benchmark.json")
            val report = JSONObject(file.readText())
            assertEquals("epnet-device-report", report.getString("format"))
            assertEquals(12, report.getJSONArray("exits").length())
            assertEquals(20, report.getInt("repetitions"))
            assertEquals("2.16.1", report.getString("tflite"))
            val exits = report.getJSONArray("exits")
            val costs = List(12) {
                exits.getJSONObject(it).getJSONObject("reaching").getDouble("mean_ms")
            }
            assertEquals(costs.sorted(), costs)
            val examples = report.getJSONObject("examples")
            for (form in listOf("segments", "one_file")) {
                val median = examples.getJSONObject(form).getDouble("median_ms")
                assertTrue(form, median > 0)
                val shown = "%.3f ms".format(Locale.ROOT, median)
                assertTrue(shown, shown in phone.text(R.id.benchmark_text))
            }
            System.getProperty("epnet.screenshots")?.let {
                File(it).mkdirs()
                file.copyTo(File(it, "../benchmark.json"), overwrite = true)
            }
            phone.screenshot("benchmark", whole = true)
            phone.click(R.id.share)
            val chooser = shadowOf(phone.activity).nextStartedActivity
            val sent = chooser.getParcelableExtra(Intent.EXTRA_INTENT, Intent::class.java)!!
            assertEquals(Intent.ACTION_SEND, sent.action)
            assertEquals(report.toString(2), sent.getStringExtra(Intent.EXTRA_TEXT))
        }
    }

    @Test fun everythingThatCanBeTouchedSaysWhatItIs() = Phone().use { phone ->
        phone.settle()
        fun check(view: View) {
            if (view is ViewGroup) (0 until view.childCount).forEach { check(view.getChildAt(it)) }
            val labelled = view is DrawView || view is WayView || view is HistogramView ||
                view is ImageButton || view is SeekBar
            if (labelled && view.visibility == View.VISIBLE && view !is HistogramView) {
                assertFalse("$view", view.contentDescription.isNullOrEmpty())
            }
        }
        check(phone.activity.window.decorView)
    }

    @Test fun theActivityTurnsWithTheDevice() = Phone().use { phone ->
        val info = phone.activity.packageManager.getActivityInfo(phone.activity.componentName, 0)
        assertEquals(ActivityInfo.SCREEN_ORIENTATION_UNSPECIFIED, info.screenOrientation)
    }

    private fun copyOfABundle(): File {
        val bundle = folder.newFolder("my-bundle")
        val bundles = File(System.getProperty("epnet.assets")!!, "bundles")
        bundles.listFiles()!!.first { it.isDirectory }.copyRecursively(bundle, overwrite = true)
        return bundle
    }
}
