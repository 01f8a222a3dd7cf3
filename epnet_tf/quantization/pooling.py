"""Global average pooling in int8 that every runtime rounds alike.

The int8 mean of n values is round(sum * input scale / (n * output scale)). Runtimes
multiply with different precision (XNNPACK in TFLite 2.16.1 and in LiteRT 2.3.0 differ
in the seventh digit), and where the product is nearly half-way between two integers,
they answer one step apart. Here the factor becomes p / q with an odd q, for which no
product is nearer than 1 / (2 q) to half-way.
"""

import math
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from epnet_tf.tflite.flatbuffer import Graph

# Keeps products at least about 1/250 away from half-way, twenty times the largest error
# seen, for output ranges that are about 2% wider at most.
_LEAST_Q = 100


def widen_ranges(
    ranges: dict[str, dict[str, Any]], graph: Graph
) -> dict[str, dict[str, Any]]:
    """Widens the ranges of means, such that no sum is rounded near half-way.

    Args:
        ranges: The quantizer's statistics: `min` and `max` of tensors, by their names.
        graph: The model, quantized with these ranges.

    Returns:
        The ranges to quantize the model with again.
    """
    wider = dict(ranges)
    for operator in graph.operators:
        source, mean = (
            graph.tensors[t[0]] for t in (operator.inputs, operator.outputs)
        )
        code = graph.model.operatorCodes[operator.opcodeIndex].builtinCode
        if code == schema.BuiltinOperator.MEAN and mean.type == schema.TensorType.INT8:
            values = math.prod(source.shape) / math.prod(mean.shape)
            ratio = values * mean.quantization.scale[0] / source.quantization.scale[0]
            name = mean.name.decode()
            factor = _next_odd_fraction(ratio) / ratio
            wider[name] = {key: factor * end for key, end in ranges[name].items()}
    return wider


def _next_odd_fraction(ratio: float) -> float:
    """A fraction q / p, q odd and of about `_LEAST_Q`, not below `ratio`."""
    p = math.ceil(_LEAST_Q / ratio)
    q = math.ceil(p * ratio)
    return (q + 1 - q % 2) / p
