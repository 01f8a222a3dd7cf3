"""Trains an EPNet in two stages and reports what its policy is worth.

    python train.py --dataset=digits --workdir=runs/digits --beta=1e-6 --beta=2e-6
    python train.py --dataset=digits --workdir=runs/digits --beta_range=5e-7,4e-6

A thin script over `epnet_tf.experiments.experiment`. Run again, it resumes.
"""

import contextlib
import math
import os

from absl import flags

from epnet_tf import cli, cluster
from epnet_tf.runtime import cost_table

_DATASET = flags.DEFINE_string(
    "dataset",
    "digits",
    "digits, maxmin, multiscale, cifar10, FILE.npz, DIR, a folder of pictures, or "
    "'FILES*.tfrecord'.",
)
_IMAGE_SIZE = flags.DEFINE_string(
    "image_size", "64", "SIDE or HEIGHTxWIDTH that pictures are brought to, in pixels."
)
_CROP = flags.DEFINE_bool(
    "crop", False, "Crop pictures to these proportions instead of stretching them."
)
_ON_BAD_IMAGE = flags.DEFINE_enum(
    "on_bad_image",
    "fail",
    ["fail", "skip"],
    "What a picture that cannot be read does: end the run, or be named and left out.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for all that is written.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder with the .npz files; default: EPNET_DATA_DIR."
)
_BETA = flags.DEFINE_multi_float(
    "beta",
    None,
    "Cost sensitivity, percentage points per multiply-add, or per unit of --costs: at "
    "1e-6 ten million are worth 10 points of accuracy. Default: both ends and the "
    "middle of --beta_range; 5e-7 and 1e-6 for the named data sets, without --costs; "
    "otherwise those at which the whole network costs 3 and 10 points.",
)
_BUDGET = flags.DEFINE_multi_string(
    "budget",
    None,
    "Instead of a beta: mean multiply-adds to promise, such as 30M, or with --costs "
    "such as 1.5ms, or a share of the full network, such as 45%.",
)
_COSTS = flags.DEFINE_string(
    "costs",
    None,
    "JSON file of what leaving through each exit costs, instead of multiply-adds: from "
    "python -m epnet_tf.measure_costs, the app's benchmark, or your own.",
)
_MAX_ACCURACY_DROP = flags.DEFINE_multi_float(
    "max_accuracy_drop",
    None,
    "Instead of a beta: points of accuracy to lose at most against the full network.",
)
_BETA_RANGE = flags.DEFINE_string(
    "beta_range",
    None,
    "LOW,HIGH: one model for every β between, beside one for each --beta.",
)
_BACKBONE = flags.DEFINE_string(
    "backbone",
    None,
    "alexnet, densenet, msdnet, resnet10, resnet12, resnet18, resnet20, a network of "
    "keras.applications such as MobileNetV3Small, or FILE.keras.",
)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Of a network of keras.applications: imagenet (default), none, or a file; of our "
    "own backbones: none (default), or classifiers.keras of a run to go on from.",
)
_FREEZE = flags.DEFINE_bool(
    "freeze", None, "Train heads alone; the network does not change by a bit."
)
_UNFREEZE_EPOCHS = flags.DEFINE_integer(
    "unfreeze_epochs",
    None,
    "Epochs of fine-tuning after those with --freeze: the whole network, a twentieth "
    "of the learning rate, batch statistics as they are.",
    lower_bound=1,
)
_EXITS = flags.DEFINE_string(
    "exits",
    None,
    "Number of exits, at the ends of blocks; or layer names with commas between; or "
    "all (default): after every convolution that is worth it; or auto: of all, at most "
    "8 that pay at the given beta, or without one at those that suit the network's "
    "size; or auto:NUMBER.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything.", lower_bound=0)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Epochs of stage one.", lower_bound=1)
_CONTROLLER_EPOCHS = flags.DEFINE_integer(
    "controller_epochs",
    None,
    "Passes over the cached states; default: 8, of few images more.",
    lower_bound=1,
)
_CONTROLLER_SEEDS = flags.DEFINE_integer(
    "controller_seeds", 1, "Trainings of the controllers to average.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images in a batch of stage one.", lower_bound=1
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    None,
    "Highest learning rate of stage one; default: 0.1 for maxmin, multiscale and "
    "cifar10, 0.05 for others, 0.01 with --freeze.",
    lower_bound=0.0,
)
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", None, "Decoupled weight decay of stage one.", lower_bound=0.0
)
_RECOMPOSE = flags.DEFINE_bool(
    "recompose",
    None,
    "Compose the training images of stage one anew in each epoch; default: on "
    "maxmin and multiscale.",
)
_EXIT_WEIGHT_POWER = flags.DEFINE_float(
    "exit_weight_power",
    None,
    "Weigh the cross-entropy of exit i by i to this power in stage one; default: 0, "
    "the paper's plain sum.",
    lower_bound=0.0,
)
_EQUILIBRIUM = flags.DEFINE_bool(
    "equilibrium",
    None,
    "In stage one, let each layer of the network follow the mean of the gradients of "
    "the exits behind it, in place of their sum.",
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
_DISTRIBUTE = flags.DEFINE_enum(
    "distribute",
    "none",
    ["none", "mirrored", "multi_worker"],
    "Devices of stage one: one, all GPUs of this host, or all of the workers in the "
    "environment variable TF_CONFIG, each started with the same command; "
    "--batch_size is that of all together.",
)


def main(_) -> None:
    """Runs the experiment that the flags describe and prints its table."""
    beta_range = _parse_range(_BETA_RANGE.value) if _BETA_RANGE.value else None
    image_size = _parse_size(_IMAGE_SIZE.value)
    if any(not beta >= 0 for beta in _BETA.value or ()):
        raise ValueError(f"Expected --beta >= 0. Received: {_BETA.value}.")
    costs = cost_table.read_costs(_COSTS.value) if _COSTS.value else None

    workers = cluster.read_tf_config() if _DISTRIBUTE.value == "multi_worker" else None

    # Not before the flags are known to be right: this takes seconds.
    import tensorflow as tf

    from epnet_tf.evaluation import curve, reports
    from epnet_tf.experiments import agreement, experiment, promised, shipped
    from epnet_tf.training.distributed import is_chief, strategy_for

    if _DATASET.value in experiment.SCHEDULES or _DATASET.value.endswith(".npz"):
        _check_no_size(_DATASET.value)
    budgets, drops = _BUDGET.value or (), _MAX_ACCURACY_DROP.value or ()
    betas = _BETA.value or ()
    if not betas and beta_range:
        betas = curve.curve_betas(beta_range, 3)
    elif not (betas or budgets or drops or costs) and (
        _DATASET.value in experiment.SCHEDULES
    ):
        betas = (5e-7, 1e-6)
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
            recompose=_RECOMPOSE.value,
            exit_weight_power=_EXIT_WEIGHT_POWER.value,
            equilibrium=_EQUILIBRIUM.value,
            weights=_WEIGHTS.value,
            exits=_EXITS.value,
            freeze=_FREEZE.value,
            unfreeze_epochs=_UNFREEZE_EPOCHS.value,
        ),
        betas=tuple(betas),
        beta_range=beta_range,
        image_size=image_size,
        crop=_CROP.value,
        on_bad_image=_ON_BAD_IMAGE.value,
        seed=_SEED.value,
        controller_seeds=_CONTROLLER_SEEDS.value,
        precision=_PRECISION.value,
        budgets=tuple(budgets),
        accuracy_drops=tuple(drops),
        costs=costs,
    )
    with contextlib.ExitStack() as running:
        team = None
        if workers is not None:
            facts = agreement.facts(config, deterministic=_DETERMINISTIC.value)
            team = running.enter_context(cluster.Team(workers, facts))
        strategy = strategy_for(_DISTRIBUTE.value)
        metrics = experiment.run(
            config, _WORKDIR.value, _DATA_DIR.value, strategy=strategy, team=team
        )
    if is_chief(strategy):
        print(reports.table(metrics))
        print(shipped.table(metrics["shipped"]))
        if "promises" in metrics:
            print(promised.table(metrics["promises"]))
        if beta_range:
            print(curve.table(metrics))
        print(f"Models and metrics.json are in {os.path.join(_WORKDIR.value, '')}")


def _check_no_size(dataset: str) -> None:
    """Refuses what only pictures in files take."""
    for name in ("image_size", "crop"):
        if flags.FLAGS[name].present and flags.FLAGS[name].value:
            raise ValueError(
                f"Expected --{name} with pictures in files alone. Received: "
                f"--{name}={flags.FLAGS[name].value} for '{dataset}', whose images "
                "have a size of their own."
            )


def _parse_range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not 0 < low < high < math.inf:
        raise ValueError(
            "Expected --beta_range=LOW,HIGH, two numbers with 0 < LOW < HIGH. "
            f"Received: '{text}'."
        )
    return low, high


def _parse_size(text: str) -> tuple[int, int]:
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ValueError(
            "Expected --image_size=SIDE or HEIGHTxWIDTH, in pixels. "
            f"Received: '{text}'."
        )
    return int(sides[0]), int(sides[-1])


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
