"""Ranges of feature maps in which int8 comes nearest to them.

A feature map's largest values are rare, and several times what most are. A range that
holds them all gives the others a few of the 256 steps. Where the range is cut, rare
values are clipped and all others rounded finer; here it is cut where both together cost
least, in squares, on calibration images. At the end of a residual branch, only what is
left of an error behind the sum and its ReLU counts: most of such a range is below zero.
"""

import math
from collections.abc import Iterable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from epnet_tf.quantization.recipes import Calibration
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.tflite import flatbuffer
from epnet_tf.tflite.flatbuffer import Graph

# Values looked at, of each feature map of each image.
_VALUES = 1000
# Shares of a range's ends that are tried.
_SHARES = np.geomspace(1.0, 0.03, 60)


def clip_ranges(
    ranges: dict[str, dict[str, np.ndarray]], graph: Graph, calibration: Calibration
) -> dict[str, dict[str, np.ndarray]]:
    """Narrows the ranges of feature maps to where int8 loses least.

    What is pooled or flat, features and logits, keeps its range: confidence is in the
    largest values.

    Args:
        ranges: From `recipes.calibrate`: `min` and `max` of tensors, by their names.
        graph: The float32 model.
        calibration: Inputs of the model.

    Returns:
        The ranges to quantize the model with.
    """
    names = {
        index: graph.tensors[index].name.decode()
        for operator in graph.operators
        for index in operator.outputs
        if _is_map(graph.tensors[index])
    }
    names = {index: name for index, name in names.items() if name in ranges}
    values = _some_values(graph, names, calibration)
    narrower = dict(ranges)
    for index, name in names.items():
        given = ranges[name]
        ends = float(np.min(given["min"])), float(np.max(given["max"]))
        summand = _rectified_with(graph, index)
        floor = -values[summand] if summand in values else -np.inf
        ends = best_range(values[index], *ends, floor)
        narrower[name] = {
            key: np.full_like(given[key], end)
            for key, end in zip(("min", "max"), ends, strict=True)
        }
    return narrower


def best_range(
    values: np.ndarray, low: float, high: float, floor: np.ndarray | float = -np.inf
) -> tuple[float, float]:
    """The range in which the mean square of int8's error is least.

    Args:
        values: float [n].
        low: Lowest value that there is.
        high: Highest value that there is.
        floor: Value below which it does not matter what a value is; float [n], or one
            for all.

    Returns:
        Lowest and highest value that int8 shall have; zero is between them, as int8
        must have it.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return low, high
    lows, highs = low * _SHARES, high * _SHARES
    # One end after the other, and again, as the best one depends on the other.
    for _ in range(3):
        before = low, high
        high = min(highs, key=lambda end: _error(values, low, end, floor))
        low = min(lows, key=lambda end: _error(values, end, high, floor))
        if (low, high) == before:
            break
    return float(low), float(high)


def _error(values: np.ndarray, low: float, high: float, floor) -> float:
    step = (high - low) / 255
    rounded = np.round(np.clip(values, low, high) / step) * step
    error = np.maximum(rounded, floor) - np.maximum(values, floor)
    return float(np.mean(np.square(error)))


def _is_map(tensor: schema.TensorT) -> bool:
    return len(tensor.shape) == 4 and math.prod(tensor.shape[1:3]) > 1


def _rectified_with(graph: Graph, tensor: int) -> int | None:
    """The tensor that is added to this one before a ReLU, if that is its only use.

    And if it has the same shape, so that both have a value at every place.
    """
    readers = [o for o in graph.operators if tensor in o.inputs]
    options = readers[0].builtinOptions if len(readers) == 1 else None
    if (
        not isinstance(options, schema.AddOptionsT)
        or options.fusedActivationFunction != schema.ActivationFunctionType.RELU
    ):
        return None
    a, b = readers[0].inputs
    if list(graph.tensors[a].shape) != list(graph.tensors[b].shape):
        return None
    return b if a == tensor else a


def _some_values(
    graph: Graph, tensors: Iterable[int], calibration: Calibration
) -> dict[int, np.ndarray]:
    """Values of some tensors, float32 [n], at equal places of tensors of one shape."""
    named = {f"tensor {index}": index for index in tensors}
    operators = graph.ancestors(named.values())
    reads = {index for i in operators for index in graph.operators[i].inputs}
    inputs = {name: index for name, index in graph.inputs.items() if index in reads}
    part = flatbuffer.extract(graph, operators, inputs, named)
    model = LiteRTModel(part.content)
    rng = np.random.default_rng(0)
    places = {
        shape: rng.integers(0, math.prod(shape), (len(calibration), _VALUES))
        for shape in sorted({tuple(graph.tensors[t].shape) for t in named.values()})
    }
    taken: dict[int, list[np.ndarray]] = {index: [] for index in named.values()}
    for number, feed in enumerate(calibration):
        for name, value in model.run(**feed).items():
            taken[named[name]].append(value.flat[places[value.shape][number]])
    return {index: np.concatenate(values) for index, values in taken.items()}
