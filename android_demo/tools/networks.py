"""Networks without early exits, of a bundle's segments, and their multiply-adds."""

import math

from ai_edge_litert import schema_py_generated as schema

from epnet_tf.tflite import flatbuffer
from epnet_tf.tflite.flatbuffer import Graph
from epnet_tf.tflite.joining import cut, join

__all__ = ["cut", "join", "macs", "whole_model"]

_WEIGHTED = {
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
}


def whole_model(graph: Graph) -> bytes:
    """The multi-exit model in one piece: all its logits and stop logits."""
    outputs = [n for n in graph.outputs if n.startswith(("logits_", "stop_"))]
    return cut(graph, outputs)


def macs(content: bytes) -> int:
    """Multiply-adds of a .tflite model of convolutions and fully connected layers."""
    graph = flatbuffer.read(content)
    total = 0
    for operator in graph.operators:
        code = graph.model.operatorCodes[operator.opcodeIndex].builtinCode
        if code in _WEIGHTED:
            out, height, width, channels = [
                1,
                1,
                1,
                *_shape(graph, operator.inputs[1]),
            ][-4:]
            places = math.prod(_shape(graph, operator.outputs[0])[1:-1])
            total += places * out * height * width * channels
    return total


def _shape(graph: Graph, tensor: int) -> list[int]:
    return [int(side) for side in graph.tensors[tensor].shape]
