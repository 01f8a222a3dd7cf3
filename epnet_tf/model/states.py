"""Exit states: all that the controllers see of an image, computed once."""

import dataclasses
import functools

import keras
import numpy as np
from keras import ops

from epnet_tf.data.labels import check_labels
from epnet_tf.data.pixels import warn_of_range
from epnet_tf.model import graph


def state_model(model: keras.Model) -> keras.Model:
    """The part of an EPNet that makes the states: main branch and classifiers.

    Args:
        model: An `EPNet`; its layers are shared.

    Returns:
        Images to a dict of `pooled_01` … (m_i, none for the last exit) and
        `logits_01` … (y_i).
    """
    image = model.input["image"] if model.beta_range else model.input
    outputs = {k: v for k, v in model.output.items() if k.startswith("logits_")}
    for i in range(1, model.num_exits):
        stop = graph.producer(model.output[f"stop_{i:02d}"])
        outputs[f"pooled_{i:02d}"] = stop.input_tensors[0]
    return keras.Model(image, outputs, name="states")


def split_state_model(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The parts of `state_model`, which can run in different modes.

    Args:
        model: An `EPNet`; its layers are shared.

    Returns:
        The main branch, images to the list of what each exit reads; and the heads,
        that list to the states.
    """
    states = state_model(model)
    features = list(model.exit_features)
    return keras.Model(states.input, features), keras.Model(features, states.output)


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


def compute_states(
    model: keras.Model, images, labels, batch_size: int = 256, verbose="auto"
) -> ExitStates:
    """Runs main branch and classifiers once over images.

    Args:
        model: An `EPNet`.
        images: [n, h, w, c], raw values 0 to 255.
        labels: Whole numbers [n] or [n, 1], or one-hot [n, classes].
        batch_size: Images computed at a time.
        verbose: As in `keras.Model.predict`.

    Returns:
        The `ExitStates`.

    Raises:
        ValueError: If labels are not so, or not as many as images.
    """
    labels = check_labels(labels, model.num_classes, count=len(images))
    warn_of_range(images)
    outputs = state_model(model).predict(images, batch_size, verbose=verbose)
    exits = range(1, model.num_exits + 1)
    return ExitStates(
        tuple(outputs[f"pooled_{i:02d}"].astype("float32") for i in exits[:-1]),
        np.stack([outputs[f"logits_{i:02d}"] for i in exits], axis=1),
        labels,
    )
