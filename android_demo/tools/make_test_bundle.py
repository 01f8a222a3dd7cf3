"""Make the small bundle whose controllers take beta, for the engine's tests.

    python android_demo/tools/make_test_bundle.py

writes engine/src/jvmTest/resources/bundles/beta-range: a tiny network, trained for
seconds on the embedded digits, with images, betas and Python's answers for them.
"""

import pathlib

import answers
import keras
from keras import layers

import epnet_tf
from epnet_tf.conversion.convert import convert
from epnet_tf.data import load_dataset

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


def main() -> None:
    """Train, convert, and write the answers beside the bundle."""
    keras.utils.set_random_seed(0)
    dataset = load_dataset("digits")
    convert(trained(dataset), dataset.train.images[:50], BUNDLE, overwrite=True)
    answers.write_answers(BUNDLE, dataset.test.images[:IMAGES], BETAS, MAX_EXIT)


if __name__ == "__main__":
    main()
