"""What int8 loses, by the images that it is calibrated on and the way it is done.

    python benchmarks/calibration.py --model=runs/maxmin/beta-4e-07/model.keras \
        --dataset=maxmin

Prints a Markdown table: for each variant, the share of validation images on which the
int8 model leaves through the same exit and gives the same label as the float one, and
the change of the benefit; the mean over draws of the calibration images and, behind ±,
their standard deviation.
"""

from collections.abc import Callable

import numpy as np
from absl import flags
from litert_quantizer.algorithm_manager import AlgorithmName
from litert_quantizer.qtyping import TFLOperationName as Operation
from litert_quantizer.utils import qsv_utils

import epnet_tf
from epnet_tf import cli
from epnet_tf.data import Split
from epnet_tf.model import loading
from epnet_tf.quantization import clipping, modes, recipes
from epnet_tf.tflite import export, outputs
from epnet_tf.tflite.flatbuffer import Graph

_MODEL = flags.DEFINE_string("model", None, "The trained model, a .keras file.")
_DATASET = flags.DEFINE_string("dataset", None, "What it was trained on.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_SEED = flags.DEFINE_integer("seed", 0, "The data set's seed that train.py was given.")
_IMAGES = flags.DEFINE_integer("images", 2000, "Validation images.", lower_bound=1)
_DRAWS = flags.DEFINE_integer("draws", 3, "Draws of each variant.", lower_bound=1)


def main(_) -> None:
    """Quantizes with every variant and prints the table."""
    model = loading.load_model(_MODEL.value)
    dataset = epnet_tf.load_dataset(_DATASET.value, _DATA_DIR.value, _SEED.value)
    images = dataset.validation.images[: _IMAGES.value]
    labels = dataset.validation.labels[: _IMAGES.value]
    graph = export.to_tflite(model)
    costs = model.exit_costs.with_controllers
    expected = outputs.of_tflite(graph, images).answers(costs)

    def compare(quantized: Graph) -> tuple[float, float, float]:
        found = outputs.of_tflite(quantized, images).answers(costs)
        benefits = [
            100 * np.mean(answers.label == labels) - model.beta * np.mean(answers.macs)
            for answers in (expected, found)
        ]
        same_exit = 100 * np.mean(found.exit == expected.exit)
        same_label = 100 * np.mean(found.label == expected.label)
        return same_exit, same_label, benefits[1] - benefits[0]

    print("| variant | same exit, % | same label, % | benefit, points |")
    print("|---|---|---|---|")
    for name, make in VARIANTS.items():
        rows = [
            compare(make(graph, dataset.train, np.random.default_rng(seed)))
            for seed in range(_DRAWS.value)
        ]
        cells = [
            f"{mean:{sign}.2f} ± {deviation:.2f}"
            for mean, deviation, sign in zip(
                np.mean(rows, axis=0), np.std(rows, axis=0), ("", "", "+"), strict=True
            )
        ]
        print(f"| {' | '.join([name, *cells])} |", flush=True)


def variant(
    count: int = 200,
    balance: Callable[[Split], np.ndarray] | None = None,
    update: Callable = qsv_utils.min_max_update,
    clip: bool = True,
    kernels: AlgorithmName = AlgorithmName.MIN_MAX_UNIFORM_QUANT,
    in_float32: tuple[Operation, ...] = (),
) -> Callable[[Graph, Split, np.random.Generator], Graph]:
    """A way to int8.

    Args:
        count: Number of calibration images.
        balance: Gives each image's group; the groups get equal shares. None draws all
            images alike.
        update: How a range changes with another image's range.
        clip: Whether the ranges of feature maps are cut where int8 loses least.
        kernels: How the convolutions' kernels are quantized.
        in_float32: Operations that stay in float32.

    Returns:
        From the float32 model, training data and random numbers to the int8 model.
    """

    def make(graph: Graph, train: Split, rng: np.random.Generator) -> Graph:
        order = rng.permutation(len(train.images))
        if balance:
            order = order[np.argsort(_rank_in_group(balance(train)[order]))]
        feeds = [
            {"image": image[np.newaxis].astype(np.float32)}
            for image in train.images[order[:count]]
        ]
        recipe = modes.int8_recipe(graph)
        recipe.add_static_config(".*", Operation.CONV_2D, 8, 8, algorithm_key=kernels)
        for operation in in_float32:
            recipe.add_quantization_config(
                ".*", operation, algorithm_key=AlgorithmName.NO_QUANTIZE
            )
        ranges = recipes.calibrate(graph, recipe, feeds, update)
        if clip:
            ranges = clipping.clip_ranges(ranges, graph, feeds)
        return recipes.apply(graph, recipe, ranges)

    return make


def _rank_in_group(groups: np.ndarray) -> np.ndarray:
    """How many of the same group come before each."""
    ranks = np.empty(len(groups), int)
    for group in np.unique(groups):
        members = groups == group
        ranks[members] = np.arange(members.sum())
    return ranks


def _classes(split: Split) -> np.ndarray:
    return split.labels


def _classes_and_difficulties(split: Split) -> np.ndarray:
    if split.difficulty is None:
        return split.labels
    return split.labels * (1 + split.difficulty.max()) + split.difficulty


VARIANTS = {
    "200 images": variant(),
    "not clipped": variant(clip=False),
    "50 images": variant(50),
    "1,000 images": variant(1000),
    "balanced over classes": variant(balance=_classes),
    "over classes and difficulties": variant(balance=_classes_and_difficulties),
    "moving average, not clipped": variant(
        update=qsv_utils.moving_average_update, clip=False
    ),
    "kernels by OCTAV": variant(kernels=AlgorithmName.OCTAV),
    "kernels by MSE": variant(kernels=AlgorithmName.MSE),
    "pooling in float32": variant(in_float32=(Operation.MEAN,)),
}


if __name__ == "__main__":
    flags.mark_flags_as_required(["model", "dataset"])
    cli.run(main)
