package ai.epnet.demo

import ai.epnet.engine.Answer
import ai.epnet.engine.AssetFiles
import ai.epnet.engine.BundleFiles
import ai.epnet.engine.DirectoryFiles
import ai.epnet.engine.EarlyExitClassifier
import ai.epnet.engine.EarlyExitException
import ai.epnet.engine.Manifest
import ai.epnet.engine.OneFileClassifier
import ai.epnet.engine.Options
import android.content.res.AssetManager
import android.graphics.Bitmap
import java.io.File
import java.io.FileNotFoundException
import java.nio.ByteBuffer
import kotlin.math.pow

/**
 * What the app is packaged with, each in a folder of the assets.
 *
 * @property folder where its `bundles`, `test_images`, `answers` and `networks` are.
 */
enum class Collection(val folder: String) {
    DIGITS(""),
    PHOTOS("photos/");

    /** Names of the bundles; none where the app is packaged without this collection. */
    fun bundles(assets: AssetManager): List<String> =
        try {
            assets.open("${folder}bundles/names.txt").use { it.readBytes().decodeToString() }
                .lines().filter(String::isNotEmpty)
        } catch (_: FileNotFoundException) {
            emptyList()
        }
}

/** A picture to classify: the model's own raw pixels, or a picture of any size. */
sealed interface Picture {
    class Pixels(val pixels: ByteBuffer) : Picture

    class Image(val bitmap: Bitmap) : Picture
}

/** One position of the control for beta: a bundle, and the beta that it is given. */
class Setting(val bundle: Int, val beta: Double, val input: Double?)

/** An open bundle, by the name of its folder. */
class OpenBundle private constructor(
    val name: String,
    val classifier: EarlyExitClassifier,
    private val files: BundleFiles,
    private val options: Options,
) {
    val manifest: Manifest get() = classifier.manifest

    constructor(name: String, files: BundleFiles, options: Options) :
        this(name, EarlyExitClassifier.open(files, options), files, options)

    /** Opens the bundle's model in one file, to be closed apart; null where there is none. */
    fun openOneFile(): OneFileClassifier? =
        manifest.model?.let { OneFileClassifier.open(files, options) }
}

/**
 * The bundles of a collection, or the one of a directory, and the whole network without early
 * exits where it is packaged and takes the same images. To be used on one thread.
 */
class Models private constructor(
    val bundles: List<OpenBundle>,
    val network: EarlyExitClassifier?,
) : AutoCloseable {

    /** Positions of the control for beta, in the bundles' order. */
    val settings: List<Setting> = bundles.flatMapIndexed { index, bundle ->
        val range = bundle.manifest.betaRange
        val beta = bundle.manifest.beta ?: 0.0
        if (range == null) listOf(Setting(index, beta, null)) else settings(index, range)
    }

    /** The labels, image shape and so on, which all bundles share. */
    val manifest: Manifest get() = bundles.first().manifest

    /** Whether the models are for photos rather than for drawings, which are grayscale. */
    val takePhotos: Boolean get() = manifest.input.channels == 3

    /** Classifies with the bundle and beta of [setting]. */
    fun classify(picture: Picture, setting: Setting): Answer {
        val classifier = bundles[setting.bundle].classifier
        return when (picture) {
            is Picture.Pixels -> classifier.classify(picture.pixels, setting.input)
            is Picture.Image -> classifier.classify(picture.bitmap, setting.input)
        }
    }

    /** Classifies with the whole network. */
    fun classifyWhole(picture: Picture): Answer? = when (picture) {
        is Picture.Pixels -> network?.classify(picture.pixels)
        is Picture.Image -> network?.classify(picture.bitmap)
    }

    override fun close() {
        bundles.forEach { it.classifier.close() }
        network?.close()
    }

    companion object {
        private const val STEPS = 20

        /**
         * Opens the bundle in [directory] or, without one, those of [collection].
         *
         * @throws EarlyExitException where one of them cannot be used.
         */
        fun open(
            assets: AssetManager,
            collection: Collection,
            directory: File?,
            options: Options = Options(),
        ): Models {
            val opened = ArrayList<OpenBundle>()
            try {
                if (directory != null) {
                    opened += OpenBundle(directory.name, DirectoryFiles(directory), options)
                } else {
                    for (name in collection.bundles(assets)) {
                        val files = AssetFiles(assets, "${collection.folder}bundles/$name")
                        opened += OpenBundle(name, files, options)
                    }
                }
                val files = AssetFiles(assets, "${collection.folder}networks/network")
                return Models(opened, openNetwork(files, opened.first().manifest, options))
            } catch (e: EarlyExitException) {
                opened.forEach { it.classifier.close() }
                throw e
            }
        }

        private fun openNetwork(
            files: BundleFiles,
            manifest: Manifest,
            options: Options,
        ): EarlyExitClassifier? {
            if (files.read("epnet.json") == null) return null
            val network = EarlyExitClassifier.open(files, options)
            val fits = network.manifest.input.shape == manifest.input.shape &&
                network.manifest.labels == manifest.labels
            return network.takeIf { fits } ?: null.also { network.close() }
        }

        /** Even steps on a logarithmic scale. */
        private fun settings(bundle: Int, range: ClosedRange<Double>): List<Setting> {
            val ratio = range.endInclusive / range.start
            return List(STEPS + 1) { step ->
                val beta = range.start * ratio.pow(step.toDouble() / STEPS)
                val inside = beta.coerceIn(range.start, range.endInclusive)
                Setting(bundle, inside, inside)
            }
        }
    }
}
