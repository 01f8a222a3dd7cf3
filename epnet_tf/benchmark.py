"""Times a bundle against the models that it replaces, on one thread.

python -m epnet_tf.benchmark --bundle=DIR --model=FILE.keras --dataset=maxmin
"""

from absl import flags

from epnet_tf import cli


def main(_) -> None:
    """Loads bundle, model and data, and prints the table."""
    # Not before the flags are known to be right: this takes seconds.
    from epnet_tf import data
    from epnet_tf.conversion import benchmark
    from epnet_tf.model import loading
    from epnet_tf.quantization import modes

    given = flags.FLAGS
    model = loading.load_epnet(given.model)
    dataset = data.load_dataset(
        given.dataset,
        given.data_dir,
        given.seed,
        model.image_shape,
        given.crop,
        given.on_bad_image,
    )
    timings = benchmark.compare(
        model,
        given.bundle,
        modes.calibration_sample(dataset.train.images),
        (dataset.validation.images, dataset.validation.labels),
        given.beta,
        given.rounds,
    )
    print(benchmark.table(timings))


if __name__ == "__main__":
    flags.DEFINE_string("bundle", None, "The bundle.", required=True)
    flags.DEFINE_string(
        "model", None, "The .keras file that it was made from.", required=True
    )
    flags.DEFINE_string(
        "dataset",
        None,
        "digits, maxmin, multiscale, cifar10, FILE.npz, DIR or 'FILES*.tfrecord'.",
        required=True,
    )
    flags.DEFINE_string("data_dir", None, "Folder with the data sets' .npz files.")
    flags.DEFINE_integer("seed", 0, "The data set's seed that train.py was given.")
    flags.DEFINE_bool("crop", False, "As train.py was given, for pictures.")
    flags.DEFINE_enum(
        "on_bad_image", "fail", ["fail", "skip"], "As train.py was given, for pictures."
    )
    flags.DEFINE_float("beta", None, "For bundles whose controllers take it.")
    flags.DEFINE_integer(
        "rounds", 100, "In each, every contender runs ten images.", lower_bound=1
    )
    cli.run(main)
