"""Classifies image files with a bundle, and says where each one stopped.

python -m epnet_tf.run BUNDLE IMAGE.png ...

Instead of the bundle, the model.tflite that is in it will do.
"""

import pathlib
import time

import numpy as np
from absl import flags

from epnet_tf import cli
from epnet_tf.runtime import units
from epnet_tf.runtime.images import read_image
from epnet_tf.runtime.runner import SegmentRunner


def describe(runner: SegmentRunner, image: np.ndarray, beta: float | None) -> str:
    """Classifies one image.

    Args:
        runner: An open bundle.
        image: As from `epnet_tf.runtime.images.read_image`.
        beta: As in `SegmentRunner.predict`.

    Returns:
        A line: label, probability, exit, MACs, what the exit costs in the bundle's
        unit, if that is another, share of the full network, time.
    """
    # Opening segments is not part of the time.
    runner.predict(image[np.newaxis], beta)
    start = time.perf_counter()
    answer = runner.predict(image[np.newaxis], beta)
    milliseconds = 1e3 * (time.perf_counter() - start)
    manifest = runner.manifest
    paid, unit = float(manifest.paid[answer.exit[0] - 1]), manifest.paid_unit
    costs = "" if unit == units.MACS else f"  costs {units.shown(paid, unit)}"
    return (
        f"{manifest.labels[answer.label[0]]:12s}"
        f"{answer.probabilities[0].max():7.1%}"
        f"  exit {answer.exit[0]}/{len(manifest.exits)}"
        f"  {answer.macs[0] / 1e6:.2f} M MACs{costs}"
        f"  {paid / manifest.paid_in_full:.0%} of full"
        f"  {milliseconds:.2f} ms"
    )


def main(arguments: list[str]) -> None:
    """Reads all images first, so that a wrong one is told before any answer."""
    _, bundle_dir, *paths = arguments
    runner = SegmentRunner(bundle_dir)
    shape, crop = runner.manifest.input.shape[1:], runner.manifest.crops
    images = [read_image(path, shape, crop) for path in paths]
    width = max(len(pathlib.Path(path).name) for path in paths)
    for path, image in zip(paths, images, strict=True):
        line = describe(runner, image, flags.FLAGS.beta)
        print(f"{pathlib.Path(path).name:{width}s}  {line}")


if __name__ == "__main__":
    flags.DEFINE_float("beta", None, "For bundles whose controllers take it.")
    cli.run(main, positional="BUNDLE IMAGE...")
