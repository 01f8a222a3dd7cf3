"""What all exits of a model say of images: of the Keras model, or of a .tflite one."""

import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from epnet_tf.runtime.litert import LiteRTModel, as_input
from epnet_tf.runtime.prediction import ExitOutputs, from_named
from epnet_tf.tflite.flatbuffer import Graph

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


def of_tflite(graph: Graph, images, beta: float | None = None) -> ExitOutputs:
    """Runs a whole .tflite model, all exits, on images, on one thread.

    Args:
        graph: The model, with the outputs of an `EPNet`.
        images: [n, h, w, c], raw values 0 to 255.
        beta: Cost sensitivity, for a model with the input `beta`.

    Returns:
        The `ExitOutputs`.

    """
    return from_named(run(opened(graph, beta), images))


def opened(graph: Graph, beta: float | None = None) -> LiteRTModel:
    """Opens a whole model for one β.

    Args:
        graph: The model.
        beta: Cost sensitivity, for a model with the input `beta`; it stays set.

    Returns:
        The model, to be run on images.

    Raises:
        ValueError: If the model's controllers take a β and none is given, or one is
            given and they do not.
    """
    if (beta is not None) != ("beta" in graph.inputs):
        raise ValueError(
            "Expected beta for a model that has it as an input, and for no other. "
            f"Received: beta={beta} for one with inputs {sorted(graph.inputs)}."
        )
    model = LiteRTModel(graph.content)
    if beta is not None:
        model.inputs["beta"][...] = beta
    return model


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
    pixels = model.inputs["image"][0]
    for i, image in _with_progress(images):
        pixels[...] = as_input(image, pixels.dtype)
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
