"""Image files, as a model wants them: the one reader of the project."""

import contextlib
import os
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow's mode for as many channels.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Formats whose integers Pillow gives as 32 bits, though they are 16.
_SIXTEEN_BITS = ("PNG", "PPM")


def read_image(
    path: str | os.PathLike | BinaryIO, shape: tuple[int, ...], crop: bool = False
) -> np.ndarray:
    """Reads an image file as a model wants it.

    The picture is what viewers show: turned as its EXIF orientation says, of an
    animation the first frame, of 16 bits the upper eight. Transparent pixels lie over
    white; a model of four channels gets the transparency itself. Colours become
    grayscale by the luma of ITU-R 601-2, and grayscale three equal channels.

    Args:
        path: A file that Pillow can read; or one that is open, with its `name`.
        shape: Height, width, and 1 (grayscale), 3 (RGB) or 4 (RGBA) channels.
        crop: Whether an image of other proportions is first cropped to the largest
            window about its centre that has the model's, as Keras's loaders do with
            `crop_to_aspect_ratio`; otherwise it is stretched.

    Returns:
        uint8 of that shape; an image of another size is brought to it bilinearly, with
        antialiasing.

    Raises:
        ValueError: If it is no image, is truncated or broken, holds more pixels than
            Pillow takes for an attack, or values without a known range, or if a model
            of such channels cannot be given pictures.
        OSError: If there is no such file, or it may not be opened.
        MemoryError: If the picture is too large for what is left.
    """
    height, width, channels = shape
    if channels not in _MODES:
        raise ValueError(
            "Expected a model that takes pictures of 1, 3 or 4 channels. "
            f"Received: {channels} channels, and the file {_name(path)}."
        )
    image = _as_shown(path)
    if channels < 4 and image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert(_MODES[channels])
    if crop:
        image = image.crop(_centre(image.size, width, height))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(shape)


def _centre(
    size: tuple[int, int], width: int, height: int
) -> tuple[int, int, int, int]:
    """The largest window about the centre with the proportions of width and height.

    Rounded as by `keras.preprocessing.image.smart_resize`.

    Returns:
        Its left, upper, right and lower edges.
    """
    full_width, full_height = size
    crop_width = max(1, min(full_width, int(full_height * width / height)))
    crop_height = max(1, min(full_height, int(full_width * height / width)))
    left, top = (full_width - crop_width) // 2, (full_height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _name(path: str | os.PathLike | BinaryIO) -> str:
    if isinstance(path, (str, os.PathLike)):
        return os.fspath(path)
    return getattr(path, "name", None) or str(path)


def _opened(
    path: str | os.PathLike | BinaryIO,
) -> contextlib.AbstractContextManager[BinaryIO]:
    if isinstance(path, (str, os.PathLike)):
        return open(path, "rb")
    return contextlib.nullcontext(path)


def _as_shown(path: str | os.PathLike | BinaryIO) -> Image.Image:
    """The file's first frame, the right way up, in eight bits."""
    # Given the path, Pillow 13 would map plain TIFFs, and mistake height for width in
    # those that are to be turned.
    with _opened(path) as stream:
        try:
            with Image.open(stream) as file:
                return _eight_bits(ImageOps.exif_transpose(file), file.format)
        except UnidentifiedImageError:
            reason = "it has no format that Pillow knows"
        except MemoryError:  # The file is none the worse.
            raise MemoryError(f"It ended with {_name(path)}.") from None
        # What decoders raise for broken files has no common class.
        except Exception as error:
            reason = str(error).rstrip(".") or type(error).__name__
    raise ValueError(f"Expected an image file. Received: {_name(path)}; {reason}.")


def _eight_bits(image: Image.Image, file_format: str | None) -> Image.Image:
    """An image of 16 bits, which Pillow would clip at 255, in its upper eight."""
    if image.mode == "F" or (image.mode == "I" and file_format not in _SIXTEEN_BITS):
        raise ValueError("its values have 32 bits, and no range that is known")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    gray = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is None:
        return gray
    opaque = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (gray, Image.fromarray(opaque)))
