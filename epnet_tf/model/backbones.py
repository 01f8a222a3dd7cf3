"""Main branches: the paper's residual networks (5.2, 5.3) and others that it names.

All are headless functional models, images [b, h, w, c] to features, in the forms that
are usual for images of 32×32 to 64×64.
"""

from collections.abc import Sequence

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


def resnet18(input_shape: tuple[int, int, int] = (32, 32, 3)) -> keras.Model:
    """A residual network of 18 layers with four widths for CIFAR-10, 35 M MACs.

    The four stages of ResNet-18 (He et al.), a quarter as wide, behind a stem that
    keeps the resolution.

    Args:
        input_shape: Height, width, channels of the images.

    Returns:
        A headless functional model: images [b, h, w, c] to features
        [b, ⌈h/8⌉, ⌈w/8⌉, 128].
    """
    return resnet(18, (16, 32, 64, 128), input_shape)


def resnet20(input_shape: tuple[int, int, int] = (32, 32, 3)) -> keras.Model:
    """The residual network of 20 layers for CIFAR-10 (He et al.), 41 M MACs.

    Args:
        input_shape: Height, width, channels of the images.

    Returns:
        A headless functional model: images [b, h, w, c] to features
        [b, ⌈h/4⌉, ⌈w/4⌉, 64].
    """
    return resnet(20, input_shape=input_shape)


def resnet(
    depth: int,
    widths: Sequence[int] = (16, 32, 64),
    input_shape: tuple[int, int, int] = (32, 32, 3),
) -> keras.Model:
    """A residual network of the CIFAR form: a convolution, then blocks of two.

    Args:
        depth: Layers, the classifier among them: 2 more than twice the number of
            blocks, of which every width has as many.
        widths: Channels of the stages; each halves the resolution but the first.
        input_shape: Height, width, channels of the images.

    Returns:
        A headless functional model.

    Raises:
        ValueError: If there is no such depth.
    """
    blocks, rest = divmod(depth - 2, 2 * len(widths))
    if blocks < 1 or rest:
        raise ValueError(
            f"Expected a depth of 2 + {2 * len(widths)}n, as {len(widths)} widths have "
            f"equally many blocks of two layers. Received: depth={depth}."
        )
    images = keras.Input(input_shape, name="image")
    x = _conv_bn_relu(images, widths[0], 3, 1, "stem")
    for stage, width in enumerate(widths, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _residual_block(x, width, stride, f"stage{stage}_block{block}")
    return keras.Model(images, x, name=f"resnet{depth}")


def densenet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    units: int = 6,
    growth: int = 12,
) -> keras.Model:
    """A DenseNet of the CIFAR form (Huang et al. 2017): three blocks, depth 22.

    Args:
        input_shape: Height, width, channels of the images.
        units: Convolutions of a block; each reads all that the block has made.
        growth: Channels that each adds.

    Returns:
        A headless functional model: images [b, h, w, c] to features
        [b, ⌊h/4⌋, ⌊w/4⌋, channels].
    """
    images = keras.Input(input_shape, name="image")
    x = _convolution(images, 2 * growth, 3, 1, "stem")
    for block in range(1, 4):
        for unit in range(1, units + 1):
            name = f"block{block}_{unit}"
            made = _bn_relu(x, name)
            made = _convolution(made, growth, 3, 1, f"{name}_conv")
            x = layers.Concatenate(name=f"{name}_join")([x, made])
        if block < 3:
            name = f"transition{block}"
            x = _convolution(_bn_relu(x, name), x.shape[-1], 1, 1, f"{name}_conv")
            x = layers.AveragePooling2D(2, name=f"{name}_pool")(x)
    return keras.Model(images, _bn_relu(x, "last"), name="densenet")


def alexnet(input_shape: tuple[int, int, int] = (32, 32, 3)) -> keras.Model:
    """AlexNet (Krizhevsky et al. 2012) for small images: no strides but of pooling.

    With batch normalization in place of local response normalization, and dense layers
    of 512 units.

    Args:
        input_shape: Height, width, channels of the images.

    Returns:
        A headless functional model: images [b, h, w, c] to features [b, 512].
    """
    images = x = keras.Input(input_shape, name="image")
    plan = ((64, 5, True), (192, 5, True), (384, 3, False), (256, 3, False))
    for i, (width, kernel, is_pooled) in enumerate((*plan, (256, 3, True)), start=1):
        x = _conv_bn_relu(x, width, kernel, 1, f"conv{i}")
        if is_pooled:
            x = layers.MaxPooling2D(3, 2, padding="same", name=f"pool{i}")(x)
    x = layers.Flatten(name="flat")(x)
    for i in (6, 7):
        x = layers.Dense(512, "relu", name=f"dense{i}")(x)
        x = layers.Dropout(0.5, name=f"dropout{i}")(x)
    return keras.Model(images, x, name="alexnet")


def msdnet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int = 8,
    growth: int = 6,
) -> keras.Model:
    """A multi-scale DenseNet of the CIFAR form (Huang et al. 2018), three scales.

    Every layer adds features at each scale, made of all that earlier layers have at
    this scale and at the next finer one. After a third of the layers the finest scale
    ends, after two thirds the middle one. There is no bottleneck and no reduction.

    Args:
        input_shape: Height, width, channels of the images.
        depth: Layers; layer `n` makes `layer<n>_scale3` for an exit.
        growth: Channels that a layer adds at the finest scale; coarser ones have two
            and four times as many.

    Returns:
        A headless functional model: images [b, h, w, c] to features of the coarsest
        scale [b, ⌈h/4⌉, ⌈w/4⌉, channels].
    """
    images = keras.Input(input_shape, name="image")
    widths = [growth, 2 * growth, 4 * growth]
    x = [_conv_bn_relu(images, 2 * widths[0], 3, 1, "layer1_scale1")]
    for scale in (2, 3):
        name = f"layer1_scale{scale}"
        x.append(_conv_bn_relu(x[-1], 2 * widths[scale - 1], 3, 2, name))
    before = 0
    for layer in range(2, depth + 1):
        finest = 3 * (layer - 1) // depth
        grown = list(x)
        for scale in range(finest, 3):
            name, width = f"layer{layer}_scale{scale + 1}", widths[scale]
            made = []
            if scale > before:
                width //= 2
                made = [_conv_bn_relu(x[scale - 1], width, 3, 2, f"{name}_finer")]
            made.append(_conv_bn_relu(x[scale], width, 3, 1, f"{name}_own"))
            grown[scale] = layers.Concatenate(name=name)([x[scale], *made])
        x, before = grown, finest
    return keras.Model(images, x[-1], name="msdnet")


BACKBONES = {
    "alexnet": alexnet,
    "densenet": densenet,
    "msdnet": msdnet,
    "resnet10": resnet10,
    "resnet12": resnet12,
    "resnet18": resnet18,
    "resnet20": resnet20,
}


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


def _conv_bn_relu(x, width: int, kernel: int, stride: int, name: str):
    return _bn_relu(_convolution(x, width, kernel, stride, f"{name}_conv"), name)


def _bn_relu(x, name: str):
    x = FusedBatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


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
