package ai.epnet.engine

import android.content.res.AssetManager
import java.io.File
import java.io.FileInputStream
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** Where a bundle's files are: a directory ([DirectoryFiles]) or assets ([AssetFiles]). */
interface BundleFiles {
    /** Full name of [file], for messages. */
    fun describe(file: String): String

    /** The whole of [file] as bytes, or null where there is no such file. */
    fun read(file: String): ByteArray?

    /** [file] mapped into memory, read-only; null where there is no such file. */
    fun map(file: String): ByteBuffer?
}

/** A bundle in a directory of the file system. */
class DirectoryFiles(private val directory: File) : BundleFiles {
    override fun describe(file: String): String = File(directory, file).path

    override fun read(file: String): ByteArray? = ifExists(file) { it.readBytes() }

    override fun map(file: String): ByteBuffer? = ifExists(file) { mapped ->
        FileInputStream(mapped).use {
            it.channel.map(FileChannel.MapMode.READ_ONLY, 0, mapped.length())
        }
    }

    private fun <T> ifExists(file: String, action: (File) -> T): T? {
        val wanted = File(directory, file)
        return if (wanted.isFile) reading(describe(file)) { action(wanted) } else null
    }
}

/** A bundle in the folder [path] of an app's assets, where `.tflite` is stored uncompressed. */
class AssetFiles(private val assets: AssetManager, private val path: String) : BundleFiles {
    override fun describe(file: String): String = "assets/$path/$file"

    override fun read(file: String): ByteArray? = ifExists(file) { it.readBytes() }

    override fun map(file: String): ByteBuffer? = ifExists(file) {
        val asset = try {
            assets.openFd("$path/$file")
        } catch (e: IOException) {
            val expected = "one stored uncompressed (noCompress += \"tflite\")"
            throw fault(describe(file), "a compressed asset", expected, e)
        }
        asset.use { stored ->
            FileInputStream(stored.fileDescriptor).channel.map(
                FileChannel.MapMode.READ_ONLY, stored.startOffset, stored.declaredLength,
            )
        }
    }

    private fun <T> ifExists(file: String, action: (InputStream) -> T): T? {
        val stream = try {
            assets.open("$path/$file")
        } catch (_: FileNotFoundException) {
            return null
        }
        return reading(describe(file)) { stream.use(action) }
    }
}

/** Runs [action] on the file [name], whose failure to be read is a fault like any other. */
private fun <T> reading(name: String, action: () -> T): T =
    try {
        action()
    } catch (e: IOException) {
        throw fault(name, "a file that cannot be read (${e.message})", "a readable file", e)
    }
