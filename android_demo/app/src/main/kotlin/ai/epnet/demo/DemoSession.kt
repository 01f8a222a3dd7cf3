package ai.epnet.demo

import ai.epnet.engine.Answer
import ai.epnet.engine.EarlyExitException
import ai.epnet.engine.Options
import ai.epnet.engine.readPicture
import android.content.Context
import android.graphics.Bitmap
import android.util.Log
import java.io.File
import java.io.IOException
import java.io.InputStream
import org.json.JSONObject

/** What the session is busy with for longer than one picture. */
enum class Job { LOADING, RUN_ALL, BENCHMARK }

/** The answers for the picture that is shown. */
class Shown(val early: Answer, val earlyMs: Double, val whole: Answer?, val wholeMs: Double)

/** A benchmark that is done. */
class Report(val result: BenchmarkResult, val json: JSONObject)

/**
 * What the screen shows; everything else is in the views.
 *
 * @property settings positions of the control for beta.
 * @property message what went wrong, or null.
 * @property photo the photo that is classified, or null.
 */
data class State(
    val job: Job? = Job.LOADING,
    val message: String? = null,
    val models: Models? = null,
    val images: TestImages? = null,
    val setting: Int = 0,
    val photo: Bitmap? = null,
    val shown: Shown? = null,
    val evaluation: Evaluation? = null,
    val report: Report? = null,
) {
    val settings: List<Setting> get() = models?.settings.orEmpty()
}

/**
 * Models, test images and results, apart from the Activity, which comes and goes with every
 * turn of the device. All methods are for the main thread; inference is on [Worker]'s.
 *
 * @property collection which of the app's own models.
 * @param directory a directory with one bundle, in place of the app's own.
 */
class DemoSession(
    context: Context,
    val collection: Collection,
    private val directory: File?,
) {
    private val context = context.applicationContext
    private val worker = Worker()
    private var picture: (() -> Picture)? = null
    private var classifying = false
    private var reading = false
    private var changed = false
    private var closed = false

    /** What the worker has opened, for the worker to close. */
    private var opened: Models? = null

    /** The wanted position of the control for beta, which may come before the models. */
    private var chosen = -1

    /** Whether nothing runs, and nothing waits to be run. */
    val isIdle: Boolean get() = state.job == null && !classifying && !reading

    /** Called after every change of [state]. */
    var listener: (State) -> Unit = {}

    var state = State()
        private set(value) {
            field = value
            listener(value)
        }

    init {
        worker.run({
            val models = Models.open(this.context.assets, collection, directory)
                .also { opened = it }
            models to TestImages.read(this.context.assets, collection).takeIf { it.fits(models) }
        }) { result ->
            result.onSuccess { (models, images) ->
                val middle = models.settings.size / 2
                val setting = if (chosen in models.settings.indices) chosen else middle
                state = state.copy(job = null, models = models, images = images, setting = setting)
                refresh()
            }.onFailure {
                state = state.copy(job = null)
                fail(it)
            }
        }
    }

    /** Shows what [picture] gives, called on the main thread, is classified as; null clears. */
    fun show(picture: (() -> Picture)?) = show(picture, photo = null)

    /** Shows what the photo [name], which [read] opens elsewhere, is classified as. */
    fun open(name: String, read: () -> InputStream?) {
        reading = true
        worker.run({ readPhoto(name, read) }) { result ->
            reading = false
            result.onSuccess { show({ Picture.Image(it) }, it) }.onFailure(::fail)
        }
    }

    /** Moves the control for beta; results for another beta are taken away. */
    fun choose(setting: Int) {
        chosen = setting
        if (setting == state.setting || setting !in state.settings.indices) return
        state = state.copy(setting = setting, evaluation = null)
        refresh()
    }

    /** Runs all test images. */
    fun runAll() = start(Job.RUN_ALL, ::evaluation) { state = state.copy(evaluation = it) }

    /** Measures the current bundle, keeps the report in a file and hands it to [done]. */
    fun benchmark(plan: BenchmarkPlan, done: (Report) -> Unit = {}) =
        start(Job.BENCHMARK, { _, setting, images -> report(setting, images, plan) }) {
            state = state.copy(report = it)
            done(it)
        }

    /** Gives everything back, after what is still running. */
    fun close() {
        closed = true
        listener = {}
        worker.close { opened?.close() }
    }

    private fun show(picture: (() -> Picture)?, photo: Bitmap?) {
        this.picture = picture
        val shown = state.shown.takeIf { picture != null }
        val message = state.message.takeIf { state.models == null }
        state = state.copy(photo = photo, shown = shown, message = message)
        refresh()
    }

    private fun readPhoto(name: String, read: () -> InputStream?): Bitmap {
        val content = try {
            read()?.use { it.readBytes() }
        } catch (e: IOException) {
            throw EarlyExitException("$name: found ${e.message}, expected a photo.", e)
        } catch (e: SecurityException) {
            throw EarlyExitException("$name: found ${e.message}, expected a photo.", e)
        } ?: throw EarlyExitException("$name: found nothing, expected a photo.")
        return readPicture(content, name)
    }

    /** Classifies the current picture, unless that is going on: then again afterwards. */
    private fun refresh() {
        val models = state.models ?: return
        val picture = picture ?: return
        if (closed) return
        if (classifying) {
            changed = true
            return
        }
        classifying = true
        changed = false
        val setting = state.settings[state.setting]
        val current = picture()
        worker.run({ answer(models, current, setting) }) { result ->
            classifying = false
            if (changed) refresh()
            result.onSuccess { if (this.picture != null) state = state.copy(shown = it) }
                .onFailure(::fail)
        }
    }

    private fun <T> start(
        job: Job,
        task: (Models, Setting, TestImages) -> T,
        done: (T) -> Unit,
    ) {
        val models = state.models ?: return
        val images = state.images ?: return
        if (closed || state.job != null) return
        state = state.copy(job = job, message = null)
        val setting = state.settings[state.setting]
        worker.run({ task(models, setting, images) }) { result ->
            state = state.copy(job = null)
            result.onSuccess(done).onFailure(::fail)
        }
    }

    private fun answer(models: Models, picture: Picture, setting: Setting): Shown {
        val early = List(TIMED) { models.classify(picture, setting) }
        val whole = List(TIMED) { models.classifyWhole(picture) }.filterNotNull()
        return Shown(
            early.last(), Timings(early.map { it.nanos }).medianMs, whole.lastOrNull(),
            if (whole.isEmpty()) 0.0 else Timings(whole.map { it.nanos }).medianMs,
        )
    }

    private fun evaluation(models: Models, setting: Setting, images: TestImages): Evaluation {
        val bundle = models.bundles[setting.bundle].name
        val python = PythonAnswers.read(context.assets, collection, bundle)
            .takeIf { directory == null }
        return evaluate(models, setting, images, python)
    }

    /** Opens the models anew, with the plan's threads, and measures. */
    private fun report(setting: Setting, images: TestImages, plan: BenchmarkPlan): Report =
        Models.open(context.assets, collection, directory, Options(plan.threads)).use { models ->
            val pictures = images.examples.map { Picture.Pixels(images.pixels(it)) }
            val bundle = models.bundles[setting.bundle]
            val result = bundle.openOneFile().use { oneFile ->
                measure(
                    models, setting, oneFile, pictures, plan,
                    evaluation = { evaluation(models, setting, images) },
                    thermalState = { thermalState(context) },
                )
            }
            val json = deviceReport(bundle, setting, result)
            File(context.filesDir, REPORT_FILE).writeText(json.toString(2))
            Report(result, json)
        }

    private fun fail(error: Throwable) {
        if (error !is EarlyExitException) throw error
        Log.e(TAG, error.message, error)
        state = state.copy(message = error.message, shown = null)
    }

    private fun TestImages.fits(models: Models): Boolean =
        listOf(height, width, channels) == with(models.manifest.input) {
            listOf(height, width, channels)
        }

    companion object {
        const val TAG = "EPNet"

        /** The last benchmark, among the app's own files. */
        const val REPORT_FILE = "benchmark.json"

        /** How often a picture is run, to show the median. */
        private const val TIMED = 5
    }
}
