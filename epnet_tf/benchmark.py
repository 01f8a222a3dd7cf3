"""Times a bundle against the models that it replaces, on one thread.

python -m epnet_tf.benchmark --bundle=DIR --model=FILE.keras --dataset=maxmin
"""

import keras
from absl import flags

from epnet_tf import cli, data
from epnet_tf.deployment import benchmark, quantize

_BUNDLE = flags.DEFINE_string("bundle", None, "The bundle.")
_MODEL = flags.DEFINE_string("model", None, "The .keras file that it was made from.")
_DATASET = flags.DEFINE_string(
    "dataset", None, "digits, maxmin, multiscale, cifar10 or FILE.npz."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_SEED = flags.DEFINE_integer("seed", 0, "The data set's seed that train.py was given.")
_BETA = flags.DEFINE_float("beta", None, "For bundles whose controllers take it.")
_ROUNDS = flags.DEFINE_integer(
    "rounds", 100, "Rounds; each runs every contender on ten images.", lower_bound=1
)


def table(timings: dict[str, benchmark.Timing]) -> str:
    """Lays out timings: median and spread in milliseconds, ratio to the whole model."""
    lines = [f"{'milliseconds':34s}{'median':>8s}{'10%':>8s}{'90%':>8s}{'/ whole':>9s}"]
    for name, timing in timings.items():
        runtime = name.endswith("runtime alone")
        whole = timings[benchmark.WHOLE_RUNTIME if runtime else benchmark.WHOLE]
        numbers = "".join(f"{timing.milliseconds(p):8.3f}" for p in (50, 10, 90))
        lines.append(f"{name:34s}{numbers}{timing.ratio(whole):9.3f}")
    return "\n".join(lines)


def main(_) -> None:
    """Loads bundle, model and data, and prints the table."""
    model = keras.saving.load_model(_MODEL.value)
    dataset = data.load_dataset(_DATASET.value, _DATA_DIR.value, _SEED.value)
    timings = benchmark.compare(
        model,
        _BUNDLE.value,
        quantize.calibration_sample(dataset.train.images),
        (dataset.validation.images, dataset.validation.labels),
        _BETA.value,
        _ROUNDS.value,
    )
    print(table(timings))


if __name__ == "__main__":
    flags.mark_flags_as_required(["bundle", "model", "dataset"])
    cli.run(main)
