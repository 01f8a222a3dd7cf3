"""Pixels: raw values 0 to 255, wherever images come in."""

import warnings

import numpy as np


def warn_of_range(images, what: str = "images") -> None:
    """Warns of images in another range than an EPNet's input, 0 to 255.

    On images within 0 to 1 nothing fails: a model trained on them expects such images
    wherever it runs, and a trained one sees black ones. Black images, and bytes, are
    taken as they are.

    Args:
        images: [n, h, w, c], of any type.
        what: What they are called in the warning.
    """
    images = np.asarray(images)
    if images.dtype == np.uint8 or images.dtype.kind not in "biuf" or not images.size:
        return
    low, high = images.min(), images.max()
    if low >= 0 and (high == 0 or 1 < high <= 255):
        return
    warnings.warn(
        f"Expected {what} with raw pixel values 0 to 255. Received: values from "
        f"{low:g} to {high:g}; a model learns, and is measured, for the range of the "
        "images that it gets.",
        stacklevel=3,
    )
