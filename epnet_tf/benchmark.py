"""Times a bundle against the models that it replaces, on one thread.

python -m epnet_tf.benchmark --bundle=DIR --model=FILE.keras --dataset=maxmin
"""

from absl import flags

from epnet_tf import cli, data
from epnet_tf.conversion import benchmark
from epnet_tf.model import loading
from epnet_tf.quantization import modes


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
    given = flags.FLAGS
    model = loading.load_model(given.model)
    dataset = data.load_dataset(given.dataset, given.data_dir, given.seed)
    timings = benchmark.compare(
        model,
        given.bundle,
        modes.calibration_sample(dataset.train.images),
        (dataset.validation.images, dataset.validation.labels),
        given.beta,
        given.rounds,
    )
    print(table(timings))


if __name__ == "__main__":
    flags.DEFINE_string("bundle", None, "The bundle.", required=True)
    flags.DEFINE_string(
        "model", None, "The .keras file that it was made from.", required=True
    )
    flags.DEFINE_string(
        "dataset", None, "digits, maxmin, multiscale, cifar10, FILE.npz.", required=True
    )
    flags.DEFINE_string("data_dir", None, "Folder with the data sets' .npz files.")
    flags.DEFINE_integer("seed", 0, "The data set's seed that train.py was given.")
    flags.DEFINE_float("beta", None, "For bundles whose controllers take it.")
    flags.DEFINE_integer(
        "rounds", 100, "In each, every contender runs ten images.", lower_bound=1
    )
    cli.run(main)
