"""Trains an EPNet in two stages and reports what its policy is worth.

    python train.py --dataset=digits --workdir=runs/digits --beta=1e-6 --beta=2e-6

A thin script over `epnet_tf.training.experiment`. Run again, it resumes.
"""

import os

import tensorflow as tf
from absl import flags

from epnet_tf import cli
from epnet_tf.evaluation import reports
from epnet_tf.training import experiment

_DATASET = flags.DEFINE_string(
    "dataset", "digits", "digits, maxmin, multiscale, cifar10 or FILE.npz."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for all that is written.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder with the .npz files; default: EPNET_DATA_DIR."
)
_BETA = flags.DEFINE_multi_float(
    "beta", [5e-7, 1e-6], "Cost sensitivity, percentage points per multiply-add."
)
_BACKBONE = flags.DEFINE_string("backbone", None, "resnet10, resnet12 or FILE.keras.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything.", lower_bound=0)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Epochs of stage one.", lower_bound=1)
_CONTROLLER_EPOCHS = flags.DEFINE_integer(
    "controller_epochs", None, "Passes over the cached states.", lower_bound=1
)
_CONTROLLER_SEEDS = flags.DEFINE_integer(
    "controller_seeds", 1, "Trainings of the controllers to average.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images in a batch of stage one.", lower_bound=1
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "Highest learning rate of stage one.", lower_bound=0.0
)
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", None, "Decoupled weight decay of stage one.", lower_bound=0.0
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Precision of stage one.",
)
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "Bitwise the same results from the same seed; slower."
)


def main(_) -> None:
    """Runs the experiment that the flags describe and prints its table."""
    if any(not beta >= 0 for beta in _BETA.value):
        raise ValueError(f"Expected --beta >= 0. Received: {_BETA.value}.")
    if _DETERMINISTIC.value:
        tf.config.experimental.enable_op_determinism()
    config = experiment.Config(
        dataset=_DATASET.value,
        schedule=experiment.schedule_for(
            _DATASET.value,
            backbone=_BACKBONE.value,
            epochs=_EPOCHS.value,
            batch_size=_BATCH_SIZE.value,
            learning_rate=_LEARNING_RATE.value,
            weight_decay=_WEIGHT_DECAY.value,
            controller_epochs=_CONTROLLER_EPOCHS.value,
        ),
        betas=tuple(_BETA.value),
        seed=_SEED.value,
        controller_seeds=_CONTROLLER_SEEDS.value,
        precision=_PRECISION.value,
    )
    metrics = experiment.run(config, _WORKDIR.value, _DATA_DIR.value)
    print(reports.table(metrics))
    print(f"Models and metrics.json are in {os.path.join(_WORKDIR.value, '')}")


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
