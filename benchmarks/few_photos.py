"""What helps controllers that learn from few photos, on a network that is frozen.

    python benchmarks/few_photos.py

The network is CIFAR-10's of `models/`, whose test images, which it was not trained on,
are the photos: 2,200 of five classes, a tenth of them for validation, the others of
these classes for the test. Main branch as it is, heads are trained on what they read of
it, computed once. The table has the benefit on test images, mean over seeds:

- "as they are": heads and controllers see the training photos themselves.
- "varied": both see them varied, in several draws (`epnet_tf.data.vary_photos`).
- "cross-fitted": as before, and controllers see what heads say of photos that these
  were not trained on.

`shipped` is what train.py would ship: controllers, or thresholds where those are better
on validation photos (`epnet_tf.experiments.shipped`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from absl import flags

import epnet_tf
from epnet_tf import cli, policies
from epnet_tf.data import vary_photos
from epnet_tf.data.sources import read_keras_dataset
from epnet_tf.experiments import shipped
from epnet_tf.experiments.config import passes_for
from epnet_tf.model import EPNet, ExitStates, state_model
from epnet_tf.model.states import joined
from epnet_tf.training import train_controllers

_MODEL = flags.DEFINE_string(
    "model", "models/cifar10/classifiers.keras", "The network, trained on CIFAR-10."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with cifar10.npz.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds to average over.", lower_bound=1)
_DRAWS = flags.DEFINE_integer("draws", 3, "Draws of varied photos.", lower_bound=1)

_CLASSES, _TRAIN, _VALIDATION = 5, 396, 44  # The latter two of each class.
_BETAS = (1.5e-7, 5e-7, 1.5e-6)  # Running all costs 3, 10 and 29 points.
_FOLDS = 4
_HEAD_STEPS, _HEAD_BATCH = 620, 64


class Read(NamedTuple):
    """What heads and controllers read of n images.

    Attributes:
        statistics: Of each exit [n, s], which its classifier reads.
        pooled: Of each exit but the last [n, c], which its controller reads.
        labels: int32 [n].
    """

    statistics: tuple[np.ndarray, ...]
    pooled: tuple[np.ndarray, ...]
    labels: np.ndarray

    def take(self, index: np.ndarray) -> "Read":
        """That of some of the images."""
        parts = (tuple(x[index] for x in part) for part in self[:2])
        return Read(*parts, self.labels[index])


def together(parts: list[Read]) -> Read:
    """That of the images of all parts."""
    statistics, pooled = (
        tuple(np.concatenate(x) for x in zip(*(part[i] for part in parts), strict=True))
        for i in (0, 1)
    )
    return Read(statistics, pooled, np.concatenate([part.labels for part in parts]))


class Heads:
    """The classifiers of a network, apart from its main branch.

    Args:
        model: The `EPNet`.
    """

    def __init__(self, model: EPNet):
        numbers = [f"{i:02d}" for i in range(1, model.num_exits + 1)]
        read = [model.get_layer(f"scaling_{n}").input for n in numbers[:-1]]
        read.append(model.get_layer(f"logits_{numbers[-1]}").input)
        states = state_model(model).output
        pooled = [states[f"pooled_{n}"] for n in numbers[:-1]]
        self._reader = keras.Model(model.input, [read, pooled])
        self._heads = keras.Model(read, [states[f"logits_{n}"] for n in numbers])
        self._untrained = self._heads.get_weights()

    def read(self, images: np.ndarray, labels: np.ndarray) -> Read:
        """Runs the main branch."""
        statistics, pooled = self._reader.predict(images, verbose=0)
        return Read(tuple(statistics), tuple(pooled), labels)

    def train(self, data: Read, seed: int) -> None:
        """Trains them from the start, by the sum of their cross-entropies."""
        keras.utils.set_random_seed(seed)
        self._heads.set_weights(self._untrained)
        steps = len(data.labels) // _HEAD_BATCH
        epochs = max(_HEAD_STEPS // steps, 1)
        decay = keras.optimizers.schedules.CosineDecay(0.05, epochs * steps)
        self._heads.compile(
            keras.optimizers.SGD(decay, momentum=0.9, weight_decay=5e-3),
            [keras.losses.SparseCategoricalCrossentropy(True) for _ in data.statistics],
        )
        self._heads.fit(
            list(data.statistics),
            [data.labels] * len(data.statistics),
            batch_size=_HEAD_BATCH,
            epochs=epochs,
            verbose=0,
        )

    def states(self, data: Read) -> ExitStates:
        """What they say."""
        logits = self._heads.predict(list(data.statistics), verbose=0)
        return ExitStates(data.pooled, np.stack(logits, axis=1), data.labels)


def splits(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """Indices of the photos to train, validate and test on, as many of each class."""
    rng = np.random.default_rng(seed)
    cuts = np.cumsum([_TRAIN, _VALIDATION])
    of_class = [
        np.split(rng.permutation(np.flatnonzero(labels == c)), cuts)
        for c in range(_CLASSES)
    ]
    return [rng.permutation(np.concatenate(x)) for x in zip(*of_class, strict=True)]


def cross_fitted(heads: Heads, data: list[Read], seed: int) -> ExitStates:
    """States of photos by heads that have not seen these, in any draw."""
    count = len(data[0].labels)
    fold = np.random.default_rng(seed).permutation(count) % _FOLDS
    parts = []
    for k in range(_FOLDS):
        heads.train(together([d.take(fold != k) for d in data]), seed)
        parts += [heads.states(d.take(fold == k)) for d in data]
    return joined(parts)


def scored(
    model: EPNet, train: ExitStates, held_out: tuple[ExitStates, ExitStates], seed: int
) -> dict[str, list[float]]:
    """Benefits on test photos, for each β, by the policy's name."""
    validation, test = held_out
    order = np.random.default_rng(seed).permutation(len(train))
    passes = passes_for(len(train))
    sweep = train_controllers(
        model, train.take(order), _BETAS, seed, epochs=passes, verbose=0
    )
    found: dict[str, list[float]] = {}
    for i, beta in enumerate(_BETAS):
        sweep.assign(i)
        better, _ = shipped.choose(model, validation, beta)
        for name, policy in (
            ("controllers", policies.epnet(model)),
            ("shipped", policies.epnet(better)),
            (
                "softmax-per-exit",
                policies.softmax_per_exit(validation, model.exit_costs, beta),
            ),
        ):
            score = policies.score(policy, test)
            found.setdefault(name, []).append(score.benefit(beta))
    return found


def contenders(
    model: EPNet, heads: Heads, read: list[Read], seed: int
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Trains and scores what is compared.

    Args:
        model: The network.
        heads: Its heads.
        read: Of all photos, as they are and in each draw.
        seed: Of splits, heads and controllers.
    """
    train, validation, test = splits(read[0].labels, seed)

    def held_out() -> tuple[ExitStates, ExitStates]:
        found = [heads.states(read[0].take(i)) for i in (validation, test)]
        return found[0], found[1]

    plain, *varied = [r.take(train) for r in read]
    heads.train(plain, seed)
    states = heads.states(plain)
    yield "as they are", scored(model, states, held_out(), seed)
    every = [plain, *varied]
    folded = cross_fitted(heads, every, seed)
    heads.train(together(every), seed)
    states = joined([heads.states(r) for r in varied])
    yield "varied", scored(model, states, held_out(), seed)
    yield "cross-fitted", scored(model, folded, held_out(), seed)


def main(_) -> None:
    """Prints the table."""
    trained = keras.saving.load_model(_MODEL.value)
    source = read_keras_dataset("cifar10", _DATA_DIR.value)
    some = source.y_test < _CLASSES
    images, labels = source.x_test[some], source.y_test[some]
    keras.utils.set_random_seed(0)
    backbone = keras.Model(trained.input, trained.exit_features[-1])
    model = epnet_tf.EPNet(backbone, _CLASSES, frozen=True)
    heads = Heads(model)
    read = [heads.read(images, labels)]
    for draw in range(_DRAWS.value):
        parts = [
            vary_photos(tf.constant(images[i : i + 1000]), [draw, i]).numpy()
            for i in range(0, len(images), 1000)
        ]
        read.append(heads.read(np.concatenate(parts), labels))
    benefits: dict[str, list[list[float]]] = {}
    for seed in range(_SEEDS.value):
        for name, found in contenders(model, heads, read, seed):
            for policy, of_betas in found.items():
                benefits.setdefault(f"{name}: {policy}", []).append(of_betas)
                shown = "".join(f"{b:9.2f}" for b in of_betas)
                print(f"seed {seed}, {name}: {policy:20}{shown}", flush=True)
    print(f"{'mean':36}" + "".join(f"{beta:>9.1e}" for beta in _BETAS))
    for name, rows in benefits.items():
        cells = "".join(f"{b:9.2f}" for b in np.mean(rows, axis=0))
        print(f"{name:36}{cells}")


if __name__ == "__main__":
    cli.run(main)
