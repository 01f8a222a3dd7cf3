"""What is measured while converting, as it stands in `epnet.json`."""

import dataclasses

# `float` is also a key in epnet.json, and so a field below.
Number = float


@dataclasses.dataclass(frozen=True)
class PolicyMetrics:
    """What the policy achieved on some images.

    Attributes:
        accuracy: Share of right answers.
        benefit: 100 · accuracy - β · mean cost, in percentage points.
        mean_macs: Mean multiply-adds of an image.
        exit_rates: Share of the images that left through each exit.
        exit_accuracy: Share of right answers of each exit, on all images.
        mean_cost: Mean cost of an image in the bundle's unit; None for MACs.
    """

    accuracy: float
    benefit: float
    mean_macs: float
    exit_rates: tuple[float, ...]
    exit_accuracy: tuple[float, ...] | None = None
    mean_cost: float | None = None

    @property
    def mean_paid(self) -> float:
        """Mean cost of an image in the bundle's unit."""
        return self.mean_macs if self.mean_cost is None else self.mean_cost


@dataclasses.dataclass(frozen=True)
class BeforeRefit:
    """The bundle as it would be without the refit.

    Attributes:
        bundle: What it achieved.
        same_exit: Share of images that it and the Keras model let leave through the
            same exit.
        same_label: Share of images to which both gave the same label.
        same_answer: Share of images with both.
    """

    bundle: PolicyMetrics
    same_exit: float
    same_label: float
    same_answer: float


@dataclasses.dataclass(frozen=True)
class Time:
    """How long one image takes, on one thread.

    Attributes:
        name: What runs.
        milliseconds: Median.
        ratio: Median of the ratios to the time of the float32 model in one piece, both
            measured in turn.
        mean_milliseconds: Mean over images, which leave early or late.
    """

    name: str
    milliseconds: float
    ratio: float
    # Bundles of earlier versions do not have it.
    mean_milliseconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the bundle takes, against float32.

    Attributes:
        float_bytes: Size of all segments in float32.
        bundle_bytes: Size of all segments. Where there are none, both are sizes of the
            model in one file.
        times: Whole models, all segments in a row, and early termination.
        plain_bytes: Size of the network without exits, in the same quantization.
        whole_bytes: Size of the multi-exit model in one piece.
    """

    float_bytes: int
    bundle_bytes: int
    times: tuple[Time, ...]
    # Bundles of earlier versions do not have what follows.
    plain_bytes: int | None = None
    whole_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Metrics:
    """The Keras model and the bundle side by side, on the same images.

    Attributes:
        float: The Keras model.
        bundle: The bundle.
        same_exit: Share of images that both left through the same exit.
        same_label: Share of images that both gave the same label.
        beta: The β of the benefits.
        images: Number of images.
        same_answer: Share of images with the same exit and the same label.
        confidence_shift: For each exit, mean over all images of its largest
            probability in the bundle, less that in the Keras model.
        lost: For each exit, what images that leave the bundle there pay less than
            with the Keras model, in points of benefit of all images; the sum is the
            benefit lost.
        before_refit: The bundle without the refit, if there was one.
        test: The same on the test images, if there were such.
        cost: Size and time; not in `test`.
    """

    float: PolicyMetrics
    bundle: PolicyMetrics
    same_exit: Number
    same_label: Number
    beta: Number
    images: int
    # Bundles of earlier versions do not have what follows.
    same_answer: Number | None = None
    confidence_shift: tuple[Number, ...] | None = None
    lost: tuple[Number, ...] | None = None
    before_refit: BeforeRefit | None = None
    test: "Metrics | None" = None
    cost: Cost | None = None


def measured(metrics: Metrics | None) -> dict[str, Metrics]:
    """The metrics by the images that they were measured on."""
    found = {"validation": metrics, "test": metrics and metrics.test}
    return {name: m for name, m in found.items() if m is not None}
