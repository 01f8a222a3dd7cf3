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
    writer = ModelWriter(graph)
    main = writer.subgraph("main")
    main.inputs = [main.tensor(index) for index in inputs.values()]
    main.copy(operators)
    main.outputs = [main.tensor(index) for index in outputs.values()]
    return writer.finish({SIGNATURE: main.signature(inputs, outputs)})


class ModelWriter:
    """Puts a model together from operators of a graph and others, in subgraphs.

    Args:
        graph: Where operators, tensors and constants are copied from.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self._codes = _Renumbered(graph.model.operatorCodes)
        self._buffers = _Renumbered(graph.model.buffers)
        self._values: dict[bytes, int] = {}
        self._subgraphs: list[SubgraphWriter] = []
        # By convention buffer 0 is empty; everything that is no constant points to it.
        self._buffers.add_new(schema.BufferT())

    def subgraph(self, name: str) -> "SubgraphWriter":
        """Adds an empty subgraph; the first one is the main one."""
        self._subgraphs.append(SubgraphWriter(self, name, len(self._subgraphs)))
        return self._subgraphs[-1]

    def copied_code(self, index: int) -> int:
        """What an operator code of the graph is here."""
        return self._codes[index]

    def code(self, builtin: int, version: int) -> int:
        """The operator code of a builtin operator."""
        for index, code in enumerate(self._codes.new):
            if (code.builtinCode, code.version) == (builtin, version):
                return index
        # What readers from before there were more than 127 operators look at.
        old = min(builtin, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
        return self._codes.add_new(
            schema.OperatorCodeT(
                deprecatedBuiltinCode=old, builtinCode=builtin, version=version
            )
        )

    def copied_buffer(self, index: int) -> int:
        """What a buffer of the graph is here."""
        constant = self.graph.model.buffers[index].data is not None
        return self._buffers[index] if constant else 0

    def buffer(self, value: bytes) -> int:
        """A buffer with a value; whoever has the same one shares it."""
        if value not in self._values:
            data = np.frombuffer(value, np.uint8)
            self._values[value] = self._buffers.add_new(schema.BufferT(data))
        return self._values[value]

    def finish(self, signatures: Mapping[str, schema.SignatureDefT]) -> Graph:
        """Makes the model.

        Args:
            signatures: Its signatures by their keys, see `SubgraphWriter.signature`;
                the first one is the main subgraph's.

        Returns:
            The model, with inputs and outputs of the first signature.
        """
        for key, signature in signatures.items():
            signature.signatureKey = key
        main = next(iter(signatures.values()))
        return Graph(
            model=schema.ModelT(
                version=self.graph.model.version,
                operatorCodes=self._codes.new,
                subgraphs=[subgraph.finish() for subgraph in self._subgraphs],
                buffers=self._buffers.new,
                signatureDefs=list(signatures.values()),
            ),
            inputs={i.name: i.tensorIndex for i in main.inputs},
            outputs={o.name: o.tensorIndex for o in main.outputs},
        )


class SubgraphWriter:
    """Puts a subgraph together; its tensors are numbered in the order of first use.

    Attributes:
        index: Its number in the model.
        inputs: Its inputs, to be set.
        outputs: Its outputs, to be set.
    """

    def __init__(self, writer: ModelWriter, name: str, index: int):
        self.index = index
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self._name = name
        self._writer = writer
        self._tensors = _Renumbered(writer.graph.tensors)
        self._operators: list[schema.OperatorT] = []

    def tensor(self, index: int) -> int:
        """What a tensor of the graph is here; a constant one comes with its value."""
        if index not in self._tensors:
            tensor = self._tensors.new[self._tensors[index]]
            tensor.buffer = self._writer.copied_buffer(tensor.buffer)
        return self._tensors[index]

    def new(self, name: str, shape: Iterable[int], dtype: int) -> int:
        """Adds a tensor that the graph does not have; `dtype` is a `TensorType`."""
        return self._tensors.add_new(schema.TensorT(list(shape), dtype, 0, name))

    def new_like(self, name: str, index: int) -> int:
        """Adds a tensor of a shape, type and quantization that the graph has."""
        like = self._writer.graph.tensors[index]
        new = self.new(name, like.shape, like.type)
        self._tensors.new[new].quantization = like.quantization
        return new

    def constant(self, name: str, value: np.ndarray, quantization=None) -> int:
        """Adds a constant that the graph does not have."""
        dtype = getattr(schema.TensorType, value.dtype.name.upper())
        new = self.new(name, value.shape, dtype)
        tensor = self._tensors.new[new]
        tensor.buffer = self._writer.buffer(value.tobytes())
        tensor.quantization = quantization
        return new

    def copy(self, operators: Iterable[int]) -> None:
        """Adds operators of the graph, in the order in which they run there."""
        for index in sorted(operators):
            operator = copy.copy(self._writer.graph.operators[index])
            operator.opcodeIndex = self._writer.copied_code(operator.opcodeIndex)
            operator.inputs = [t if t < 0 else self.tensor(t) for t in operator.inputs]
            operator.outputs = [self.tensor(t) for t in operator.outputs]
            self._operators.append(operator)

    def operator(
        self,
        builtin: int,
        inputs: list[int],
        outputs: list[int],
        options: Any,
        version: int = 1,
    ) -> None:
        """Adds a builtin operator with its options, a class of the schema."""
        kind = type(options).__name__.removesuffix("T")
        self._operators.append(
            schema.OperatorT(
                self._writer.code(builtin, version),
                inputs,
                outputs,
                getattr(schema.BuiltinOptions, kind),
                options,
            )
        )

    def signature(
        self, inputs: Iterable[str], outputs: Iterable[str]
    ) -> schema.SignatureDefT:
        """A signature of the subgraph, whose tensors get the names it has for them."""
        maps = [
            [schema.TensorMapT(n, t) for n, t in zip(names, tensors, strict=True)]
            for names, tensors in ((inputs, self.inputs), (outputs, self.outputs))
        ]
        for named in [*maps[0], *maps[1]]:
            self._tensors.new[named.tensorIndex].name = named.name.encode()
        return schema.SignatureDefT(*maps, subgraphIndex=self.index)

    def finish(self) -> schema.SubGraphT:
        """The subgraph as it is."""
        return schema.SubGraphT(
            tensors=self._tensors.new,
            inputs=self.inputs,
            outputs=self.outputs,
            operators=self._operators,
            name=self._name,
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

    def __contains__(self, index: int) -> bool:
        return index in self._numbers


class _AlignedBuffer(schema.BufferT):
    """Constant data that starts at a multiple of `_CONSTANT_ALIGNMENT` bytes."""

    def __init__(self, data=None):
        super().__init__(None if data is None else np.frombuffer(data, np.uint8))

    def Pack(self, builder):
        if self.data is not None:
            builder.Prep(_CONSTANT_ALIGNMENT, self.data.size)
        return super().Pack(builder)


def _pack(model: schema.ModelT) -> bytes:
    aligned = copy.copy(model)
    aligned.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1024)
    builder.Finish(aligned.Pack(builder), file_identifier=_FILE_IDENTIFIER)
    return bytes(builder.Output())
