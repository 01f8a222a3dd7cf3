"""What an early exit answers: the same for the Keras model and for segments."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Prediction(NamedTuple):
    """The answers for n images, each from the exit that it left through.

    Attributes:
        label: int [n], the most probable class.
        exit: int [n], the exit, counted from 1.
        macs: int64 [n], multiply-adds of all that ran until the exit had answered.
        probabilities: float32 [n, classes], softmax of that exit's logits.
    """

    label: np.ndarray
    exit: np.ndarray
    macs: np.ndarray
    probabilities: np.ndarray


def check_beta(
    beta: float | None, beta_range: Sequence[float] | None, only: float | None
) -> None:
    """Checks that controllers can take a β.

    Args:
        beta: The β, or None for none.
        beta_range: The range that the controllers were trained for, or None.
        only: The one β that they were trained for without a range; None if untrained.

    Raises:
        ValueError: If β is missing, superfluous or out of range.
    """
    if beta_range is None:
        if beta is not None:
            how = "are untrained" if only is None else f"were trained for {only} alone"
            raise ValueError(
                f"Expected no beta: the controllers {how}. Received: beta={beta}."
            )
        return
    low, high = beta_range
    if beta is None or not low <= beta <= high:
        raise ValueError(
            f"Expected beta from {low:g} to {high:g}, the range that the controllers "
            f"were trained for. Received: beta={beta}."
        )


def from_logits(
    logits: np.ndarray, exit_index: np.ndarray, cumulative_macs: np.ndarray
) -> Prediction:
    """Makes a `Prediction` from the logits of the exits that answered.

    Args:
        logits: float [n, classes], of each image's own exit.
        exit_index: int [n], that exit, counted from 0.
        cumulative_macs: int64 [exits], what leaving through each exit costs.

    Returns:
        The `Prediction`.
    """
    return Prediction(
        label=logits.argmax(axis=1),
        exit=exit_index + 1,
        macs=np.asarray(cumulative_macs, np.int64)[exit_index],
        probabilities=softmax(logits),
    )


def first_stop(
    stop_logits: np.ndarray, threshold: float | np.ndarray = 0.0
) -> np.ndarray:
    """The exit that the policy takes, as `epnet_tf.objective.first_stop`, in NumPy.

    Args:
        stop_logits: float [..., N − 1].
        threshold: Stop logit above which the controller stops; 0 is probability ½. One
            number, or [N − 1].

    Returns:
        int64 [...]; index of the exit, from 0; N − 1 when no controller stops.
    """
    last = np.ones((*stop_logits.shape[:-1], 1), bool)
    return np.concatenate([stop_logits > threshold, last], axis=-1).argmax(axis=-1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in NumPy: float32 in, float32 out."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


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
        exits = first_stop(self.stops)
        return from_logits(self.logits[np.arange(len(exits)), exits], exits, macs)


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
