"""Times what a bundle costs and saves, in one run, on one thread, with XNNPACK."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping

import keras
import numpy as np

from epnet_tf.deployment import bundle, convert
from epnet_tf.deployment.litert import LiteRTModel
from epnet_tf.deployment.runner import SegmentRunner
from epnet_tf.model import EPNet

# What the others are compared with, and the same without copying the image in.
WHOLE = "whole model"
WHOLE_RUNTIME = "whole model, runtime alone"
# Images that a contender runs in one go: alone, as in use, with its weights in the
# caches that the contender before it had filled.
_BLOCK = 10


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long one contender took.

    Attributes:
        seconds: float [images].
    """

    seconds: np.ndarray

    def milliseconds(self, percentile: float) -> float:
        """A percentile of the times; 50 is the median."""
        return 1e3 * float(np.percentile(self.seconds, percentile))

    def ratio(self, other: "Timing") -> float:
        """Median of the ratios to another contender's times for the same images."""
        return float(np.median(self.seconds / other.seconds))


def compare(
    model: EPNet,
    bundle_dir: str | os.PathLike,
    calibration_images: np.ndarray,
    evaluation_data: tuple[np.ndarray, np.ndarray],
    beta: float | None = None,
    rounds: int = 100,
) -> dict[str, Timing]:
    """Times the plain backbone, the whole model, the segments and a static exit.

    The static exit is the one whose accuracy is nearest to the policy's. "Runtime
    alone" is the interpreters' work without handing tensors over in Python.

    Args:
        model: The Keras model that the bundle was made from.
        bundle_dir: The bundle.
        calibration_images: As for `epnet_tf.convert`.
        evaluation_data: Images, run in turn, and labels, which choose the static exit.
        beta: For a bundle whose controllers take it.
        rounds: Rounds; in each, every contender runs the same ten images.

    Returns:
        A `Timing` for each contender, by its name.
    """
    images, labels = evaluation_data
    early, row = SegmentRunner(bundle_dir), SegmentRunner(bundle_dir)
    row.threshold = np.inf
    accuracy = np.mean(early.predict(images, beta).label == labels)
    # Opens all segments, and sets beta.
    row.predict(images[:1], beta)

    def single(*outputs: str) -> LiteRTModel:
        """A part of the Keras model in one piece, in the bundle's quantization."""
        given = beta if len(outputs) > 1 else None
        inputs = model.input if given or not model.beta_range else model.input["image"]
        part = keras.Model(inputs, {name: model.output[name] for name in outputs})
        mode = early.manifest.quantization
        content = convert.to_tflite(part, calibration_images, mode, given)
        converted = LiteRTModel(content)
        if given:
            converted.inputs["beta"][...] = beta
        return converted

    whole = single(*model.output)
    static = static_exit(model, images, labels, accuracy, beta)
    parts = _open_segments(bundle_dir, images[0], beta)
    return time_in_turn(
        {
            "plain backbone": _one_image(single(f"logits_{model.num_exits:02d}")),
            WHOLE: _one_image(whole),
            "segments in a row": row.run_image,
            "early termination": early.run_image,
            f"static exit {static}": _one_image(single(f"logits_{static:02d}")),
            WHOLE_RUNTIME: lambda image: whole.invoke(),
            "segments in a row, runtime alone": lambda image: [
                part.invoke() for part in parts
            ],
        },
        images,
        rounds,
    )


def static_exit(
    model: EPNet, images, labels, accuracy: float, beta: float | None = None
) -> int:
    """The exit, from 1, whose accuracy for all images is nearest to a given one."""
    outputs = model.predict(model.with_beta(images, beta), verbose=0)
    accuracies = [
        np.mean(outputs[f"logits_{i:02d}"].argmax(axis=1) == labels)
        for i in range(1, model.num_exits + 1)
    ]
    return int(np.argmin(np.abs(np.array(accuracies) - accuracy))) + 1


def time_in_turn(
    contenders: Mapping[str, Callable[[np.ndarray], object]],
    images: np.ndarray,
    rounds: int,
) -> dict[str, Timing]:
    """Times functions of an image, in rounds.

    A machine that is slow for a while is slow for all of them, and each runs first as
    often as any other.

    Args:
        contenders: The functions, by name.
        images: Run in turn, ten in each round.
        rounds: Rounds that count; one more comes before.

    Returns:
        A `Timing` for each.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds + 1):
        block = [images[j % len(images)] for j in range(i * _BLOCK, (i + 1) * _BLOCK)]
        first = i % len(names)
        for name in names[first:] + names[:first]:
            run = contenders[name]
            for image in block:
                start = time.perf_counter()
                run(image)
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(np.array(taken[_BLOCK:])) for name, taken in seconds.items()}


def _one_image(model: LiteRTModel) -> Callable[[np.ndarray], None]:
    def run(image: np.ndarray) -> None:
        np.copyto(model.inputs["image"][0], image)
        model.invoke()

    return run


def _open_segments(bundle_dir, image, beta: float | None) -> list[LiteRTModel]:
    """The segments, each holding the inputs of one image."""
    tensors = {"image": image, "beta": beta}
    parts = []
    for entry in bundle.read_manifest(bundle_dir).segments:
        part = LiteRTModel(bundle.read_segment(bundle_dir, entry))
        tensors |= part.run(**{name: tensors[name] for name in part.inputs})
        parts.append(part)
    return parts
