"""Make the small bundle for photos, for the tests of engine and app.

    python android_demo/tools/make_photo_bundle.py

writes engine/src/jvmTest/resources/bundles/corners: a tiny network, trained for
seconds, that tells in which corner a picture is brightest. It crops pictures, stops by
a threshold at each exit, and its costs are in milliseconds, which nobody measured.
answers.json holds exit and label that Python gives for pictures of the app's tests.
"""

import json
import pathlib

import keras
import numpy as np
from make_test_bundle import backbone
from make_test_pictures import PICTURES

import epnet_tf
from epnet_tf.conversion.convert import convert
from epnet_tf.runtime.cost_table import CostTable
from epnet_tf.runtime.images import read_image
from epnet_tf.runtime.runner import SegmentRunner

DEMO = pathlib.Path(__file__).resolve().parents[1]
BUNDLE = DEMO / "engine/src/jvmTest/resources/bundles/corners"
SHAPE = (24, 24, 3)
LABELS = ("upper left", "upper right", "lower left", "lower right")
FILES = ("colours.png", "colours.jpg", *(f"exif-{k}.jpg" for k in range(1, 9)))


def slopes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures that rise towards one corner, and the number of the corner."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:24j, -1:1:24j]
    corner = random.integers(len(LABELS), size=count)
    signs = np.stack([2 * (corner % 2) - 1, 2 * (corner // 2) - 1])
    steep = random.uniform(5, 60, (2, count)) * signs
    rise = steep[0, :, None, None] * x + steep[1, :, None, None] * y
    noise = random.normal(0, 25, (count, *SHAPE))
    images = 128 + rise[..., None] + noise
    return np.clip(images, 0, 255).astype(np.uint8), corner


def trained() -> epnet_tf.EPNet:
    """A model with thresholds, for costs in milliseconds."""
    images, labels = slopes(2000)
    model = epnet_tf.EPNet(
        backbone(SHAPE),
        num_classes=len(LABELS),
        preprocessing=keras.layers.Rescaling(1 / 255),
    )
    classifiers = epnet_tf.ClassifierTrainer(model)
    classifiers.compile(optimizer="adam")
    classifiers.fit(images, labels, epochs=8, verbose=0)
    model.costs = CostTable("ms", model.exit_layers, (0.1, 0.25, 0.3), 0.28)
    return model.with_thresholds([0.9, 0.8], beta=10.0)


def main() -> None:
    """Train, convert, and write what Python answers for the app's test pictures."""
    keras.utils.set_random_seed(0)
    calibration = slopes(100)[0]
    convert(
        trained(),
        calibration,
        BUNDLE,
        labels=LABELS,
        formats="segments",
        crop=True,
        overwrite=True,
    )
    images = np.stack([read_image(PICTURES / name, SHAPE, crop=True) for name in FILES])
    found = SegmentRunner(BUNDLE).predict(images)
    pairs = np.stack([found.exit, found.label], axis=-1).tolist()
    answers = dict(zip(FILES, pairs, strict=True))
    (BUNDLE / "answers.json").write_text(json.dumps(answers) + "\n")
    print(answers)


if __name__ == "__main__":
    main()
