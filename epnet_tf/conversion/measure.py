"""Measures what conversion changed: answers, size and time, float against bundle."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping

import numpy as np

from epnet_tf import objective
from epnet_tf.conversion.timing import one_image, time_in_turn
from epnet_tf.data.streams import Images
from epnet_tf.model import EPNet
from epnet_tf.runtime import bundle
from epnet_tf.runtime.metrics import BeforeRefit, Cost, Metrics, PolicyMetrics, Time
from epnet_tf.runtime.prediction import ExitOutputs, Prediction, numbered
from epnet_tf.runtime.runner import SegmentRunner
from epnet_tf.tflite import flatbuffer, one_file, outputs, slicer
from epnet_tf.tflite.flatbuffer import Graph

# What the times in a report are compared with.
FLOAT = "float32 model in one piece"
PLAIN = "plain network"
ROW = "all segments in a row"
EARLY = "segments with early termination"
ONE_FILE = "one file that stops by itself"
_ROUNDS = (2, 30)
# All rounds together take about so long.
_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Costs:
    """What leaving through each exit costs.

    Attributes:
        macs: int64 [N], multiply-adds.
        paid: [N], what β is per unit of; `macs` itself, unless the model has `costs`.
    """

    macs: np.ndarray
    paid: np.ndarray

    @classmethod
    def of(cls, model: EPNet) -> "Costs":
        """Those of a model, whose controllers run."""
        return cls(model.exit_macs.with_controllers, model.exit_costs.with_controllers)


def measure(
    model: EPNet,
    whole: Graph,
    images: Images,
    labels: np.ndarray,
    beta: float,
    before_refit: Graph | None = None,
) -> Metrics:
    """The policy with the Keras model and with a .tflite model, on the same images.

    Args:
        model: The Keras model.
        whole: The model that a bundle's segments are cut from.
        images: [n, h, w, c], raw values 0 to 255.
        labels: int [n].
        beta: The β to measure at.
        before_refit: `whole` without the refit, if there was one.

    Returns:
        The `Metrics`, without `test` and `cost`.
    """
    given = beta if model.beta_range else None
    before = None
    if before_refit is not None:
        before = outputs.of_tflite(before_refit, images, given)
    return compare(
        outputs.of_keras(model, images, given),
        outputs.of_tflite(whole, images, given),
        np.asarray(labels),
        Costs.of(model),
        beta,
        before,
    )


def compare(
    float_outputs: ExitOutputs,
    bundle_outputs: ExitOutputs,
    labels: np.ndarray,
    costs: Costs,
    beta: float,
    before_refit: ExitOutputs | None = None,
) -> Metrics:
    """Compares what two models say of the same images.

    Args:
        float_outputs: Of the Keras model.
        bundle_outputs: Of the model that a bundle's segments are cut from.
        labels: int [n].
        costs: What leaving through each exit costs.
        beta: Cost sensitivity, points per unit of cost.
        before_refit: As `bundle_outputs`, without the refit.

    Returns:
        The `Metrics`, without `test` and `cost`.
    """
    ours, theirs = (o.answers(costs.macs) for o in (bundle_outputs, float_outputs))
    before = None
    if before_refit is not None:
        answers = before_refit.answers(costs.macs)
        before = BeforeRefit(
            policy_metrics(before_refit, labels, costs, beta),
            *_agreement(answers, theirs),
        )
    same_exit, same_label, same_answer = _agreement(ours, theirs)
    shift = bundle_outputs.confidence - float_outputs.confidence
    return Metrics(
        float=policy_metrics(float_outputs, labels, costs, beta),
        bundle=policy_metrics(bundle_outputs, labels, costs, beta),
        same_exit=same_exit,
        same_label=same_label,
        beta=beta,
        images=len(labels),
        same_answer=same_answer,
        confidence_shift=tuple(shift.mean(axis=0).tolist()),
        lost=tuple(lost(theirs, ours, labels, costs.paid, beta).tolist()),
        before_refit=before,
    )


def policy_metrics(
    exits: ExitOutputs, labels: np.ndarray, costs: Costs, beta: float
) -> PolicyMetrics:
    """What the policy achieves with a model's outputs.

    Args:
        exits: The outputs for n images.
        labels: int [n].
        costs: What leaving through each exit costs.
        beta: Cost sensitivity, points per unit of cost.
    """
    answers = exits.answers(costs.macs)
    accuracy = float(np.mean(answers.label == labels))
    mean_cost = float(np.mean(costs.paid[answers.exit - 1]))
    rates = np.bincount(answers.exit - 1, minlength=exits.num_exits) / len(labels)
    exit_accuracy = (exits.logits.argmax(axis=-1) == labels[:, None]).mean(axis=0)
    return PolicyMetrics(
        accuracy=accuracy,
        benefit=objective.benefit(accuracy, mean_cost, beta),
        mean_macs=float(np.mean(answers.macs)),
        exit_rates=tuple(rates.tolist()),
        exit_accuracy=tuple(exit_accuracy.tolist()),
        mean_cost=None if costs.paid is costs.macs else mean_cost,
    )


def lost(
    before: Prediction,
    after: Prediction,
    labels: np.ndarray,
    paid: np.ndarray,
    beta: float,
) -> np.ndarray:
    """The benefit lost, by the exits through which images leave now.

    Args:
        before: Answers that images had.
        after: Answers that they have now.
        labels: int [n].
        paid: [N], what leaving through each exit costs.
        beta: Cost sensitivity, points per unit of cost.

    Returns:
        float [N], percentage points; the sum is the difference of the benefits.
    """
    was, is_ = (
        objective.benefit(answers.label == labels, paid[answers.exit - 1], beta)
        for answers in (before, after)
    )
    lost_there = np.bincount(after.exit - 1, was - is_, minlength=len(paid))
    return lost_there / len(labels)


def cost(
    float32: Graph,
    whole: Graph,
    folder: str | os.PathLike,
    images: Images,
    beta: float | None = None,
) -> Cost:
    """Size and time of a bundle against the float32 model, on one thread.

    Args:
        float32: The whole model in float32.
        whole: The model that the bundle is made from.
        folder: The bundle.
        images: Images to run.
        beta: Cost sensitivity, for a bundle whose controllers take it.

    Returns:
        The `Cost`; each round runs all contenders on the same images.
    """
    manifest = bundle.read_manifest(folder)
    plain = plain_network(whole)
    contenders: dict[str, Callable] = {
        FLOAT: one_image(outputs.opened(float32, beta)),
        PLAIN: one_image(outputs.opened(plain)),
        whole_name(manifest): one_image(outputs.opened(whole, beta)),
    }
    contenders |= runners(folder, images[:1], beta)
    timings = time_in_turn(contenders, images, _rounds(contenders, images[0]))
    segments, model = manifest.segments, manifest.model
    same = slicer.slice_model(float32) if segments else [one_file.build(float32)]
    written = segments or ([model] if model else [])
    return Cost(
        float_bytes=sum(len(graph.content) for graph in same),
        bundle_bytes=sum(entry.bytes for entry in written),
        times=tuple(
            Time(
                name,
                timing.milliseconds(50),
                timing.ratio(timings[FLOAT]),
                timing.mean_milliseconds,
            )
            for name, timing in timings.items()
        ),
        plain_bytes=len(plain.content),
        whole_bytes=len(whole.content),
    )


def whole_name(manifest: bundle.Manifest) -> str:
    """What the multi-exit model that a bundle is made from is called in its times."""
    return f"{manifest.quantization} model in one piece"


def plain_network(whole: Graph) -> Graph:
    """The network without exits: what leads to the last one's logits.

    Args:
        whole: A multi-exit model, of any quantization.
    """
    name = numbered(whole.outputs, "logits")[-1]
    logits = whole.outputs[name]
    image = {"image": whole.inputs["image"]}
    return flatbuffer.extract(whole, whole.ancestors([logits]), image, {name: logits})


def runners(
    folder: str | os.PathLike, images: np.ndarray, beta: float | None
) -> dict[str, Callable]:
    """What runs an image with a bundle, by name.

    Args:
        folder: The bundle.
        images: Images to open everything with.
        beta: Cost sensitivity, for a bundle whose controllers take it; it stays set.
    """
    manifest = bundle.read_manifest(folder)
    opened = {}
    if manifest.segments:
        opened[ROW] = SegmentRunner(folder)
        opened[ROW].threshold = np.inf
        opened[EARLY] = SegmentRunner(folder)
    if manifest.model:
        opened[ONE_FILE] = SegmentRunner(os.path.join(folder, manifest.model.file))
    for runner in opened.values():
        runner.predict(images, beta)
    return {name: runner.run_image for name, runner in opened.items()}


def _agreement(a: Prediction, b: Prediction) -> tuple[float, float, float]:
    """Shares of images with the same exit, the same label, and both."""
    exits, labels = a.exit == b.exit, a.label == b.label
    return float(exits.mean()), float(labels.mean()), float((exits & labels).mean())


def _rounds(contenders: Mapping[str, Callable], image: np.ndarray) -> int:
    """As many rounds as fit into the time, for a large network fewer."""
    start = time.perf_counter()
    for run in contenders.values():
        run(image)
    fit = _SECONDS / (10 * (time.perf_counter() - start))
    return int(np.clip(fit, *_ROUNDS))
