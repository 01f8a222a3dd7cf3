"""Arrays in a file, with what they were made by: if that is another, they are stale."""

import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from epnet_tf.files import write_whole


def of_file(file: str | os.PathLike) -> str:
    """The recipe of what is made by a file, such as a model's: its SHA-256."""
    return hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()


def write(
    file: str | os.PathLike,
    recipe: str,
    arrays: Mapping[str, np.ndarray],
    save: Callable = np.savez,
) -> None:
    """Writes arrays, whole or not at all.

    Args:
        file: The .npz file.
        recipe: What they were made by.
        arrays: They by their names.
        save: `np.savez`, or `np.savez_compressed`.
    """
    with write_whole(file) as path, path.open("wb") as stream:
        save(stream, recipe=recipe, **arrays)


def recipe_of(file: str | os.PathLike) -> str:
    """What the arrays in a file were made by; empty if there is no file."""
    if not pathlib.Path(file).exists():
        return ""
    with np.load(file) as kept:
        return str(kept["recipe"])
