"""Make the small bundle whose controllers take beta, for the engine's tests.

    python android_demo/tools/make_test_bundle.py

writes engine/src/jvmTest/resources/bundles/beta-range: a tiny network, trained for
seconds on the embedded digits, with images, betas and Python's answers for them.
"""

import json
import pathlib

import keras
import networks
import numpy as np
from keras import layers

import epnet_tf
from epnet_tf.conversion.convert import convert
from epnet_tf.data import load_dataset
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.runner import SegmentRunner

DEMO = pathlib.Path(__file__).resolve().parents[1]
BUNDLE = DEMO / "engine/src/jvmTest/resources/bundles/beta-range"
BETA_RANGE = (1e-6, 1e-3)
IMAGES = 200
# Positions of the app's control for beta, which has twenty even steps.
MAX_EXIT = 2
BETAS = [1e-6 * 1e3 ** (step / 20) for step in (0, 10, 15, 20)]


def backbone(shape: tuple[int, int, int]) -> keras.Model:
    """Three small convolutions."""
    image = x = keras.Input(shape)
    for filters in (8, 16, 16):
        x = layers.Conv2D(filters, 3, strides=2, activation="relu")(x)
    return keras.Model(image, x)


def trained(dataset) -> epnet_tf.EPNet:
    """A model whose controllers take beta."""
    train = dataset.train
    model = epnet_tf.EPNet(
        backbone(train.images.shape[1:]),
        num_classes=len(dataset.labels),
        preprocessing=layers.Rescaling(1 / 255),
        beta_range=BETA_RANGE,
    )
    classifiers = epnet_tf.ClassifierTrainer(model)
    classifiers.compile(optimizer="adam")
    classifiers.fit(train.images, train.labels, epochs=8, verbose=0)
    controllers = epnet_tf.ControllerTrainer(model)
    controllers.compile(optimizer="adam")
    controllers.fit(train.images, train.labels, epochs=8, verbose=0)
    return model


def write_answers(images: np.ndarray) -> None:
    """Writes images and Python's answers for each beta, also at `MAX_EXIT` at most."""
    (BUNDLE / "images.bin").write_bytes(images.tobytes())
    manifest = json.loads((BUNDLE / "epnet.json").read_text())
    segments = [(BUNDLE / s["file"]).read_bytes() for s in manifest["segments"]]
    whole = LiteRTModel(networks.whole_model(networks.join(segments)))
    runner = SegmentRunner(BUNDLE)
    free, limited = [], []
    for beta in BETAS:
        exits = runner.predict(images, beta=beta).exit
        value = np.float32([[beta]])
        free.append(networks.answers_at(whole, images, exits, beta=value))
        exits = np.minimum(exits, MAX_EXIT)
        limited.append(networks.answers_at(whole, images, exits, beta=value))
    answers = {"betas": BETAS} | by_key(free)
    answers |= {"max_exit": MAX_EXIT, "limited": by_key(limited)}
    (BUNDLE / "answers.json").write_text(json.dumps(answers) + "\n")
    print("mean exit at each beta:", [float(np.mean(a["exits"])) for a in free])


def by_key(answers: list[dict[str, list]]) -> dict[str, list]:
    """The answers for each beta, as lists by what they are."""
    return {key: [a[key] for a in answers] for key in answers[0]}


def main() -> None:
    """Train, convert, and write the answers beside the bundle."""
    keras.utils.set_random_seed(0)
    dataset = load_dataset("digits")
    convert(trained(dataset), dataset.train.images[:50], BUNDLE, overwrite=True)
    write_answers(dataset.test.images[:IMAGES])


if __name__ == "__main__":
    main()
