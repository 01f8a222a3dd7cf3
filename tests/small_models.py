"""Models and states small enough to train in a test."""

import keras
import numpy as np
from keras import layers

import epnet_tf
from epnet_tf.model import backbones
from epnet_tf.model.cost import ExitCosts


def small_backbone(shape=(12, 12, 1), widths=(4, 8, 8)):
    """A residual network of the paper's kind; exits after 2 convolutions per width."""
    return backbones._resnet("small", shape, widths)


def small_epnet(num_classes=3, exits=("block1_relu1", "block2_relu1"), **kwargs):
    """Three exits on a small residual network, images divided by 255 within."""
    keras.utils.set_random_seed(0)
    kwargs.setdefault("controller", epnet_tf.Controller(units=8, dropout=0.0))
    return epnet_tf.EPNet(
        small_backbone(),
        num_classes,
        exits=list(exits),
        preprocessing=layers.Rescaling(1 / 255),
        **kwargs,
    )


def small_images(count=48, num_classes=3, seed=0):
    """Images whose brightness tells their class: raw pixels, int labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    noise = rng.integers(0, 60, (count, 12, 12, 1))
    return (noise + 90 * labels[:, None, None, None]).astype("uint8"), labels


def branching_backbone():
    """Parallel branches of separable, grouped and dilated convolutions, joined."""
    image = keras.Input((16, 16, 3), name="picture")
    stem = layers.Conv2D(8, 3, activation="relu", padding="same", name="stem")(image)
    a = layers.SeparableConv2D(8, 3, padding="same", name="separable")(stem)
    a = layers.ReLU(name="separable_relu")(a)
    b = layers.Conv2D(8, 3, padding="same", groups=4, use_bias=False, name="grouped")(
        stem
    )
    b = layers.BatchNormalization(name="grouped_bn")(b)
    b = layers.LeakyReLU(name="grouped_relu")(b)
    c = layers.Conv2D(8, 3, padding="same", dilation_rate=2, name="dilated")(stem)
    x = layers.Concatenate(name="join")([a, b, c])
    x = layers.Conv2D(16, 3, strides=2, activation="gelu", name="last")(x)
    return keras.Model(image, x, name="branching")


def costing(full, unit="macs"):
    """The costs of a network of one exit."""
    return ExitCosts(*3 * [np.array([full])], unit)


def feeds(images, dtype=np.float32):
    """What a .tflite model is given: images one by one."""
    return [{"image": image[np.newaxis].astype(dtype)} for image in images]
