"""Times what a bundle costs and saves, in one run, on one thread, with XNNPACK."""

import os

import keras
import numpy as np

from epnet_tf.conversion import convert, measure
from epnet_tf.conversion.timing import Timing, one_image, time_in_turn
from epnet_tf.data.streams import Images, blocks
from epnet_tf.model import EPNet
from epnet_tf.runtime import bundle
from epnet_tf.runtime.litert import LiteRTModel, as_input
from epnet_tf.runtime.runner import SegmentRunner
from epnet_tf.tflite import outputs

# Images that the policy answers at a time.
_BLOCK = 256

# What the others are compared with, and the same without copying the image in.
WHOLE = "whole model"
WHOLE_RUNTIME = "whole model, runtime alone"


def compare(
    model: EPNet,
    bundle_dir: str | os.PathLike,
    calibration_images: Images,
    evaluation_data: tuple[Images, np.ndarray],
    beta: float | None = None,
    rounds: int = 100,
) -> dict[str, Timing]:
    """Times the plain backbone, the whole model, what is in a bundle, a static exit.

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
    runner = SegmentRunner(bundle_dir)
    found = [runner.predict(block, beta).label for block in blocks(images, _BLOCK)]
    accuracy = np.mean(np.concatenate(found) == labels)

    def single(*names: str) -> LiteRTModel:
        """A part of the Keras model in one piece, in the bundle's quantization."""
        given = beta if len(names) > 1 else None
        inputs = model.input if given or not model.beta_range else model.input["image"]
        part = keras.Model(inputs, {name: model.output[name] for name in names})
        mode = runner.manifest.quantization
        graph = convert.to_tflite(part, calibration_images, mode, given)
        return outputs.opened(graph, given)

    whole = single(*model.output)
    static = static_exit(model, images, labels, accuracy, beta)
    parts = _open_segments(bundle_dir, images[0], beta)
    return time_in_turn(
        {
            "plain backbone": one_image(single(f"logits_{model.num_exits:02d}")),
            WHOLE: one_image(whole),
            **measure.runners(bundle_dir, images[:1], beta),
            f"static exit {static}": one_image(single(f"logits_{static:02d}")),
            WHOLE_RUNTIME: lambda image: whole.invoke(),
            "segments in a row, runtime alone": lambda image: [
                part.invoke() for part in parts
            ],
        },
        images,
        rounds,
    )


def table(timings: dict[str, Timing]) -> str:
    """Lays out timings: median and spread in milliseconds, ratio to the whole model."""
    lines = [f"{'milliseconds':34s}{'median':>8s}{'10%':>8s}{'90%':>8s}{'/ whole':>9s}"]
    for name, timing in timings.items():
        runtime = name.endswith("runtime alone")
        whole = timings[WHOLE_RUNTIME if runtime else WHOLE]
        numbers = "".join(f"{timing.milliseconds(p):8.3f}" for p in (50, 10, 90))
        lines.append(f"{name:34s}{numbers}{timing.ratio(whole):9.3f}")
    return "\n".join(lines)


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


def _open_segments(bundle_dir, image, beta: float | None) -> list[LiteRTModel]:
    """The segments, each holding the inputs of one image."""
    manifest = bundle.read_manifest(bundle_dir)
    tensors = {"image": as_input(image, manifest.input.dtype)}
    if beta is not None:
        tensors["beta"] = np.full([1, 1], beta, np.float32)
    parts = []
    for entry in manifest.segments:
        part = LiteRTModel(bundle.read_tflite(bundle_dir, entry))
        tensors |= part.run(**{name: tensors[name] for name in part.inputs})
        parts.append(part)
    return parts
