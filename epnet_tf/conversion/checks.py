"""Checks of what a conversion is given, before anything is computed or written."""

import os
import pathlib

import numpy as np

from epnet_tf.data.labels import check_labels
from epnet_tf.data.pixels import warn_of_range
from epnet_tf.data.streams import Images, StreamedImages, blocks
from epnet_tf.model import EPNet
from epnet_tf.runtime import bundle
from epnet_tf.runtime.bundle import Manifest

# Quantizations that change what controllers see so much that they are refitted.
REFIT_MODES = ("int8", "int8-full", "qat")

# Streamed images that are looked at together.
_BLOCK = 256


def check_formats(formats: str) -> None:
    """Checks what a bundle is to hold.

    Raises:
        ValueError: If it is none of `epnet_tf.runtime.bundle.CONTENTS`.
    """
    if formats not in bundle.CONTENTS:
        raise ValueError(
            f"Expected formats among {', '.join(bundle.CONTENTS)}. Received: {formats}"
        )


def check_output(path: pathlib.Path, overwrite: bool) -> None:
    """Refuses to replace what is there, and ever to replace what is no bundle.

    Args:
        path: The folder to make.
        overwrite: Whether a bundle there may be replaced.

    Raises:
        ValueError: If the output may not be written there.
    """
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise ValueError(
            f"The output exists already, and may be replaced only with overwrite. "
            f"Received: {path}"
        )
    if not (path / bundle.MANIFEST).is_file():
        raise ValueError(
            "Expected as output a new folder, or a bundle to replace; what is there "
            f"is no bundle. Received: {path}"
        )


def check_model(model: EPNet) -> None:
    """Checks that a model can be converted.

    Raises:
        ValueError: If it is no `EPNet`, or its controllers are not trained.
    """
    if not isinstance(model, EPNet):
        raise ValueError(
            f"Expected an epnet_tf.EPNet. Received: {type(model).__name__}"
        )
    if model.beta_range is None and model.beta is None:
        raise ValueError(
            "Expected a model whose controllers are trained. "
            f"Received: '{model.name}' with beta=None."
        )


def check_images(manifest: Manifest, images) -> Images:
    """Checks the calibration images.

    Args:
        manifest: The bundle's manifest.
        images: The images: an array, or streamed.

    Returns:
        They as an array, or as they are if they are streamed.

    Raises:
        ValueError: If there are none, or they are not as the model takes them.
    """
    if not len(images):
        raise ValueError("Expected at least one calibration image. Received: none.")
    return _checked(manifest, images, "calibration images")


def check_labelled(
    manifest: Manifest, given, name: str
) -> tuple[Images, np.ndarray] | None:
    """Checks images with labels.

    Args:
        manifest: The bundle's manifest.
        given: Images, an array or streamed, and labels; or None.
        name: What they are called in messages.

    Returns:
        The images as an array, or as they are if they are streamed, and labels int32
        [n]; None for None.

    Raises:
        ValueError: If they are not as the model takes them.
    """
    if given is None:
        return None
    images, labels = given
    images = _checked(manifest, images, f"images in {name}")
    labels = check_labels(
        labels, len(manifest.labels), count=len(images), what=f"labels in {name}"
    )
    return images, labels


def _checked(manifest: Manifest, images, what: str) -> Images:
    if not isinstance(images, StreamedImages):
        images = manifest.input.check(images)
        warn_of_range(images, what)
        return images
    # Bytes can be nothing else; and the size is the same for all.
    looked_at = images[:1] if images.dtype == np.uint8 else images
    for i, block in enumerate(blocks(looked_at, _BLOCK)):
        manifest.input.check(block)
        if i == 0:
            warn_of_range(block, what)
    return images


def check_refit(refit: bool | None, model: EPNet, quantization: str, has_data: bool):
    """Decides whether there is a refit.

    Args:
        refit: What the user said; None for a refit where it is usual and can be.
        model: The model.
        quantization: The quantization mode.
        has_data: Whether there are training images and labels.

    Returns:
        Whether to refit.

    Raises:
        ValueError: If the user asked for one that cannot be.
    """
    if refit is None:
        return has_data and quantization in REFIT_MODES and model.num_exits > 1
    if refit and quantization not in REFIT_MODES:
        raise ValueError(
            f"Expected a refit with quantization {', '.join(REFIT_MODES)} alone, whose "
            f"features are int8. Received: refit with quantization {quantization}."
        )
    if refit and not has_data:
        raise ValueError(
            "Expected training_data, images and labels, to refit the controllers on. "
            "Received: refit=True with training_data=None."
        )
    if refit and model.num_exits < 2:
        raise ValueError(
            "Expected a model with 2 exits or more to refit. Received: 1 exit."
        )
    return refit
