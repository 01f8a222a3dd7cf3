"""The graph inside a .tflite model: reading it, and cutting a part out of it.

What works on a model hands the next one a `Graph`; it becomes bytes only where a
runtime, the quantizer or a file wants them.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

SIGNATURE = "serving_default"
_FILE_IDENTIFIER = b"TFL3"
# What the TFLite schema demands for constants (force_align), and what float kernels
# on ARM rely on; the generated Python writer does not see to it.
_CONSTANT_ALIGNMENT = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Operators and tensors of a .tflite model, by their indices in it.

    Attributes:
        model: The model as an object tree; not to be changed.
        inputs: The signature's inputs, name to tensor.
        outputs: The signature's outputs, name to tensor.
        source: The bytes that the graph was read from, if it was.
    """

    model: schema.ModelT
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    source: bytes | None = dataclasses.field(default=None, repr=False)

    @functools.cached_property
    def content(self) -> bytes:
        """The model as bytes: as it was read, else packed when it is first asked for.

        Constants of what is packed are inline: TFLite 2.16.1 cannot read those stored
        behind the model.
        """
        return _pack(self.model) if self.source is None else self.source

    @property
    def operators(self) -> list[schema.OperatorT]:
        """Operators in the order in which they run."""
        return self.model.subgraphs[0].operators

    @property
    def tensors(self) -> list[schema.TensorT]:
        """All tensors, constants included."""
        return self.model.subgraphs[0].tensors

    @functools.cached_property
    def producers(self) -> dict[int, int]:
        """The operator that makes each tensor; inputs and constants have none."""
        return {
            tensor: index
            for index, operator in enumerate(self.operators)
            for tensor in operator.outputs
        }

    @functools.cached_property
    def variable(self) -> set[int]:
        """The tensors whose values depend on an input of the model."""
        return self.dependents(self.inputs.values())

    def dependents(self, tensors: Iterable[int]) -> set[int]:
        """Some tensors, and all whose values depend on them."""
        found = set(tensors)
        for operator in self.operators:
            if not found.isdisjoint(operator.inputs):
                found.update(operator.outputs)
        return found

    def variable_inputs(self, operator: int) -> list[int]:
        """The tensors that an operator reads, less the constant ones."""
        return [t for t in self.operators[operator].inputs if t in self.variable]

    def ancestors(self, tensors: Iterable[int]) -> set[int]:
        """The operators that some tensors depend on."""
        found: set[int] = set()
        pending = [self.producers[t] for t in tensors if t in self.producers]
        while pending:
            operator = pending.pop()
            if operator not in found:
                found.add(operator)
                reads = self.operators[operator].inputs
                pending += [self.producers[t] for t in reads if t in self.producers]
        return found


def read(content: bytes) -> Graph:
    """Reads a .tflite model with one signature and no control flow.

    Args:
        content: The model; constants may lie in it or behind it.

    Returns:
        Its `Graph`.

    Raises:
        ValueError: If it has several subgraphs, keeps state between calls or has not
            exactly one signature.
    """
    model = flatbuffer_utils.read_model_from_bytearray(content)
    signatures = model.signatureDefs or []
    if len(model.subgraphs) != 1 or len(signatures) != 1:
        raise ValueError(
            "Expected a .tflite model with one subgraph (no loops or conditions) and "
            f"one signature. Received: {len(model.subgraphs)} subgraphs and "
            f"{len(signatures)} signatures."
        )
    state = [t.name.decode() for t in model.subgraphs[0].tensors if t.isVariable]
    if state:
        raise ValueError(
            "Expected a .tflite model without state between calls. "
            f"Received: variable tensors {state}."
        )
    return Graph(
        model=model,
        inputs={i.name.decode(): i.tensorIndex for i in signatures[0].inputs},
        outputs={o.name.decode(): o.tensorIndex for o in signatures[0].outputs},
        source=content,
    )


def extract(
    graph: Graph,
    operators: Iterable[int],
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
) -> Graph:
    """Makes a model of some operators of a graph.

    Constants that they read come along. Types, shapes and quantization stay.

    Args:
        graph: The graph.
        operators: The operators, which run in the graph's order.
        inputs: The new model's inputs, name to tensor of `graph`.
        outputs: The new model's outputs, name to tensor of `graph`.

    Returns:
        The model, with one signature that has these names, in this order.
    """
    names = {index: name for name, index in [*inputs.items(), *outputs.items()]}
    tensors = _Renumbered(graph.tensors)
    codes = _Renumbered(graph.model.operatorCodes)
    buffers = _Renumbered(graph.model.buffers)
    # By convention buffer 0 is empty; everything that is no constant points to it.
    buffers.add_new(schema.BufferT())

    new_inputs = [tensors[index] for index in inputs.values()]
    new_operators = []
    for index in sorted(operators):
        operator = copy.copy(graph.operators[index])
        operator.opcodeIndex = codes[operator.opcodeIndex]
        operator.inputs = [t if t < 0 else tensors[t] for t in operator.inputs]
        operator.outputs = [tensors[t] for t in operator.outputs]
        new_operators.append(operator)
    new_outputs = [tensors[index] for index in outputs.values()]

    for old, tensor in tensors.items():
        constant = graph.model.buffers[tensor.buffer].data is not None
        tensor.buffer = buffers[tensor.buffer] if constant else 0
        tensor.name = names[old].encode() if old in names else tensor.name
    subgraph = schema.SubGraphT(
        tensors=tensors.new,
        inputs=new_inputs,
        outputs=new_outputs,
        operators=new_operators,
        name="main",
    )
    signature = schema.SignatureDefT(
        inputs=_tensor_maps(inputs, new_inputs),
        outputs=_tensor_maps(outputs, new_outputs),
        signatureKey=SIGNATURE,
    )
    return Graph(
        model=schema.ModelT(
            version=graph.model.version,
            operatorCodes=codes.new,
            subgraphs=[subgraph],
            buffers=[_AlignedBuffer(b.data) for b in buffers.new],
            signatureDefs=[signature],
        ),
        inputs=dict(zip(inputs, new_inputs, strict=True)),
        outputs=dict(zip(outputs, new_outputs, strict=True)),
    )


class _Renumbered:
    """Items taken from a list, numbered anew in the order of first use."""

    def __init__(self, old: list):
        self._old = old
        self._numbers: dict[int, int] = {}
        self.new: list = []

    def __getitem__(self, index: int) -> int:
        """The new number of an old item; the item is copied on first use."""
        if index not in self._numbers:
            self._numbers[index] = self.add_new(copy.copy(self._old[index]))
        return self._numbers[index]

    def add_new(self, item) -> int:
        self.new.append(item)
        return len(self.new) - 1

    def items(self) -> list[tuple[int, Any]]:
        return [(old, self.new[new]) for old, new in self._numbers.items()]


class _AlignedBuffer(schema.BufferT):
    """Constant data that starts at a multiple of `_CONSTANT_ALIGNMENT` bytes."""

    def __init__(self, data=None):
        super().__init__(None if data is None else np.frombuffer(data, np.uint8))

    def Pack(self, builder):
        if self.data is not None:
            builder.Prep(_CONSTANT_ALIGNMENT, self.data.size)
        return super().Pack(builder)


def _tensor_maps(
    names: Iterable[str], tensors: Iterable[int]
) -> list[schema.TensorMapT]:
    return [schema.TensorMapT(n, t) for n, t in zip(names, tensors, strict=True)]


def _pack(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
    return bytes(builder.Output())
