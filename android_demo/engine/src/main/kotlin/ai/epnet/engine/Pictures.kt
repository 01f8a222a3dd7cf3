package ai.epnet.engine

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Matrix
import android.media.ExifInterface
import java.io.ByteArrayInputStream
import java.io.IOException

/**
 * Decodes a picture file as Python's `read_image` does: the way up that its EXIF orientation
 * says, of an animation the first frame. (Of PNG files, Android knows EXIF from version 11 on.)
 *
 * @param content the whole file.
 * @param name the file's name, for messages.
 */
fun readPicture(content: ByteArray, name: String): Bitmap {
    val stored = BitmapFactory.decodeByteArray(content, 0, content.size)
        ?: throw fault(name, "no picture that Android can read", "an image file")
    val turn = turn(content) ?: return stored
    return Bitmap.createBitmap(stored, 0, 0, stored.width, stored.height, turn, false)
}

/** What turns the stored picture the right way up, or null. */
private fun turn(content: ByteArray): Matrix? {
    val orientation = try {
        ExifInterface(ByteArrayInputStream(content))
            .getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
    } catch (_: IOException) {
        return null // Not a format that carries EXIF.
    }
    // A mirror, left to right, comes after the turn.
    val (degrees, mirrored) = when (orientation) {
        ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> 0f to true
        ExifInterface.ORIENTATION_ROTATE_180 -> 180f to false
        ExifInterface.ORIENTATION_FLIP_VERTICAL -> 180f to true
        ExifInterface.ORIENTATION_TRANSPOSE -> 90f to true
        ExifInterface.ORIENTATION_ROTATE_90 -> 90f to false
        ExifInterface.ORIENTATION_TRANSVERSE -> 270f to true
        ExifInterface.ORIENTATION_ROTATE_270 -> 270f to false
        else -> return null
    }
    return Matrix().apply {
        setRotate(degrees)
        if (mirrored) postScale(-1f, 1f)
    }
}
