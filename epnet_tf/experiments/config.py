"""What an experiment's results depend on."""

import dataclasses
import json
from collections.abc import Mapping

from epnet_tf import data, objective


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the two stages are trained on one data set.

    Attributes:
        backbone: Name of the main branch, or a .keras file with a headless or
            classifying functional model.
        epochs: Epochs of stage one; the learning rate of SGD with momentum 0.9 rises
            during the first and falls to 0 along a half cosine.
        batch_size: Images in a batch of stage one.
        learning_rate: Highest learning rate of stage one.
        weight_decay: Decoupled, stage one; L2 regularization of a tenth of it has the
            same pull.
        controller_epochs: Passes over the cached states in stage two.
        recompose: Whether stage one composes its training images anew in each epoch,
            from the same training digits or garments (of data sets that can).
        exit_weight_power: Stage one weighs the cross-entropy of exit i by i to this
            power; 0 is the paper's plain sum (4.3).
    """

    backbone: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    controller_epochs: int
    recompose: bool = False
    exit_weight_power: float = 0.0


# Batch size and learning rate are the paper's (5.3) on its data sets; the epochs are
# what two cores do in an hour or two.
SCHEDULES = {
    "digits": Schedule("resnet10", 12, 64, 0.05, 5e-3, 20),
    "maxmin": Schedule("resnet12", 30, 64, 0.1, 1e-3, 8, recompose=True),
    "multiscale": Schedule("resnet12", 40, 128, 0.1, 1e-3, 8, recompose=True),
    "cifar10": Schedule("resnet10", 100, 128, 0.1, 5e-3, 8),
    "npz": Schedule("resnet10", 30, 64, 0.05, 5e-3, 8),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All that an experiment's results depend on.

    Attributes:
        dataset: A name, or a user's own files (see `epnet_tf.data.load_dataset`).
        schedule: How to train.
        betas: Cost sensitivities, percentage points per MAC; one set of controllers
            for each.
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

    def __post_init__(self):
        for beta in self.betas:
            objective.check_beta(beta)
        if self.beta_range is None:
            return
        low, high = self.beta_range
        if not all(low <= beta <= high for beta in self.betas):
            raise ValueError(
                f"Expected betas from {low:g} to {high:g}, within the range. "
                f"Received: betas={list(self.betas)}."
            )

    def as_json(self) -> dict:
        """The configuration as it stands in `config.json`."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def completed(settings: Mapping) -> dict:
    """Settings from a `config.json` of before there were some of the choices."""
    fields = dataclasses.fields(Config)
    defaults = {
        f.name: f.default for f in fields if f.default is not dataclasses.MISSING
    }
    return {**json.loads(json.dumps(defaults)), **settings}


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


def schedule_for(dataset: str, **changes) -> Schedule:
    """The default schedule of a data set, with changes.

    Args:
        dataset: A name, or a user's own files.
        **changes: Fields of `Schedule`; None leaves the default.
    """
    known = {k: v for k, v in changes.items() if v is not None}
    return dataclasses.replace(SCHEDULES.get(dataset, SCHEDULES["npz"]), **known)
