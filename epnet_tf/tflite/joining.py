"""Joins a bundle's segments again, to get networks without early exits."""

from collections.abc import Iterable, Mapping

from ai_edge_litert import schema_py_generated as schema

from epnet_tf.tflite import flatbuffer
from epnet_tf.tflite.flatbuffer import Graph


def join(segments: Iterable[bytes]) -> Graph:
    """Joins segments into one graph, by the names of the tensors that cross the cuts.

    Args:
        segments: The segments' .tflite models, in the order in which they run.

    Returns:
        The graph; its inputs are those that no segment makes, its outputs all outputs.
    """
    subgraph = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[])
    model = schema.ModelT(
        version=3, operatorCodes=[], subgraphs=[subgraph], buffers=[schema.BufferT()]
    )
    inputs: dict[str, int] = {}
    made: dict[str, int] = {}
    for content in segments:
        graph = flatbuffer.read(content)
        known = {t: made[n] for n, t in graph.inputs.items() if n in made}
        known |= {t: inputs[n] for n, t in graph.inputs.items() if n in inputs}
        numbers = _append(model, graph, known)
        new = {n: numbers[t] for n, t in graph.inputs.items() if n not in made}
        inputs |= new
        made |= {name: numbers[t] for name, t in graph.outputs.items()}
    return Graph(model, inputs, made)


def _append(
    model: schema.ModelT, graph: Graph, known: Mapping[int, int]
) -> dict[int, int]:
    """Appends a graph to the model; returns the new number of each of its tensors."""
    subgraph = model.subgraphs[0]
    first_buffer, first_code = len(model.buffers), len(model.operatorCodes)
    model.buffers += graph.model.buffers
    model.operatorCodes += graph.model.operatorCodes
    numbers = dict(known)
    for index, tensor in enumerate(graph.tensors):
        if index not in known:
            numbers[index] = len(subgraph.tensors)
            tensor.buffer += first_buffer
            subgraph.tensors.append(tensor)
    for operator in graph.operators:
        operator.opcodeIndex += first_code
        operator.inputs = [t if t < 0 else numbers[t] for t in operator.inputs]
        operator.outputs = [numbers[t] for t in operator.outputs]
        subgraph.operators.append(operator)
    return numbers


def cut(graph: Graph, outputs: Iterable[str]) -> bytes:
    """The part of a graph that some of its outputs need, as a .tflite model."""
    wanted = {name: graph.outputs[name] for name in outputs}
    needed = graph.ancestors(wanted.values())
    read = {t for o in needed for t in graph.variable_inputs(o)}
    inputs = {name: t for name, t in graph.inputs.items() if t in read}
    return flatbuffer.extract(graph, needed, inputs, wanted).content
