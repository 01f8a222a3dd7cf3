"""What an early exit answers: the same for the Keras model and for segments."""

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


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in NumPy: float32 in, float32 out."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
