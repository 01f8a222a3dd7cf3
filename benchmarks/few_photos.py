"""What helps controllers that learn from few photos, on a network that is frozen.

    python benchmarks/few_photos.py

The network is CIFAR-10's of `models/`, whose test images, which it was not trained on,
are the photos: 2,200 of five classes, a tenth of them for validation, the others of
these classes for the test. Classifiers are trained as train.py trains them with
`--freeze`. The table has the benefit on test images, mean over seeds:

- "as they are": classifiers and controllers see the training photos themselves.
- "varied": both see them varied, in several draws (`epnet_tf.data.vary_photos`).
- "cross-fitted": as train.py does it, controllers see what classifiers say of photos
  that these were not trained on.

`shipped` is what train.py would ship: controllers, or thresholds where those are better
on validation photos (`epnet_tf.experiments.shipped`).
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator

import keras
import numpy as np
from absl import flags

from epnet_tf import cli, policies
from epnet_tf.data import Dataset, Split, vary_photos
from epnet_tf.data.sources import read_keras_dataset
from epnet_tf.experiments import cross_fitted, experiment, shipped
from epnet_tf.experiments.config import draws_for, passes_for
from epnet_tf.model import EPNet, ExitStates, compute_states
from epnet_tf.training import train_controllers

_MODEL = flags.DEFINE_string(
    "model", "models/cifar10/classifiers.keras", "The network, trained on CIFAR-10."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with cifar10.npz.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds to average over.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Of the classifiers.", lower_bound=1)

_CLASSES, _TRAIN, _VALIDATION = 5, 396, 44  # The latter two of each class.
_LEARNING_RATE = 0.05
_BETAS = (1.5e-7, 5e-7, 1.5e-6)  # Running all costs 3, 10 and 29 points.


def photos(data_dir: str | None, seed: int) -> Dataset:
    """CIFAR-10's test images of five classes, dealt out as many of each class."""
    source = read_keras_dataset("cifar10", data_dir)
    rng = np.random.default_rng(seed)
    of_class = [
        np.split(
            rng.permutation(np.flatnonzero(source.y_test == c)),
            np.cumsum([_TRAIN, _VALIDATION]),
        )
        for c in range(_CLASSES)
    ]
    splits = []
    for part in zip(*of_class, strict=True):
        index = rng.permutation(np.concatenate(part))
        splits.append(Split(source.x_test[index], source.y_test[index]))
    names = tuple(str(c) for c in range(_CLASSES))
    return Dataset("photos", names, *splits, augment=vary_photos)


def contenders(
    config: experiment.Config, dataset: Dataset
) -> Iterator[tuple[str, EPNet, ExitStates]]:
    """What is compared: a name, the network, and the states its controllers see."""

    def trained(dataset: Dataset) -> EPNet:
        with tempfile.TemporaryDirectory() as folder:
            return experiment.trained_classifiers(
                config, dataset, pathlib.Path(folder), verbose=0
            )

    def states(model: EPNet, split: Split) -> ExitStates:
        return compute_states(model, split.images, split.labels, verbose=0)

    plain = dataclasses.replace(dataset, augment=None)
    model = trained(plain)
    yield "as they are", model, states(model, plain.train)
    model, draws = trained(dataset), draws_for(dataset)
    yield "varied", model, states(model, dataset.unseen_draws(draws))
    yield (
        "cross-fitted",
        model,
        cross_fitted.states(model, dataset, config.schedule, draws, config.seed, 0),
    )


def scored(
    model: EPNet, train: ExitStates, dataset: Dataset, seed: int
) -> dict[str, list[float]]:
    """Benefits on test photos, for each β, by the policy's name."""
    validation, test = (
        compute_states(model, split.images, split.labels, verbose=0)
        for split in (dataset.validation, dataset.test)
    )
    sweep = train_controllers(
        model, train, _BETAS, seed, epochs=passes_for(len(train)), verbose=0
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


def main(_) -> None:
    """Prints the table."""
    trained = keras.saving.load_model(_MODEL.value)
    benefits: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        backbone = f"{folder}/backbone.keras"
        keras.Model(trained.input, trained.exit_features[-1]).save(backbone)
        schedule = experiment.schedule_for(
            "photos",
            backbone=backbone,
            epochs=_EPOCHS.value,
            learning_rate=_LEARNING_RATE,
            freeze=True,
        )
        for seed in range(_SEEDS.value):
            dataset = photos(_DATA_DIR.value, seed)
            config = experiment.Config("photos", schedule, _BETAS, seed)
            for name, model, train in contenders(config, dataset):
                found = scored(model, train, dataset, seed)
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
