"""A .tflite model that stops by itself: one file, no loop around it."""

import io
import os
import pathlib
import zipfile
import zlib

import numpy as np

from epnet_tf.runtime import bundle
from epnet_tf.runtime.bundle import Manifest
from epnet_tf.runtime.litert import LiteRTModel, as_input

# The signature with the input of the same name.
MAX_EXIT = "max_exit"
# What zipfile raises for what is no archive, or a damaged one.
_NO_ARCHIVE = (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, EOFError)


class SelfStoppingModel:
    """Runs a model that stops by itself, one image at a time.

    Usage:

    ```python
    model = SelfStoppingModel(pathlib.Path("bundle/model.tflite").read_bytes())
    exit, logits = model.run(image)
    ```

    Args:
        content: The model.
        num_threads: Threads that one call may use.
    """

    def __init__(self, content: bytes, num_threads: int = 1):
        self._model = LiteRTModel(content, num_threads, keep_tensors=True)
        image, outputs = self._model.inputs["image"], self._model.outputs
        self._dtype = image.dtype
        # As bytes: NumPy's copies and items take longer.
        self._image = image.data.cast("B")
        self._exit, self._logits = outputs["exit"].data, outputs["logits"][0]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self._logits)

    def set_beta(self, beta: float | None) -> None:
        """Sets the β of the images to come."""
        if beta is not None:
            self._model.inputs["beta"][...] = beta

    def run(
        self, image: np.ndarray, max_exit: int | None = None
    ) -> tuple[int, np.ndarray]:
        """Runs one image to its exit.

        Args:
            image: [height, width, channels], raw values 0 to 255.
            max_exit: The exit, counted from 1, that answers at the latest.

        Returns:
            The exit, counted from 0, and its logits [classes], in memory that the next
            image may overwrite.
        """
        self._image[:] = as_input(image, self._dtype).data.cast("B")
        if max_exit is None:
            self._model.invoke()
            return self._exit[0] - 1, self._logits
        limit = {MAX_EXIT: np.array([max_exit], np.int32)}
        found = self._model.run_signature(MAX_EXIT, **self._model.inputs, **limit)
        return int(found["exit"][0]) - 1, found["logits"][0]


def read_file(path: str | os.PathLike) -> tuple[Manifest, bytes]:
    """Reads a model that is not in a bundle, and verifies it.

    Args:
        path: A `model.tflite` that `epnet_tf.convert` has written.

    Returns:
        Its manifest, which lies in the archive behind the model, and the model.

    Raises:
        ValueError: If the file is no such model, or is altered.
    """
    content = pathlib.Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            text = archive.read(bundle.MANIFEST)
    except _NO_ARCHIVE:
        raise ValueError(
            "Expected a model.tflite of epnet_tf.convert, which has its "
            f"{bundle.MANIFEST} within. Received: {path}"
        ) from None
    manifest = bundle.parse_manifest(text, f"{path}/{bundle.MANIFEST}")
    if manifest.model is None:
        raise ValueError(f"The {bundle.MANIFEST} within {path} describes no model.")
    bundle.check_sha256(content[: manifest.model.bytes], manifest.model, path)
    return manifest, content
