package ai.epnet.demo

import ai.epnet.engine.window
import android.app.Activity
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Rect
import android.os.Bundle
import android.util.Log
import android.view.View
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.RadioGroup
import android.widget.SeekBar
import java.io.File

/**
 * The only screen. It shows the [State] of a [DemoSession], which outlives it when the
 * device is turned, and hands on what the user does.
 *
 * Without touching the screen:
 * `adb shell am start -n ai.epnet.demo/.MainActivity --ez benchmark true` with the options
 * `--es bundle NAME`, `--ei repetitions N`, `--ei threads N`; `--es directory PATH` opens a
 * bundle in a directory that the app may read.
 */
class MainActivity : Activity() {
    internal lateinit var session: DemoSession
        private set
    private lateinit var screen: Screen
    private lateinit var canvas: DrawView
    private val beta by lazy { findViewById<SeekBar>(R.id.beta) }
    private val examples by lazy { findViewById<LinearLayout>(R.id.examples) }

    /** Index among the test images of the example that is shown, or -1 for another picture. */
    private var example = -1

    /** An intent whose extras wait until the models are open. */
    private var pendingIntent: Intent? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_main)
        screen = Screen(this)
        canvas = findViewById(R.id.canvas)
        val kept = lastNonConfigurationInstance as DemoSession?
        val collection = savedInstanceState?.getString(COLLECTION) ?: Collection.DIGITS.name
        session = kept ?: newSession(Collection.valueOf(collection))
        listen()
        savedInstanceState?.let(::restore)
        session.listener = ::render
        render(session.state)
        if (kept == null && savedInstanceState == null) pendingIntent = intent
        runPending(session.state)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        pendingIntent = intent
        runPending(session.state)
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putFloatArray(STROKES, canvas.strokes())
        outState.putInt(EXAMPLE, example)
        outState.putInt(SETTING, session.state.setting)
        outState.putString(COLLECTION, session.collection.name)
    }

    @Deprecated("Still what hands an object over without a library.")
    override fun onRetainNonConfigurationInstance(): Any = session

    override fun onDestroy() {
        session.listener = {}
        if (!isChangingConfigurations) session.close()
        super.onDestroy()
    }

    @Deprecated("Still what gives an answer back without a library.")
    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        super.onActivityResult(requestCode, resultCode, data)
        val photo = data?.data
        if (requestCode != CHOOSE || resultCode != RESULT_OK || photo == null) return
        example = -1
        session.open(photo.toString()) { contentResolver.openInputStream(photo) }
    }

    private fun newSession(collection: Collection) =
        DemoSession(this, collection, intent.getStringExtra("directory")?.let(::File))

    /** Closes the one collection and opens another. */
    private fun change(collection: Collection) {
        if (collection == session.collection) return
        session.close()
        session = newSession(collection)
        example = -1
        canvas.setStrokes(FloatArray(0))
        examples.removeAllViews()
        session.listener = ::render
        render(session.state)
    }

    /** The system's own way to choose, which needs no permission. */
    private fun choose() {
        val choose = Intent(Intent.ACTION_GET_CONTENT).setType("image/*")
            .addCategory(Intent.CATEGORY_OPENABLE)
        startActivityForResult(choose, CHOOSE)
    }

    private fun listen() {
        canvas.onDrawn = {
            example = -1
            session.show { Picture.Image(canvas.render()) }
        }
        listenToCollections()
        findViewById<Button>(R.id.choose).setOnClickListener { choose() }
        findViewById<Button>(R.id.clear).setOnClickListener { clear() }
        findViewById<Button>(R.id.run_all).setOnClickListener { session.runAll() }
        findViewById<Button>(R.id.benchmark).setOnClickListener {
            session.benchmark(BenchmarkPlan())
        }
        findViewById<Button>(R.id.share).setOnClickListener { share() }
        beta.setOnSeekBarChangeListener(object : SeekBar.OnSeekBarChangeListener {
            override fun onProgressChanged(bar: SeekBar, progress: Int, fromUser: Boolean) {
                if (fromUser) session.choose(progress)
            }

            override fun onStartTrackingTouch(bar: SeekBar) = Unit

            override fun onStopTrackingTouch(bar: SeekBar) = Unit
        })
    }

    /** With a choice where the app has more than one. */
    private fun listenToCollections() {
        val group = findViewById<RadioGroup>(R.id.collections)
        val packaged = Collection.entries.filter { it.bundles(assets).isNotEmpty() }
        if (packaged.size < 2 || intent.hasExtra("directory")) {
            group.visibility = View.GONE
            return
        }
        group.check(if (session.collection == Collection.PHOTOS) R.id.photos else R.id.digits)
        group.setOnCheckedChangeListener { _, chosen ->
            change(if (chosen == R.id.photos) Collection.PHOTOS else Collection.DIGITS)
        }
    }

    private fun restore(saved: Bundle) {
        example = saved.getInt(EXAMPLE)
        session.choose(saved.getInt(SETTING))
        val strokes = saved.getFloatArray(STROKES) ?: return
        if (strokes.isEmpty()) return
        canvas.setStrokes(strokes)
        session.show { Picture.Image(canvas.render()) }
    }

    private fun clear() {
        example = -1
        canvas.setStrokes(FloatArray(0))
        session.show(null)
    }

    private fun showExample(images: TestImages, index: Int) {
        example = index
        canvas.show(images.bitmap(index))
        session.show { Picture.Pixels(images.pixels(index)) }
    }

    /** Shows of a photo what the model sees of it. */
    private fun showPhoto(state: State, photo: Bitmap) {
        val part = state.models?.manifest?.input?.window(photo.width, photo.height) ?: return
        val (left, top) = part.left to part.top
        canvas.show(photo, Rect(left, top, left + part.width, top + part.height))
    }

    private fun render(state: State) {
        val images = state.images
        screen.render(state, if (example < 0) null else images?.labels?.get(example))
        if (images != null) {
            fillExamples(images)
            if (example >= 0 && canvas.isEmpty) showExample(images, example)
        }
        state.photo?.let { if (!canvas.shows(it)) showPhoto(state, it) }
        runPending(state)
    }

    /** One button for each example, made once the images are there. */
    private fun fillExamples(images: TestImages) {
        val labels = session.state.models?.manifest?.labels.orEmpty()
        if (examples.childCount == 0) {
            images.examples.forEachIndexed { place, index ->
                val button =
                    layoutInflater.inflate(R.layout.example, examples, false) as ImageView
                button.setImageBitmap(images.bitmap(index))
                val label = labels[images.labels[index]]
                button.contentDescription =
                    screen.describeExample(place, images.difficulty(index), label)
                button.setOnClickListener { showExample(images, index) }
                button.tag = index
                examples.addView(button)
            }
        }
        for (k in 0 until examples.childCount) {
            val button = examples.getChildAt(k)
            button.isSelected = button.tag == example
        }
    }

    private fun runPending(state: State) {
        val intent = pendingIntent ?: return
        if (state.job != null || state.models == null) return
        pendingIntent = null
        intent.getStringExtra("bundle")?.let { name ->
            val bundle = state.models.bundles.indexOfFirst { it.name == name }
            session.choose(state.settings.indexOfFirst { it.bundle == bundle })
        }
        if (!intent.getBooleanExtra("benchmark", false)) return
        val plan = BenchmarkPlan(
            threads = intent.getIntExtra("threads", 1),
            repetitions = intent.getIntExtra("repetitions", 200),
        )
        session.benchmark(plan) {
            Log.i(DemoSession.TAG, "Benchmark written: ${DemoSession.REPORT_FILE}")
        }
    }

    private fun share() {
        val report = session.state.report ?: return
        val send = Intent(Intent.ACTION_SEND).setType("text/plain")
            .putExtra(Intent.EXTRA_SUBJECT, getString(R.string.share_title))
            .putExtra(Intent.EXTRA_TEXT, report.json.toString(2))
        startActivity(Intent.createChooser(send, getString(R.string.share_title)))
    }

    private companion object {
        const val STROKES = "strokes"
        const val EXAMPLE = "example"
        const val SETTING = "setting"
        const val COLLECTION = "collection"

        /** Asks the system for a photo. */
        const val CHOOSE = 1
    }
}
