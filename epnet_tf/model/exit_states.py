"""The states of images at every exit, as arrays."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from keras import ops


@dataclasses.dataclass(frozen=True)
class ExitStates:
    """States (m_i, y_i) of images at every exit, with their labels (NumPy).

    Attributes:
        pooled: m_i of the exits that have a controller: N − 1 arrays float32
            [n, channels_i].
        logits: y_i: float32 [n, N, classes].
        labels: int [n].
    """

    pooled: tuple[np.ndarray, ...]
    logits: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    @functools.cached_property
    def predictions(self) -> np.ndarray:
        """The class that each exit names: int [n, N]."""
        return self.logits.argmax(axis=-1)

    @functools.cached_property
    def correct(self) -> np.ndarray:
        """Whether each exit names the right class: bool [n, N]."""
        return self.predictions == self.labels[:, None]

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits: float32 [n, N, classes]."""
        return np.asarray(ops.softmax(self.logits))

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The states as `ControllerTrainer` takes them in place of images."""
        exits = enumerate(self.logits.swapaxes(0, 1), 1)
        logits = {f"logits_{i:02d}": y for i, y in exits}
        return logits | {f"pooled_{i:02d}": m for i, m in enumerate(self.pooled, 1)}

    def take(self, indices) -> "ExitStates":
        """The states of some of the images.

        Args:
            indices: Index array, slice or mask over the images.

        Returns:
            Their `ExitStates`.
        """
        return ExitStates(
            tuple(m[indices] for m in self.pooled),
            self.logits[indices],
            self.labels[indices],
        )


def joined(parts: Sequence[ExitStates]) -> ExitStates:
    """The states of all parts, one after the other."""
    return ExitStates(
        tuple(np.concatenate(p) for p in zip(*(s.pooled for s in parts), strict=True)),
        np.concatenate([s.logits for s in parts]),
        np.concatenate([s.labels for s in parts]),
    )
