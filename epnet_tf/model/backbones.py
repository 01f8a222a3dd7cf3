"""The paper's main branches: residual networks without stem and pooling (5.2, 5.3)."""

import keras
from keras import layers

from epnet_tf.model.normalization import FusedBatchNormalization


def resnet12(input_shape: tuple[int, int, int] = (50, 50, 1)) -> keras.Model:
    """The paper's main branch for 50×50 images: 12 convolutions, 65.3 M MACs.

    Args:
        input_shape: Height, width, channels of the images.

    Returns:
        A headless functional model: images [b, h, w, c] to features
        [b, ⌈h/8⌉, ⌈w/8⌉, 128].
    """
    return _resnet("resnet12", input_shape, widths=(32, 32, 64, 64, 128, 128))


def resnet10(input_shape: tuple[int, int, int] = (32, 32, 3)) -> keras.Model:
    """The paper's main branch for CIFAR-10: 10 convolutions, 19.4 M MACs.

    Args:
        input_shape: Height, width, channels of the images.

    Returns:
        A headless functional model: images [b, h, w, c] to features
        [b, ⌈h/8⌉, ⌈w/8⌉, 128].
    """
    return _resnet("resnet10", input_shape, widths=(32, 32, 64, 64, 128))


BACKBONES = {"resnet10": resnet10, "resnet12": resnet12}


def _resnet(name: str, input_shape, widths: tuple[int, ...]) -> keras.Model:
    """Stacks residual blocks, one per width; a new width halves the resolution."""
    images = x = keras.Input(input_shape, name="image")
    previous = None
    for block, width in enumerate(widths, start=1):
        stride = 1 if width == previous else 2
        x = _residual_block(x, width, stride, f"block{block}")
        previous = width
    return keras.Model(images, x, name=name)


def _residual_block(x, width: int, stride: int, name: str):
    """conv-BN-ReLU, conv-BN-add-ReLU; a 1×1 projection where shapes differ."""
    shortcut = x
    if stride != 1 or x.shape[-1] != width:
        shortcut = _convolution(x, width, 1, stride, f"{name}_shortcut")
    x = _convolution(x, width, 3, stride, f"{name}_conv1")
    x = FusedBatchNormalization(name=f"{name}_bn1")(x)
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _convolution(x, width, 3, 1, f"{name}_conv2")
    x = FusedBatchNormalization(name=f"{name}_bn2")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _convolution(x, width: int, kernel: int, stride: int, name: str):
    return layers.Conv2D(
        width,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
