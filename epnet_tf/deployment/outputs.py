"""What all exits of a model say of images: of the Keras model, or of a .tflite one."""

import dataclasses
import functools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import keras
import numpy as np

from epnet_tf import objective
from epnet_tf.deployment.litert import LiteRTModel
from epnet_tf.prediction import Prediction, from_logits, softmax

# Seconds after which a progress bar appears.
_PATIENCE = 3.0


@dataclasses.dataclass(frozen=True)
class ExitOutputs:
    """Logits and stop logits of images at every exit (NumPy).

    Attributes:
        logits: float32 [n, N, classes].
        stops: float32 [n, N − 1].
    """

    logits: np.ndarray
    stops: np.ndarray

    @property
    def num_exits(self) -> int:
        """The number of exits N."""
        return self.logits.shape[1]

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """Largest probability that each exit gives: float32 [n, N]."""
        return softmax(self.logits).max(axis=-1)

    def answers(self, macs: np.ndarray) -> Prediction:
        """What the policy answers: each image at the first exit that says stop.

        Args:
            macs: int64 [N], what leaving through each exit costs.

        Returns:
            What `SegmentRunner` or `EPNet.classify` would.
        """
        exits = np.full(len(self.logits), self.num_exits - 1)
        if self.num_exits > 1:
            exits = np.asarray(objective.first_stop(self.stops))
        return from_logits(self.logits[np.arange(len(exits)), exits], exits, macs)


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
    """
    return from_named(run(LiteRTModel(content), images, beta))


def run(model: LiteRTModel, images, beta: float | None = None) -> dict[str, np.ndarray]:
    """Runs a .tflite model on images, one after the other.

    Args:
        model: The model; its first dimensions are 1.
        images: [n, h, w, c], raw values 0 to 255.
        beta: Cost sensitivity, for a model with the input `beta`.

    Returns:
        Every output, by name, batch first.
    """
    if "beta" in model.inputs:
        model.inputs["beta"][...] = beta
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


def from_named(outputs: Mapping[str, np.ndarray]) -> ExitOutputs:
    """Gathers outputs `logits_01` …, `stop_01` …, each batch first."""
    logits = [outputs[name] for name in numbered(outputs, "logits")]
    stops = [outputs[name] for name in numbered(outputs, "stop")]
    return ExitOutputs(
        np.stack(logits, axis=1),
        np.concatenate(stops, axis=1) if stops else np.empty([len(logits[0]), 0]),
    )


def numbered(outputs: Iterable[str], kind: str) -> list[str]:
    """The names `kind_01`, `kind_02`, … among those of outputs, in order."""
    names = [name for name in outputs if name.startswith(f"{kind}_")]
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]))


def _with_progress(images: Sequence) -> Iterator[tuple[int, np.ndarray]]:
    """Enumerates images; whoever has to wait for long sees how far it is."""
    bar, start = keras.utils.Progbar(len(images), unit_name="image"), time.monotonic()
    step = max(1, len(images) // 50)
    for i, image in enumerate(images):
        yield i, image
        waited = time.monotonic() - start > _PATIENCE
        if waited and ((i + 1) % step == 0 or i + 1 == len(images)):
            bar.update(i + 1)
