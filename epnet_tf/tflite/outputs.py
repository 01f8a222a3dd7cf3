"""What all exits of a model say of images: of the Keras model, or of a .tflite one."""

import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.prediction import ExitOutputs, from_named

# Seconds after which a progress bar appears.
_PATIENCE = 3.0


def of_keras(model: keras.Model, images, beta: float | None = None) -> ExitOutputs:
    """Runs an EPNet, all exits, on images.

    Args:
        model: The `EPNet`.
        images: [n, h, w, c], raw values 0 to 255.
        beta: Cost sensitivity, for a model with `beta_range`.

    Returns:
        The `ExitOutputs`.
    """
    outputs = model.predict(model.with_beta(images, beta), batch_size=256, verbose=0)
    return from_named(outputs)


def of_tflite(content: bytes, images, beta: float | None = None) -> ExitOutputs:
    """Runs a whole .tflite model, all exits, on images, on one thread.

    Args:
        content: The model, with the outputs of an `EPNet`.
        images: [n, h, w, c], raw values 0 to 255.
        beta: Cost sensitivity, for a model with the input `beta`.

    Returns:
        The `ExitOutputs`.

    Raises:
        ValueError: If the model's controllers take a β and none is given, or one is
            given and they do not.
    """
    model = LiteRTModel(content)
    if (beta is not None) != ("beta" in model.inputs):
        raise ValueError(
            "Expected beta for a model that has it as an input, and for no other. "
            f"Received: beta={beta} for one with inputs {sorted(model.inputs)}."
        )
    if beta is not None:
        model.inputs["beta"][...] = beta
    return from_named(run(model, images))


def run(model: LiteRTModel, images) -> dict[str, np.ndarray]:
    """Runs a .tflite model on images, one after the other.

    Args:
        model: The model; its first dimensions are 1, its other inputs are set.
        images: [n, h, w, c], raw values 0 to 255.

    Returns:
        Every output, by name, batch first.
    """
    results = {
        name: np.empty([len(images), *memory.shape[1:]], memory.dtype)
        for name, memory in model.outputs.items()
    }
    for i, image in _with_progress(images):
        np.copyto(model.inputs["image"][0], image, casting="unsafe")
        model.invoke()
        for name, memory in model.outputs.items():
            results[name][i] = memory[0]
    return results


def _with_progress(images: Sequence) -> Iterator[tuple[int, np.ndarray]]:
    """Enumerates images; whoever has to wait for long sees how far it is."""
    bar, start = keras.utils.Progbar(len(images), unit_name="image"), time.monotonic()
    step = max(1, len(images) // 50)
    for i, image in enumerate(images):
        yield i, image
        waited = time.monotonic() - start > _PATIENCE
        if waited and ((i + 1) % step == 0 or i + 1 == len(images)):
            bar.update(i + 1)
