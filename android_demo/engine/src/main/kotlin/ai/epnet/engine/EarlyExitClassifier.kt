package ai.epnet.engine

import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter

/**
 * How a bundle is run.
 *
 * @property threads threads of each segment's interpreter.
 * @property xnnpack whether XNNPACK runs the segments; without it int8 is slower and may
 *     differ in the last step from what Python computes.
 * @property onSegmentOpened called whenever a segment gets its interpreter.
 */
class Options(
    val threads: Int = 1,
    val xnnpack: Boolean = true,
    val onSegmentOpened: (SegmentSpec) -> Unit = {},
) {
    internal fun toInterpreterOptions(): Interpreter.Options {
        if (threads < 1) throw fault("threads", threads, "at least 1")
        return Interpreter.Options().setNumThreads(threads).setUseXNNPACK(xnnpack)
    }
}

/**
 * Classifies images with a bundle of segments, one after another, and stops where the
 * bundle's policy says so.
 *
 * ```
 * EarlyExitClassifier.open(AssetFiles(context.assets, "bundles/maxmin")).use { classifier ->
 *     val answer = classifier.classify(bitmap)
 *     println("${classifier.manifest.labels[answer.label]} at exit ${answer.exit}")
 * }
 * ```
 *
 * Segments are memory-mapped; a segment gets its interpreter when the first image reaches it.
 * No buffer is made for an image after the first. Not thread-safe: use it, and close it, from
 * one thread at a time. Every fault is an [EarlyExitException].
 */
class EarlyExitClassifier private constructor(
    /** What the bundle says about itself. */
    val manifest: Manifest,
    private val files: BundleFiles,
    private val models: List<ByteBuffer>,
    private val options: Options,
) : AutoCloseable {
    private val image = ImageBuffer(manifest.input)
    private val beta = ByteBuffer.allocateDirect(Float.SIZE_BYTES).order(ByteOrder.nativeOrder())
    private val live = mutableMapOf(
        manifest.input.name to with(manifest.input) {
            val shape = listOf(1, height, width, channels)
            LiveTensor(image.tensor, DataType.valueOf(type.name), shape, MANIFEST_FILE)
        },
        BETA_NAME to LiveTensor(beta, DataType.FLOAT32, listOf(1, 1), MANIFEST_FILE),
    )
    private val interpreterOptions = options.toInterpreterOptions()
    private val segments = ArrayList<Segment>()
    private var converter: PixelConverter? = null
    private val bitmapBytes = ByteBuffer.allocate(manifest.input.numValues)
    private var closed = false

    /**
     * Classifies one image.
     *
     * @param pixels raw pixel values 0-255, one byte each, rows from the top, channels last.
     * @param beta cost sensitivity per unit of cost, for a bundle with a `betaRange` alone.
     * @param maxExit the exit that answers at the latest, to keep a deadline.
     * @param minExit the exit that answers at the earliest; the last one, to time them all.
     */
    fun classify(
        pixels: ByteBuffer,
        beta: Double? = null,
        maxExit: Int = manifest.lastExit,
        minExit: Int = manifest.firstExit,
    ): Answer {
        checkUsable(beta, minExit, maxExit)
        image.set(pixels)
        beta?.let { this.beta.putFloat(0, it.toFloat()) }
        return run(minExit, maxExit)
    }

    /**
     * Classifies a picture of any size: see [convertPixels] and the other `classify`, and
     * [readPicture] for files.
     */
    fun classify(
        bitmap: Bitmap,
        beta: Double? = null,
        maxExit: Int = manifest.lastExit,
    ): Answer {
        checkUsable(beta, manifest.firstExit, maxExit)
        val (width, height) = bitmap.width to bitmap.height
        if (converter?.width != width || converter?.height != height) {
            converter = PixelConverter(width, height, manifest.input)
        }
        bitmapBytes.moveTo(0)
        converter!!.convert(bitmapBytes) { x, y, row ->
            bitmap.getPixels(row, 0, row.size, x, y, row.size, 1)
        }
        bitmapBytes.moveTo(0)
        return classify(bitmapBytes, beta, maxExit)
    }

    /** Gives back the interpreters' memory. The classifier cannot be used afterwards. */
    override fun close() {
        closed = true
        live.clear()
        segments.forEach(Segment::close)
        segments.clear()
    }

    private fun run(minExit: Int, maxExit: Int): Answer {
        val passed = ArrayList<ExitAnswer>(manifest.numExits)
        for (index in manifest.segments.indices) {
            val exit = segment(index).run()
            passed += exit
            val stops = exit.stopLogit > manifest.threshold
            if (stops && exit.exit >= minExit) return Answer(passed, forced = false)
            val next = manifest.segments.getOrNull(index + 1) ?: break
            if (next.exit > maxExit) return Answer(passed, forced = true)
        }
        return Answer(passed, forced = false)
    }

    private fun segment(index: Int): Segment {
        if (index == segments.size) segments += openSegment(index)
        return segments[index]
    }

    private fun openSegment(index: Int): Segment {
        val spec = manifest.segments[index]
        options.onSegmentOpened(spec)
        return Segment(
            spec, files.describe(spec.file), models[index], interpreterOptions, live,
            manifest.labels.size, hasStop = index < manifest.segments.lastIndex,
        )
    }

    private fun checkUsable(beta: Double?, minExit: Int, maxExit: Int) {
        if (closed) throw fault("classifier", "a closed one", "an open one")
        val exits = manifest.firstExit..manifest.lastExit
        if (maxExit !in exits) throw fault("maxExit", maxExit, "one of $exits")
        if (minExit !in manifest.firstExit..maxExit) {
            throw fault("minExit", minExit, "one of ${manifest.firstExit..maxExit}")
        }
        checkBeta(manifest, beta)
    }

    companion object {
        /** Opens and checks the bundle in [files]: manifest, segments, their sha256. */
        fun open(files: BundleFiles, options: Options = Options()): EarlyExitClassifier {
            val manifest = openManifest(files)
            if (manifest.segments.isEmpty()) throw noSegments(files.describe(MANIFEST_FILE))
            val models = manifest.segments.map { mapModel(files, it) }
            return EarlyExitClassifier(manifest, files, models, options)
        }
    }
}

/** A beta is given where the controllers take one, and is among those they know. */
internal fun checkBeta(manifest: Manifest, beta: Double?) {
    val range = manifest.betaRange
    if (range == null && beta != null) {
        throw fault("beta", beta, "none: the bundle is for beta ${manifest.beta} alone")
    }
    if (range != null && (beta == null || beta !in range)) {
        throw fault("beta", beta ?: "none", "${range.start} to ${range.endInclusive}")
    }
}

/** Reads and checks the manifest of the bundle in [files]. */
internal fun openManifest(files: BundleFiles): Manifest {
    val where = files.describe(MANIFEST_FILE)
    val text = files.read(MANIFEST_FILE) ?: throw fault(where, "no file", "a manifest")
    checkChecksum(files, text)
    return readManifest(text.decodeToString(), where)
}

/** Maps a .tflite file and checks that it is the one that the manifest speaks of. */
internal fun mapModel(files: BundleFiles, spec: FileSpec): ByteBuffer {
    val where = files.describe(spec.file)
    val model = files.map(spec.file) ?: throw fault(where, "no file", "${spec.bytes} bytes")
    if (model.remaining().toLong() != spec.bytes) {
        throw fault(where, "${model.remaining()} bytes", "${spec.bytes}")
    }
    val found = sha256(model.duplicate())
    if (found != spec.sha256) throw fault(where, "sha256 $found", spec.sha256)
    return model.order(ByteOrder.nativeOrder())
}

/** A bundle may bring `epnet.json.sha256`, as `sha256sum` writes it; then it must be right. */
private fun checkChecksum(files: BundleFiles, manifest: ByteArray) {
    val name = "$MANIFEST_FILE.sha256"
    val line = files.read(name)?.decodeToString() ?: return
    val found = sha256(ByteBuffer.wrap(manifest))
    if (line != "$found  $MANIFEST_FILE\n") {
        throw fault(files.describe(MANIFEST_FILE), "sha256 $found", "\"${line.trim()}\" of $name")
    }
}

private fun sha256(data: ByteBuffer): String {
    val digest = MessageDigest.getInstance("SHA-256")
    digest.update(data)
    return digest.digest().joinToString("") { "%02x".format(it) }
}
