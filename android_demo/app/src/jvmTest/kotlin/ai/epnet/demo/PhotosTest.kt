package ai.epnet.demo

import ai.epnet.engine.DirectoryFiles
import ai.epnet.engine.EarlyExitClassifier
import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.view.View
import android.widget.RadioButton
import android.widget.SeekBar
import java.io.File
import java.io.InputStream
import java.util.Locale
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode

/** Photos, chosen as on a phone, in the real Activity and real TFLite. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34], qualifiers = "w411dp-h731dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class PhotosTest {
    private val pictures = File("src/jvmTest/resources/pictures")
    private val bundle = File("../engine/src/jvmTest/resources/bundles/corners")
    private val answers = JSONObject(File(bundle, "answers.json").readText())

    private fun onTheSmallBundle(action: (Phone) -> Unit) =
        Phone(Intent().putExtra("directory", bundle.path)).use { phone ->
            phone.settle()
            action(phone)
        }

    /** Answers the app's question for a photo, as the system's picker does. */
    private fun choose(phone: Phone, name: String, open: () -> InputStream) {
        phone.click(R.id.choose)
        val asked = shadowOf(phone.activity).nextStartedActivityForResult.intent
        assertEquals(Intent.ACTION_GET_CONTENT, asked.action)
        assertEquals("image/*", asked.type)
        val photo = Uri.parse("content://photos/$name")
        shadowOf(phone.activity.contentResolver).registerInputStreamSupplier(photo, open)
        val chosen = Intent().setData(photo)
        shadowOf(phone.activity).receiveResult(asked, Activity.RESULT_OK, chosen)
        phone.settle()
    }

    private fun choose(phone: Phone, file: File) = choose(phone, file.name) { file.inputStream() }

    @Test fun photosStopWherePythonSays() = onTheSmallBundle { phone ->
        val files = answers.keys().asSequence().toList()
        val labels = EarlyExitClassifier.open(DirectoryFiles(bundle)).use { it.manifest.labels }
        // Turned by EXIF, the same stored pixels are another picture.
        assertTrue(files.map { answers.getJSONArray(it).getInt(1) }.distinct().size > 2)
        for (file in files) {
            choose(phone, File(pictures, file))
            val (exit, label) = answers.getJSONArray(file).let { it.getInt(0) to it.getInt(1) }
            assertEquals(file, labels[label], phone.text(R.id.answer))
            assertEquals(file, "Exit $exit of 3", phone.text(R.id.stopped))
        }
    }

    @Test fun policyAndCostsAreShownAsTheBundleHasThem() = onTheSmallBundle { phone ->
        assertTrue(phone.isShown(R.id.choose))
        assertFalse(phone.isShown(R.id.clear))
        // The bundle has one β.
        assertFalse(phone.isShown(R.id.beta))
        assertEquals("β = 10.00 points of accuracy", phone.text(R.id.beta_value))
        assertFalse(phone.isShown(R.id.cost))
        val manifest = phone.activity.session.state.models!!.manifest
        val percent = manifest.confidence!!.joinToString { "%.0f".format(Locale.ROOT, 100 * it) }
        val policy = "An exit answers when it is surer than its threshold: $percent %."
        assertEquals(policy, phone.text(R.id.policy))
        assertEquals("What one ms may cost", phone.text(R.id.beta_title))
        choose(phone, File(pictures, "colours.jpg"))
        val exit = answers.getJSONArray("colours.jpg").getInt(0)
        val cost = "cost %.3f of %.3f ms".format(
            Locale.ROOT, manifest.costOf(exit), manifest.fullCost,
        )
        assertTrue(phone.text(R.id.cost), phone.text(R.id.cost).startsWith(cost))
        assertTrue(phone.isShown(R.id.macs))
        phone.screenshot("photo-corners", whole = true)
    }

    @Test fun thereIsNoDrawingOnPhotos() = onTheSmallBundle { phone ->
        phone.draw(0.5f to 0.3f, 0.5f to 0.7f)
        assertTrue(phone.view<DrawView>(R.id.canvas).isEmpty)
        assertFalse(phone.isShown(R.id.stopped))
    }

    @Test fun turningTheDeviceKeepsThePhoto() = onTheSmallBundle { phone ->
        choose(phone, File(pictures, "exif-6.jpg"))
        val before = phone.text(R.id.stopped) to phone.text(R.id.answer)
        RuntimeEnvironment.setQualifiers("+land")
        phone.recreate()
        phone.settle()
        assertEquals(before, phone.text(R.id.stopped) to phone.text(R.id.answer))
        assertFalse(phone.view<DrawView>(R.id.canvas).isEmpty)
    }

    @Test fun whatIsNoPhotoIsAMessageUntilTheNext() = onTheSmallBundle { phone ->
        val place = "content://photos/x"
        choose(phone, "x") { "no picture".byteInputStream() }
        val unreadable = "$place: found no picture that Android can read, expected an image file."
        assertEquals(unreadable, phone.text(R.id.message))
        choose(phone, "x") { throw SecurityException("no permission") }
        assertEquals("$place: found no permission, expected a photo.", phone.text(R.id.message))
        choose(phone, File(pictures, "colours.png"))
        assertFalse(phone.isShown(R.id.message))
        assertTrue(phone.isShown(R.id.stopped))
    }

    @Test fun theOtherCollectionIsATouchAway() {
        Phone().use { phone ->
            phone.settle()
            phone.draw(0.5f to 0.3f, 0.5f to 0.7f)
            phone.view<RadioButton>(R.id.photos).performClick()
            phone.settle()
            assertTrue(phone.view<DrawView>(R.id.canvas).isEmpty)
            assertFalse(phone.isShown(R.id.stopped))
            stopsWherePythonSays(phone, Collection.PHOTOS)
            phone.click(R.id.run_all)
            phone.settle()
            phone.screenshot("photos", whole = true)
            phone.recreate()
            phone.settle()
            assertTrue(phone.view<RadioButton>(R.id.photos).isChecked)
            assertTrue(phone.view<View>(R.id.choose).visibility == View.VISIBLE)
            phone.view<RadioButton>(R.id.digits).performClick()
            phone.settle()
            stopsWherePythonSays(phone, Collection.DIGITS)
        }
    }

    private fun stopsWherePythonSays(phone: Phone, collection: Collection) {
        val assets = phone.activity.assets
        val images = TestImages.read(assets, collection)
        val name = collection.bundles(assets)[phone.view<SeekBar>(R.id.beta).progress]
        val python = PythonAnswers.read(assets, collection, name)!!
        val labels = phone.activity.session.state.models!!.manifest.labels
        for ((place, index) in images.examples.withIndex()) {
            phone.chooseExample(place)
            assertEquals(labels[python.labels[index]], phone.text(R.id.answer))
            val stopped = phone.text(R.id.stopped)
            assertTrue(stopped, stopped.startsWith("Exit ${python.exits[index]} of "))
        }
    }
}
