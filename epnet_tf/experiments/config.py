"""What an experiment's results depend on."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from epnet_tf import data, objective
from epnet_tf.policies import budget
from epnet_tf.runtime import typed_json
from epnet_tf.runtime.cost_table import CostTable

# Written in place of a number of exits or of their names.
ALL_EXITS, CHOSEN_EXITS = "all", "auto"


def parse_exits(text: str | None) -> int | list[str] | None:
    """What `EPNet` takes as `exits`, from what is written on a command line.

    Args:
        text: A number, `all`, `auto` or `auto:NUMBER`, for which classifiers are
            trained at all exits, or names of layers with commas between; None for all.

    Raises:
        ValueError: If a number is below 2, or a name is empty.
    """
    if text in (None, ALL_EXITS) or exits_to_choose(text):
        return None
    names = [name.strip() for name in text.split(",")]
    try:
        count = int(text)
    except ValueError:
        count = None
    if not all(names) or (count is not None and count < 2):
        raise ValueError(
            f"Expected exits to be a number of at least 2, '{ALL_EXITS}', "
            f"'{CHOSEN_EXITS}', '{CHOSEN_EXITS}:NUMBER', or names of layers with "
            f"commas between. Received: '{text}'."
        )
    return names if count is None else count


def exits_to_choose(text: str | None) -> int | None:
    """How many exits are to be kept of all: 8 for `auto`, or as `auto:NUMBER` says.

    Args:
        text: As in `parse_exits`.

    Returns:
        The number, the last exit counted; None if exits are not to be chosen.

    Raises:
        ValueError: If it is no number, or below 2.
    """
    kind, separator, number = (text or "").partition(":")
    if kind != CHOSEN_EXITS:
        return None
    count = 8 if not separator else int(number) if number.isdecimal() else 0
    if count < 2:
        raise ValueError(
            f"Expected '{CHOSEN_EXITS}:NUMBER' with a number of at least 2. "
            f"Received: '{text}'."
        )
    return count


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the two stages are trained on one data set.

    Attributes:
        backbone: Name of the main branch, one of `keras.applications` among them, or a
            .keras file with a headless or classifying functional model.
        epochs: Epochs of stage one; the learning rate of SGD with momentum 0.9 rises
            during the first and falls to 0 along a half cosine.
        batch_size: Images in a batch of stage one.
        learning_rate: Highest learning rate of stage one.
        weight_decay: Decoupled, stage one; L2 regularization of a tenth of it has the
            same pull.
        controller_epochs: Passes over the cached states in stage two, over several
            draws (`draws_for`) as many times less; 0 for as many as the number of
            images asks for (`passes_for`).
        recompose: Whether stage one composes its training images anew in each epoch,
            from the same training digits or garments (of data sets that can).
        exit_weight_power: Stage one weighs the cross-entropy of exit i by i to this
            power; 0 is the paper's plain sum (4.3).
        equilibrium: Whether stage one balances the exits' gradients in the main branch
            (`epnet_tf.training.gradient_shares`).
        weights: What a network of `keras.applications` starts from: `imagenet`, `none`
            or a file; None for ImageNet's. For our own backbones, an `EPNet` in a
            .keras file to go on from, or None.
        exits: Where exits go: a number, `all`, names of layers with commas between, or
            `auto` for those of all that pay, at most 8 or as `auto:NUMBER` says; None
            for all.
        freeze: Whether stage one trains heads alone and leaves the network as it is.
        unfreeze_epochs: Epochs, after those of `freeze`, in which the network is
            fine-tuned with its batch statistics as they are.
    """

    backbone: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    controller_epochs: int
    recompose: bool = False
    exit_weight_power: float = 0.0
    equilibrium: bool = False
    weights: str | None = None
    exits: str | None = None
    freeze: bool = False
    unfreeze_epochs: int = 0

    def __post_init__(self):
        parse_exits(self.exits)
        for name in ("learning_rate", "weight_decay", "exit_weight_power"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"Expected {name} to be a finite number, 0 or above. "
                    f"Received: {value}."
                )
        if self.unfreeze_epochs and not self.freeze:
            raise ValueError(
                "Expected unfreeze_epochs with freeze: the network is frozen first. "
                f"Received: unfreeze_epochs={self.unfreeze_epochs} without freeze."
            )


# Batch size and learning rate are the paper's (5.3) on its data sets; the epochs are
# what two cores do in an hour or two.
SCHEDULES = {
    "digits": Schedule("resnet10", 12, 64, 0.05, 5e-3, 20),
    "maxmin": Schedule("resnet12", 30, 64, 0.1, 1e-3, 8, recompose=True),
    "multiscale": Schedule("resnet12", 40, 128, 0.1, 1e-3, 8, recompose=True),
    "cifar10": Schedule("resnet10", 100, 128, 0.1, 5e-3, 8),
    "npz": Schedule("resnet10", 30, 64, 0.05, 5e-3, controller_epochs=0),
}
# Of heads on a network that stays as it is: there 0.05 is less accurate, and with many
# exits and 0.1 the loss grows.
_FROZEN_LEARNING_RATE = 0.01
# Steps of 512 states: as many as `digits` has, the least of the data sets above. After
# a few dozen controllers hardly stop anyone.
_CONTROLLER_STEPS, _STATES_IN_STEP, _LEAST_PASSES = 480, 512, 8
# Of less than half as many training images, controllers see several draws.
FEW_IMAGES, _MOST_DRAWS = 10_000, 4


@dataclasses.dataclass(frozen=True)
class Config:
    """All that an experiment's results depend on.

    Attributes:
        dataset: A name, or a user's own files (see `epnet_tf.data.load_dataset`).
        schedule: How to train.
        betas: Cost sensitivities, points per unit of cost; one set of controllers
            for each. If there are none and no promises, what suits the network.
        seed: Seed of data, weights, order and augmentation.
        controller_seeds: Trainings of the controllers from as many seeds; the table
            has their mean, the first is saved.
        precision: Keras's dtype policy in stage one, such as `mixed_bfloat16`; what is
            saved is in float32 all the same.
        beta_range: If given, lowest and highest cost sensitivity of one more set of
            controllers, for every β between; the `betas` are within.
        image_size: Height and width that pictures in files are brought to.
        crop: Whether these are cropped to its proportions, or stretched.
        on_bad_image: Of pictures that cannot be read: `fail` or `skip`.
        budgets: Mean costs to promise, as `epnet_tf.policies.budget.parse` takes
            them; a β is found for each.
        accuracy_drops: Percentage points that may be lost against the full network; a
            β is found for each.
        costs: What leaving through each exit costs in another unit than MACs, for
            which controllers are trained; None counts MACs.
    """

    dataset: str
    schedule: Schedule
    betas: tuple[float, ...]
    seed: int = 0
    controller_seeds: int = 1
    precision: str = "float32"
    beta_range: tuple[float, float] | None = None
    image_size: tuple[int, int] = data.DEFAULT_SHAPE[:2]
    crop: bool = False
    on_bad_image: str = "fail"
    budgets: tuple[str, ...] = ()
    accuracy_drops: tuple[float, ...] = ()
    costs: CostTable | None = None

    def __post_init__(self):
        for beta in self.betas:
            objective.check_beta(beta)
        if len({f"{beta:g}" for beta in self.betas}) < len(set(self.betas)):
            raise ValueError(
                "Expected betas that differ in their first six digits, by which their "
                f"models' folders are named. Received: betas={list(self.betas)}."
            )
        budget.check_drops(self.accuracy_drops)
        if self.beta_range is None:
            return
        if self.budgets or self.accuracy_drops:
            raise ValueError(
                "Expected budgets and accuracy drops without a range of beta, in which "
                "evaluate.py finds it. Received: "
                f"beta_range={list(self.beta_range)}, budgets={list(self.budgets)}, "
                f"accuracy_drops={list(self.accuracy_drops)}."
            )
        low, high = self.beta_range
        if not all(low <= beta <= high for beta in self.betas):
            raise ValueError(
                f"Expected betas from {low:g} to {high:g}, within the range. "
                f"Received: betas={list(self.betas)}."
            )

    def as_json(self) -> dict:
        """The configuration as it stands in `config.json`."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def read_settings(file: str | os.PathLike) -> dict:
    """Reads the settings in a `config.json`.

    Args:
        file: The file.

    Raises:
        ValueError: If it is not of an experiment.
        OSError: If it cannot be read.
    """
    try:
        settings = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or not {"dataset", "schedule"} <= settings.keys():
        raise ValueError(
            "Expected a config.json that train.py has written. "
            f"Received: {file}, of something else."
        )
    return settings


def completed(settings: Mapping) -> dict:
    """Settings from a `config.json` of before there were some of the choices."""
    fields = dataclasses.fields(Config)
    defaults = {
        f.name: f.default for f in fields if f.default is not dataclasses.MISSING
    }
    return {**json.loads(json.dumps(defaults)), **settings}


def given_costs(settings: Mapping) -> CostTable | None:
    """The costs of an experiment, if they are not counted in MACs.

    Args:
        settings: As in `config.json`.
    """
    costs = completed(settings)["costs"]
    return None if costs is None else typed_json.decode(CostTable, costs, "costs")


def load_dataset(settings: Mapping, data_dir: str | None) -> data.Dataset:
    """The data set of an experiment.

    Args:
        settings: As in `config.json`.
        data_dir: Folder of the data sets' files (see `epnet_tf.data.load_dataset`).
    """
    settings = completed(settings)
    return data.load_dataset(
        settings["dataset"],
        data_dir,
        settings["seed"],
        (*settings["image_size"], data.DEFAULT_SHAPE[2]),
        settings["crop"],
        settings["on_bad_image"],
    )


def check_files(settings: Mapping, workdir: str | os.PathLike) -> None:
    """Checks that a user's own files are those that an experiment was begun with.

    Of others, other images are held out: some that it has learned from among them.

    Args:
        settings: As in `config.json`, which older experiments leave it open in.
        workdir: The experiment's folder, for the message.

    Raises:
        ValueError: If files were added, removed or changed.
    """
    known, found = settings.get("files"), data.fingerprint(settings["dataset"])
    if None not in (known, found) and known != found:
        raise ValueError(
            f"Expected in '{settings['dataset']}' the files that the experiment in "
            f"{workdir} was begun with: of others, other images would be held out. "
            "Received: some that were added, removed or changed since; use another "
            "--workdir."
        )


def check_as_trained(
    model: str | os.PathLike, dataset: str, seed: int, crop: bool
) -> None:
    """Checks that a data set is split as it was when a model was trained.

    Otherwise what the model has learned from would be held out to measure it on. Of a
    model without the `config.json` of its experiment, beside it or in the folder above,
    or with one for other data, nothing is known.

    Args:
        model: The model's file.
        dataset: As in `epnet_tf.data.load_dataset`, as the next two.
        seed: The seed.
        crop: Whether pictures are cropped.

    Raises:
        ValueError: If it was trained with another seed, otherwise cropped pictures, or
            other files.
    """
    for folder in pathlib.Path(model).resolve().parents[:2]:
        try:
            settings = completed(read_settings(folder / "config.json"))
        except (OSError, ValueError):  # None, or another program's.
            continue
        if not _is_same_data(settings["dataset"], dataset):
            return
        for name, value in (("seed", seed), ("crop", crop)):
            if settings[name] != value:
                raise ValueError(
                    f"Expected {name}={settings[name]}, as '{model}' was trained with: "
                    "else it would be measured on what it has learned from. "
                    f"Received: {name}={value}."
                )
        check_files(settings, folder)
        return


def _is_same_data(name: str, other: str) -> bool:
    """Whether two names are of one data set, perhaps of files spelled in two ways."""
    if name == other:
        return True
    return all(map(os.path.exists, (name, other))) and os.path.samefile(name, other)


def draws_for(dataset: data.Dataset) -> int:
    """Draws of the training images that controllers learn from.

    Args:
        dataset: The data set.

    Returns:
        1; of few images that can be varied more, up to 4.
    """
    if dataset.augment is None and dataset.recompose is None:
        return 1
    return int(np.clip(FEW_IMAGES // len(dataset.train), 1, _MOST_DRAWS))


def passes_for(count: int) -> int:
    """Passes of stage two over the states of a number of images.

    Args:
        count: Number of training images.

    Returns:
        At least 8; of few images more, as each pass is a few steps only.
    """
    steps = -(-count // _STATES_IN_STEP)
    return max(_LEAST_PASSES, -(-_CONTROLLER_STEPS // steps))


def schedule_for(dataset: str, **changes) -> Schedule:
    """The default schedule of a data set, with changes.

    Heads on a frozen network have a smaller default learning rate.

    Args:
        dataset: A name, or a user's own files.
        **changes: Fields of `Schedule`; None leaves the default.
    """
    known = {k: v for k, v in changes.items() if v is not None}
    if known.get("freeze"):
        known = {"learning_rate": _FROZEN_LEARNING_RATE} | known
    return dataclasses.replace(SCHEDULES.get(dataset, SCHEDULES["npz"]), **known)
