"""Branch classifiers: what an exit sees of its feature map, and its answer (4.1.2)."""

import dataclasses

import keras
from keras import layers, ops

from epnet_tf.model.heads import Recipe

# What the layers of an exit's classifier are called, with its number behind.
LAYERS = (
    *("pool", "grid", "max", "grid_flat", "max_flat"),
    *("statistics", "scaling", "summary", "logits"),
)
# Rows and columns that a cell of the grid has at least: with fewer, late exits lose on
# CIFAR-10 what early ones gain.
_CELL = 4
# Above, heads have a layer of `rank` units: with 1,000 classes, those of 8 exits are 8%
# of MobileNetV2's parameters, which they would exceed otherwise.
_MANY_CLASSES = 100


@keras.saving.register_keras_serializable("epnet_tf")
class GridAveragePooling2D(layers.AveragePooling2D):
    """`keras.layers.AveragePooling2D` over cells side by side, as means in int8 too.

    TensorFlow Lite's int8 average pooling rounds to the steps of its input, and XNNPACK
    leaves it out, which parts the graph; a mean has steps of its own and is taken. So
    one image, as networks are converted for, has its cells brought one behind the other
    and averaged, and batches have Keras's pooling, which trains up to twenty times as
    fast. Rows and columns that fill no cell are left out. Takes 4D inputs, channels
    last.

    Args:
        pool_size: Rows and columns of a cell, or one number for both.
    """

    def __init__(self, pool_size, **kwargs):
        super().__init__(pool_size, data_format="channels_last", **kwargs)

    def call(self, inputs):
        """Averages [b, h, w, c] to [b, h // rows, w // columns, c]."""
        images, height, width, channels = inputs.shape
        if images != 1:
            return super().call(inputs)
        a, b = self.pool_size
        rows, columns = height // a, width // b
        x = inputs
        if (rows * a, columns * b) != (height, width):
            x = x[:, : rows * a, : columns * b]
        # The cells of a row lie one behind the other, then are images of their own.
        x = ops.reshape(x, (-1, a, columns, b * channels))
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, a, b, channels))
        return ops.reshape(ops.mean(x, axis=(1, 2)), (-1, rows, columns, channels))

    def get_config(self):
        """The constructor's arguments."""
        config = super().get_config()
        for key in ("strides", "padding", "data_format"):
            del config[key]
        return config


@keras.saving.register_keras_serializable("epnet_tf")
@dataclasses.dataclass(frozen=True)
class BranchClassifier(Recipe):
    """Our branch classifier: pooled statistics that tell where and how strong.

    Averages over the cells of a grid and the global maximum of each channel, scaled
    (`BatchNormalization` without weights), and one dense layer. Small maps, whose
    positions have seen most of the image, have coarser grids, and the smallest their
    global average alone. For many classes, the dense layer reads a few sums of these
    statistics: one from every statistic to every class would outweigh the network.
    Controllers see the global averages: all statistics make them no better, but dearer.

    Args:
        grid: Cells of the grid along each side, at most.
        rank: Number of these sums.
    """

    grid: int = 4
    rank: int = 24

    def __post_init__(self):
        if not (self.grid >= 1 and self.rank >= 1):
            raise ValueError(f"Expected grid and rank of 1 or more. Received: {self}.")

    def build(self, features, number: int, num_classes: int):
        """Attaches an exit's classifier to its feature map.

        Args:
            features: Symbolic feature map [b, h, w, c].
            number: The exit, from 1.
            num_classes: Number of classes.

        Returns:
            Global averages m_i [b, c], which the controller sees, and logits y_i
            [b, classes], in float32.
        """
        pooled = _global_averages(features, number)
        height, width = features.shape[1:3]
        cells = [max(1, min(self.grid, size // _CELL)) for size in (height, width)]
        statistics = pooled
        if cells != [1, 1]:
            statistics = _statistics(features, number, cells)
        scaled = layers.BatchNormalization(
            center=False, scale=False, dtype="float32", name=f"scaling_{number:02d}"
        )(statistics)
        if num_classes <= _MANY_CLASSES:
            return pooled, _logits(scaled, number, num_classes)
        summary = layers.Dense(
            self.rank, use_bias=False, dtype="float32", name=f"summary_{number:02d}"
        )(scaled)
        return pooled, _logits(summary, number, num_classes)


@keras.saving.register_keras_serializable("epnet_tf")
@dataclasses.dataclass(frozen=True)
class PaperClassifier(Recipe):
    """The paper's branch classifier: global average pooling, one dense layer (4.1.2).

    Every network's last exit, which is the network itself, has this one.
    """

    def build(self, features, number: int, num_classes: int):
        """Attaches an exit's classifier; see `BranchClassifier.build`.

        Args:
            features: Symbolic feature map [b, h, w, c], or features pooled already
                [b, c].
            number: The exit, from 1.
            num_classes: Number of classes.
        """
        x = features
        if len(x.shape) == 4:
            x = _global_averages(x, number)
        return x, _logits(x, number, num_classes)


def _global_averages(features, number: int):
    """As the features are, whatever precision and axes are the process's default."""
    return layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype=features.dtype, name=f"pool_{number:02d}"
    )(features)


def _statistics(features, number: int, cells: list[int]):
    """Averages over a grid of about so many cells, and maxima: [b, s]."""
    _, height, width, _ = features.shape
    averages = GridAveragePooling2D(
        (height // cells[0], width // cells[1]),
        dtype=features.dtype,
        name=f"grid_{number:02d}",
    )(features)
    # Not a global maximum layer: older runtimes do not delegate its operator.
    maxima = layers.MaxPooling2D(
        (height, width),
        data_format="channels_last",
        dtype=features.dtype,
        name=f"max_{number:02d}",
    )(features)
    flat = [
        layers.Flatten("channels_last", dtype=part.dtype, name=f"{name}_{number:02d}")(
            part
        )
        for name, part in (("grid_flat", averages), ("max_flat", maxima))
    ]
    name = f"statistics_{number:02d}"
    return layers.Concatenate(dtype="float32", name=name)(flat)


def _logits(x, number: int, num_classes: int):
    """The dense layer: in float32 in every precision, as confidences need it."""
    return layers.Dense(num_classes, dtype="float32", name=f"logits_{number:02d}")(x)
