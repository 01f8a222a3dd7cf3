"""Converts a trained model to a bundle of .tflite segments that stop early.

    python convert.py --model=runs/maxmin/beta-5e-07/model.keras --dataset=maxmin \
        --output=runs/maxmin/bundle

A thin script over `epnet_tf.convert`. The training images calibrate the quantization,
the validation images measure the policy before and after it.
"""

from absl import flags

import epnet_tf
from epnet_tf import cli
from epnet_tf.deployment import quantize

_MODEL = flags.DEFINE_string("model", None, "The trained model, a .keras file.")
_DATASET = flags.DEFINE_string(
    "dataset", None, "digits, maxmin, multiscale, cifar10 or FILE.npz."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_SEED = flags.DEFINE_integer("seed", 0, "The data set's seed that train.py was given.")
_QUANTIZATION = flags.DEFINE_string(
    "quantization", "int8", f"One of {', '.join(quantize.MODES)}."
)
_OUTPUT = flags.DEFINE_string("output", None, "The bundle's folder.")
_NAME = flags.DEFINE_string("name", None, "What the bundle is called.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the bundle in --output.")


def main(_) -> None:
    """Loads model and data, converts, prints what the conversion changed."""
    quantize.check_mode(_QUANTIZATION.value)
    model = cli.load_model(_MODEL.value)
    dataset = epnet_tf.load_dataset(_DATASET.value, _DATA_DIR.value, _SEED.value)
    conversion = epnet_tf.convert(
        model,
        quantize.calibration_sample(dataset.train.images),
        _OUTPUT.value,
        quantization=_QUANTIZATION.value,
        evaluation_data=(dataset.validation.images, dataset.validation.labels),
        labels=dataset.labels,
        name=_NAME.value or dataset.name,
        overwrite=_OVERWRITE.value,
    )
    print(summary(conversion))


def summary(conversion) -> str:
    """A table: the policy with the Keras model and with the bundle."""
    manifest = conversion.manifest
    metrics = manifest.metrics
    size = sum(entry.bytes for entry in manifest.segments)
    lines = [
        f"{conversion.path}: {len(manifest.segments)} segments, "
        f"{manifest.quantization}, {size / 1e6:.2f} MB",
        f"{'':8s}{'accuracy':>10s}{'benefit':>10s}{'mean MACs':>12s}{'of full':>9s}",
    ]
    for name, row in (("float", metrics.float), ("bundle", metrics.bundle)):
        lines.append(
            f"{name:8s}{row.accuracy:10.2%}{row.benefit:10.2f}"
            f"{row.mean_macs / 1e6:10.2f} M{row.mean_macs / manifest.full_macs:9.1%}"
        )
    lines.append(
        f"same exit {metrics.same_exit:.1%}, same label {metrics.same_label:.1%} "
        f"on {metrics.images} validation images"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    flags.mark_flags_as_required(["model", "dataset", "output"])
    cli.run(main)
