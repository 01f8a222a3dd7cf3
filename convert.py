"""Converts a trained model to a bundle that stops early.

    python convert.py --model=runs/maxmin/beta-5e-07/model.keras --dataset=maxmin \\
        --output=runs/maxmin/bundle

A thin script over `epnet_tf.convert`. The training images calibrate the quantization,
and heads are fitted again to what the quantized main branch computes from them;
validation and test images measure the policy before and after. The whole account is
report.md in the bundle.
"""

import pathlib

from absl import flags

import epnet_tf
from epnet_tf import cli
from epnet_tf.quantization import names
from epnet_tf.runtime import bundle, units
from epnet_tf.runtime.metrics import measured

_MODEL = flags.DEFINE_string("model", None, "The trained model, a .keras file.")
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "digits, maxmin, multiscale, cifar10, FILE.npz, DIR or 'FILES*.tfrecord'.",
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_SEED = flags.DEFINE_integer("seed", 0, "The data set's seed that train.py was given.")
_CROP = flags.DEFINE_bool("crop", False, "As train.py was given, for pictures.")
_ON_BAD_IMAGE = flags.DEFINE_enum(
    "on_bad_image", "fail", ["fail", "skip"], "As train.py was given, for pictures."
)
_QUANTIZATION = flags.DEFINE_enum(
    "quantization", "int8", names.MODES, "What becomes of float32."
)
_REFIT = flags.DEFINE_bool(
    "refit",
    None,
    "Fit the heads to the quantized main branch; by default with int8, int8-full, qat.",
)
_FORMAT = flags.DEFINE_enum(
    "format", "both", bundle.CONTENTS, "Segments, one file that stops by itself."
)
_OUTPUT = flags.DEFINE_string("output", None, "The bundle's folder.")
_NAME = flags.DEFINE_string("name", None, "What the bundle is called.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the bundle in --output.")


def main(_) -> None:
    """Loads model and data, converts, prints what the conversion changed."""
    # Not before the flags are known to be right: this takes seconds.
    from epnet_tf.conversion import checks, report
    from epnet_tf.experiments import config
    from epnet_tf.model import loading
    from epnet_tf.quantization import modes

    # Nor are data read, many photos in minutes, before output and model are.
    checks.check_output(pathlib.Path(_OUTPUT.value), _OVERWRITE.value)
    config.check_as_trained(_MODEL.value, _DATASET.value, _SEED.value, _CROP.value)
    model = loading.load_epnet(_MODEL.value)
    checks.check_model(model)
    dataset = epnet_tf.load_dataset(
        _DATASET.value,
        _DATA_DIR.value,
        _SEED.value,
        model.image_shape,
        _CROP.value,
        _ON_BAD_IMAGE.value,
    )
    unseen = dataset.unseen()
    conversion = epnet_tf.convert(
        model,
        modes.calibration_sample(dataset.train.images),
        _OUTPUT.value,
        quantization=_QUANTIZATION.value,
        evaluation_data=(dataset.validation.images, dataset.validation.labels),
        test_data=(dataset.test.images, dataset.test.labels),
        training_data=(unseen.images, unseen.labels),
        refit=_REFIT.value,
        labels=dataset.labels,
        name=_NAME.value or dataset.name,
        formats=_FORMAT.value,
        overwrite=_OVERWRITE.value,
        crop=dataset.crop,
    )
    print(summary(conversion))
    print(f"\nMore in {conversion.path / report.REPORT}")


def summary(conversion) -> str:
    """A table: the policy with the Keras model and with the bundle."""
    manifest = conversion.manifest
    parts = []
    if manifest.segments:
        size = sum(entry.bytes for entry in manifest.segments)
        parts.append(f"{len(manifest.segments)} segments, {size / 1e6:.2f} MB")
    if manifest.model:
        parts.append(f"{manifest.model.file}, {manifest.model.bytes / 1e6:.2f} MB")
    lines = [f"{conversion.path}: {manifest.quantization}; {'; '.join(parts)}"]
    for name, metrics in measured(manifest.metrics).items():
        lines += ["", f"{metrics.images:,} {name} images, beta = {metrics.beta:g}"]
        lines += _rows(manifest, metrics)
    return "\n".join(lines)


def _rows(manifest, metrics) -> list[str]:
    policies = {"float": metrics.float}
    if metrics.before_refit:
        policies["before refit"] = metrics.before_refit.bundle
    policies["bundle"] = metrics.bundle
    lines = [
        f"{'':14s}{'accuracy':>10s}{'benefit':>10s}"
        f"{'mean ' + units.name(manifest.paid_unit):>12s}{'of full':>9s}"
    ]
    lines += [
        f"{name:14s}{row.accuracy:10.2%}{row.benefit:10.2f}"
        f"{units.shown(row.mean_paid, manifest.paid_unit):>12s}"
        f"{row.mean_paid / manifest.paid_in_full:9.1%}"
        for name, row in policies.items()
    ]
    return [
        *lines,
        f"float and bundle: same exit {metrics.same_exit:.1%}, "
        f"same label {metrics.same_label:.1%}, both {metrics.same_answer:.1%}",
    ]


if __name__ == "__main__":
    flags.mark_flags_as_required(["model", "dataset", "output"])
    cli.run(main)
