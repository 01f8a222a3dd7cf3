"""Small models, images and bundles that several tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
from keras import layers

import epnet_tf
from epnet_tf.tflite import export
from epnet_tf.tflite.flatbuffer import Graph

NUM_CLASSES = 4
IMAGE_SHAPE = (16, 16, 1)
BETA = 1e-5
BETA_RANGE = (1e-6, 1e-4)


def residual_backbone() -> keras.Model:
    """Two residual blocks; a cut inside a block is crossed by two tensors."""
    images = x = keras.Input(IMAGE_SHAPE)
    for block, (width, stride) in enumerate([(8, 2), (8, 1)], start=1):
        shortcut = x
        if stride > 1:
            shortcut = layers.Conv2D(width, 1, stride, name=f"shortcut{block}")(x)
        x = layers.Conv2D(width, 3, stride, "same", name=f"conv{block}a")(x)
        x = layers.BatchNormalization(name=f"bn{block}a")(x)
        x = layers.ReLU(name=f"relu{block}a")(x)
        x = layers.Conv2D(width, 3, padding="same", name=f"conv{block}b")(x)
        x = layers.Add(name=f"add{block}")([x, shortcut])
        x = layers.ReLU(name=f"relu{block}b")(x)
    return keras.Model(images, x, name="residual")


def residual_epnet(images: np.ndarray, **kwargs) -> epnet_tf.EPNet:
    """An EPNet of four exits; of the images that get to an exit, about half stop."""
    keras.utils.set_random_seed(1)
    model = epnet_tf.EPNet(
        residual_backbone(),
        NUM_CLASSES,
        exits=["relu1a", "relu1b", "relu2a"],
        controller=epnet_tf.Controller(units=8),
        preprocessing=layers.Rescaling(1 / 127.5, -1.0),
        **kwargs,
    )
    beta = float(np.sqrt(np.prod(BETA_RANGE))) if model.beta_range else None
    _scale_statistics(model, images)
    outputs = model.predict(model.with_beta(images, beta), verbose=0)
    for i in range(1, model.num_exits):
        stop = model.get_layer(f"controller_{i:02d}").get_layer("stop")
        stop.bias.assign(stop.bias - np.median(outputs[f"stop_{i:02d}"]))
    return model


def _scale_statistics(model: epnet_tf.EPNet, images: np.ndarray) -> None:
    """Scales the statistics of the exits by the images, as training does."""
    images = model.with_beta(images, BETA_RANGE[0] if model.beta_range else None)
    for i in range(1, model.num_exits):
        scaling = model.get_layer(f"scaling_{i:02d}")
        statistics = keras.Model(model.input, scaling.input).predict(images, verbose=0)
        scaling.set_weights([statistics.mean(axis=0), statistics.var(axis=0)])


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Squares of random size and brightness on noise: uint8 [60, 16, 16, 1]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (60, *IMAGE_SHAPE))
    for image in images:
        side = rng.integers(2, 14)
        image[1 : 1 + side, 1 : 1 + side] += rng.integers(60, 190)
    return images.astype(np.uint8)


@pytest.fixture(scope="session")
def labels(images) -> np.ndarray:
    """Random labels: int64 [60]."""
    return np.random.default_rng(1).integers(0, NUM_CLASSES, len(images))


@pytest.fixture(scope="session")
def epnet(images) -> epnet_tf.EPNet:
    """A residual EPNet for one β."""
    return residual_epnet(images, beta=BETA)


@pytest.fixture(scope="session")
def epnet_with_beta(images) -> epnet_tf.EPNet:
    """A residual EPNet whose controllers take β."""
    return residual_epnet(images, beta_range=BETA_RANGE)


@pytest.fixture(scope="session")
def float_tflite(epnet) -> Graph:
    """The whole residual EPNet as one float32 .tflite model."""
    return export.to_tflite(epnet)


@pytest.fixture(scope="session")
def float_bundle(epnet, images, labels, tmp_path_factory):
    """A `Conversion` of the residual EPNet, not quantized. Not to be changed."""
    return _bundle(epnet, images, labels, tmp_path_factory, "none")


@pytest.fixture(scope="session")
def int8_bundle(epnet, images, labels, tmp_path_factory):
    """A `Conversion` of the residual EPNet to int8. Not to be changed."""
    return _bundle(epnet, images, labels, tmp_path_factory, "int8")


@pytest.fixture(scope="session")
def beta_bundle(epnet_with_beta, images, labels, tmp_path_factory):
    """A `Conversion` of the EPNet whose controllers take β. Not to be changed."""
    return _bundle(epnet_with_beta, images, labels, tmp_path_factory, "int8")


def _bundle(model, images, labels, tmp_path_factory, quantization):
    return epnet_tf.convert(
        model,
        images,
        tmp_path_factory.mktemp(quantization) / "bundle",
        quantization=quantization,
        evaluation_data=(images, labels),
        labels=["zero", "one", "two", "three"],
    )
