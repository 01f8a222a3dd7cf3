"""Graphs of .tflite models, made by hand or drawn at random."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from epnet_tf.tflite import flatbuffer

SHAPE = (1, 3, 3, 2)
CLASSES = 3
Operator, Options = schema.BuiltinOperator, schema.BuiltinOptions


class GraphBuilder:
    """Writes .tflite graphs of elementwise operators, convolutions and pooling."""

    def __init__(self):
        self.buffers = [schema.BufferT()]
        self.tensors, self.operators, self.codes = [], [], []
        self.inputs: dict[str, int] = {}

    def tensor(self, shape, buffer=0, dtype=schema.TensorType.FLOAT32):
        name = f"t{len(self.tensors)}".encode()
        self.tensors.append(schema.TensorT(list(shape), dtype, buffer, name))
        return len(self.tensors) - 1

    def input(self, name, shape=SHAPE):
        self.inputs[name] = self.tensor(shape)
        return self.inputs[name]

    def constant(self, values, dtype=schema.TensorType.FLOAT32):
        values = np.asarray(values)
        self.buffers.append(schema.BufferT(np.frombuffer(values.tobytes(), np.uint8)))
        return self.tensor(values.shape, len(self.buffers) - 1, dtype)

    def operator(self, code, inputs, shape, options_type=0, options=None):
        if code not in self.codes:
            self.codes.append(code)
        output = self.tensor(shape)
        self.operators.append(
            schema.OperatorT(
                self.codes.index(code), inputs, [output], options_type, options
            )
        )
        return output

    def add(self, a, b):
        shape = self.tensors[a].shape
        options = schema.AddOptionsT()
        return self.operator(Operator.ADD, [a, b], shape, Options.AddOptions, options)

    def multiply(self, a, b):
        shape = self.tensors[a].shape
        options = schema.MulOptionsT()
        return self.operator(Operator.MUL, [a, b], shape, Options.MulOptions, options)

    def tanh(self, a):
        return self.operator(Operator.TANH, [a], self.tensors[a].shape)

    def concatenate(self, a, b):
        *space, channels = self.tensors[a].shape
        shape = (*space, channels + self.tensors[b].shape[-1])
        options = schema.ConcatenationOptionsT(axis=3)
        return self.operator(
            Operator.CONCATENATION, [a, b], shape, Options.ConcatenationOptions, options
        )

    def convolve(self, a, kernel):
        """Same padding; the kernel's shape is [outputs, height, width, inputs]."""
        outputs = kernel.shape[0]
        constants = [self.constant(kernel), self.constant(np.zeros(outputs, "f4"))]
        options = schema.Conv2DOptionsT(strideW=1, strideH=1)
        return self.operator(
            Operator.CONV_2D,
            [a, *constants],
            (*self.tensors[a].shape[:-1], outputs),
            Options.Conv2DOptions,
            options,
        )

    def convolve_depthwise(self, a, kernel):
        """Same padding; the kernel's shape is [1, height, width, channels]."""
        shape = self.tensors[a].shape
        constants = [self.constant(kernel), self.constant(np.zeros(shape[-1], "f4"))]
        options = schema.DepthwiseConv2DOptionsT(
            strideW=1, strideH=1, depthMultiplier=1
        )
        return self.operator(
            Operator.DEPTHWISE_CONV_2D,
            [a, *constants],
            shape,
            Options.DepthwiseConv2DOptions,
            options,
        )

    def pool(self, a):
        axes = self.constant(np.array([1, 2], np.int32), schema.TensorType.INT32)
        options = schema.ReducerOptionsT()
        shape = (1, self.tensors[a].shape[-1])
        return self.operator(
            Operator.MEAN, [a, axes], shape, Options.ReducerOptions, options
        )

    def mean(self, a):
        """Of all classes: [1, 1]."""
        axis = self.constant(np.array([1], np.int32), schema.TensorType.INT32)
        options = schema.ReducerOptionsT(keepDims=True)
        return self.operator(
            Operator.MEAN, [a, axis], (1, 1), Options.ReducerOptions, options
        )

    def dequantize(self, constant):
        options = schema.DequantizeOptionsT()
        return self.operator(
            Operator.DEQUANTIZE,
            [constant],
            self.tensors[constant].shape,
            Options.DequantizeOptions,
            options,
        )

    def model(self, outputs: dict[str, int]) -> schema.ModelT:
        maps = [
            [schema.TensorMapT(n, t) for n, t in names.items()]
            for names in (self.inputs, outputs)
        ]
        subgraph = schema.SubGraphT(
            self.tensors,
            list(self.inputs.values()),
            list(outputs.values()),
            self.operators,
            "main",
        )
        codes = [schema.OperatorCodeT(min(c, 127), None, 1, c) for c in self.codes]
        return schema.ModelT(
            version=3,
            operatorCodes=codes,
            subgraphs=[subgraph],
            buffers=self.buffers,
            signatureDefs=[schema.SignatureDefT(*maps, flatbuffer.SIGNATURE)],
        )

    def build(self, outputs: dict[str, int]) -> flatbuffer.Graph:
        return flatbuffer.read(pack(self.model(outputs)))


def pack(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def random_array(rng, shape=SHAPE):
    return rng.normal(size=shape).astype(np.float32)


def random_feed(g: GraphBuilder, rng) -> dict[str, np.ndarray]:
    """A value for every input."""
    return {
        name: random_array(rng, tuple(g.tensors[index].shape))
        for name, index in g.inputs.items()
    }


def random_exits(g: GraphBuilder, rng) -> dict[str, int]:
    """Draws a graph with skip and dense connections; gives its outputs."""
    made = [g.input("image")]
    # A constant, and what is computed from it, are read on both sides of cuts.
    shared = [g.constant(random_array(rng))]
    shared.append(g.tanh(shared[0]))
    flat: list[int] = [g.tanh(g.input("beta", (1, 1)))] if rng.integers(2) else []
    outputs: dict[str, int] = {}
    exits = int(rng.integers(2, 6))
    for number in range(1, exits + 1):
        for _ in range(rng.integers(1, 5)):
            made.append(random_operator(g, rng, made, shared))
        classifier = random_array(rng, (CLASSES, 1, 1, g.tensors[made[-1]].shape[-1]))
        logits = g.pool(g.convolve(made[-1], classifier))
        outputs[f"logits_{number:02d}"] = logits
        if number < exits:
            # An earlier exit's logits, or its own; and its stop logit, or beta.
            all_logits = [t for name, t in outputs.items() if name.startswith("logits")]
            stop = g.mean(g.multiply(g.tanh(logits), int(rng.choice(all_logits))))
            if flat:
                stop = g.add(stop, int(rng.choice(flat)))
            outputs[f"stop_{number:02d}"] = stop
            flat.append(stop)
    return outputs


def random_operator(g: GraphBuilder, rng, made, shared) -> int:
    """Leads on from the newest tensor, together with any earlier one."""
    newest, channels = made[-1], g.tensors[made[-1]].shape[-1]
    alike = [t for t in made + shared if g.tensors[t].shape == g.tensors[newest].shape]
    kind = rng.integers(6)
    if channels > 8 or kind == 0:
        size = int(rng.choice([1, 3]))
        width = int(rng.choice([2, 4]))
        return g.convolve(newest, random_array(rng, (width, size, size, channels)) / 4)
    if kind == 1:
        return g.convolve_depthwise(newest, random_array(rng, (1, 3, 3, channels)) / 3)
    if kind == 2:
        return g.concatenate(newest, int(rng.choice(made)))
    if kind == 3:
        return g.tanh(g.add(newest, int(rng.choice(alike))))
    combine = g.add if kind == 4 else g.multiply
    return combine(newest, int(rng.choice(alike)))
