"""Multiply-adds (MACs): of a layer, of a model, and up to each exit."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np
from keras import layers

from epnet_tf.model import graph

# Their multiplications are folded into a neighbouring convolution, or are one per
# value where a convolution has hundreds; the paper counts none of them.
_FREE = (
    layers.BatchNormalization,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.Normalization,
    layers.PReLU,
    layers.UnitNormalization,
)
_CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)


@dataclasses.dataclass(frozen=True)
class ExitCosts:
    """What leaving through each exit costs, in MACs.

    A policy pays for all that runs until its exit has answered.

    Attributes:
        with_controllers: int64 [N]; every classifier and controller on the way
            runs (EPNet).
        with_classifiers: int64 [N]; every classifier on the way runs, no
            controller does (threshold rules).
        alone: int64 [N]; this exit's classifier only (a static exit).
    """

    with_controllers: np.ndarray
    with_classifiers: np.ndarray
    alone: np.ndarray

    @property
    def full(self) -> int:
        """The plain network with its one classifier: what "share of full" means."""
        return int(self.alone[-1])


def exit_costs(
    model: keras.Model, layer_macs: Mapping[str, int] | None = None
) -> ExitCosts:
    """Counts the MACs of leaving through each exit of a multi-exit model.

    Args:
        model: A functional model with outputs `logits_01`…, `stop_01`…; branch
            classifiers are its layers `logits_01`…, controllers `controller_01`….
        layer_macs: MACs of layers that cannot be counted, by layer name.

    Returns:
        The `ExitCosts`.

    Raises:
        ValueError: If layers with weights cannot be counted.
    """
    count = sum(name.startswith("logits_") for name in model.output)
    names = [f"logits_{i:02d}" for i in range(1, count + 1)]
    executed: dict[int, int] = {}
    classifiers = controllers = 0
    with_controllers, with_classifiers, alone = [], [], []
    for name in names:
        nodes = graph.ancestors([model.output[name]])
        macs = macs_by_node(nodes, layer_macs)
        alone.append(sum(macs.values()))
        classifier = macs.pop(id(graph.producer(model.output[name])))
        executed |= macs
        classifiers += classifier
        stop = model.output.get(name.replace("logits", "stop"))
        if stop is not None:
            node = graph.producer(stop)
            controllers += macs_by_node([node], layer_macs)[id(node)]
        with_classifiers.append(sum(executed.values()) + classifiers)
        with_controllers.append(with_classifiers[-1] + controllers)
    return ExitCosts(
        *(np.array(x, np.int64) for x in (with_controllers, with_classifiers, alone))
    )


def model_macs(
    model: keras.Model, layer_macs: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Counts the MACs of every layer of a functional model, for one image.

    Args:
        model: A functional or Sequential model with static shapes.
        layer_macs: MACs of layers that cannot be counted, by layer name.

    Returns:
        MACs by layer name, in the order in which the layers can run.

    Raises:
        ValueError: If layers with weights cannot be counted.
    """
    nodes = graph.ancestors(model.outputs)
    by_node = macs_by_node(nodes, layer_macs)
    macs: dict[str, int] = {}
    for node in nodes:
        name = node.operation.name
        macs[name] = macs.get(name, 0) + by_node[id(node)]
    return macs


def macs_by_node(
    nodes: Iterable, layer_macs: Mapping[str, int] | None = None
) -> dict[int, int]:
    """Counts the MACs of calls of layers in a model's graph, for one image.

    Args:
        nodes: Nodes of the graph (see `epnet_tf.model.graph`).
        layer_macs: MACs of layers that cannot be counted, by layer name.

    Returns:
        The number of multiply-adds by the node's `id`.

    Raises:
        ValueError: If layers have weights and are of types unknown here (all are
            named), or if a shape that counts is not static.
    """
    nodes, given = list(nodes), layer_macs or {}
    unknown = {layer.name: layer for layer in _unknown(nodes, given)}
    if unknown:
        remedy = ", ".join(f"'{name}': MACS" for name in unknown)
        found = ", ".join(
            f"'{name}' of type {type(layer).__name__} with {layer.count_params()} "
            "weights"
            for name, layer in unknown.items()
        )
        raise ValueError(
            "Expected layers whose multiply-adds can be counted (convolutions and "
            "dense layers); give the figure of any other with "
            f"layer_macs={{{remedy}}}. "
            f"Received: {'layer' if len(unknown) == 1 else 'layers'} {found}."
        )
    return {id(node): _macs(node, given) or 0 for node in nodes}


def _unknown(nodes, given) -> Iterator[layers.Layer]:
    """The layers that cannot be counted, in nested models too."""
    for node in nodes:
        layer = graph.layer_of(node)
        if graph.is_graph(layer) and _figure(node, given) is None:
            yield from _unknown(graph.ancestors(layer.outputs), given)
        elif _macs(node, given) is None:
            yield layer


def _figure(node, given) -> int | None:
    """What the user gave for a layer: by its name in the graph, or its own."""
    return given.get(node.operation.name, given.get(graph.layer_of(node).name))


def _macs(node, given) -> int | None:
    """MACs of one call of a layer; None if they cannot be counted."""
    layer, figure = graph.layer_of(node), _figure(node, given)
    if figure is not None:
        return int(figure)
    if graph.is_graph(layer):
        return sum(model_macs(layer, given).values())
    if not getattr(layer, "weights", None) or isinstance(layer, _FREE):
        return 0
    if isinstance(layer, layers.Dense):
        return math.prod(_positions(node.outputs[0], layer)) * math.prod(
            layer.kernel.shape
        )
    # Keras's separable and transposed convolutions are no subclasses of Conv*D.
    if isinstance(layer, (layers.SeparableConv1D, layers.SeparableConv2D)):
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        positions = _positions(node.outputs[0], layer)
        return math.prod(positions) * sum(math.prod(k.shape) for k in kernels)
    if isinstance(layer, _TRANSPOSED):
        positions = _positions(node.input_tensors[0], layer)
        return math.prod(positions) * math.prod(layer.kernel.shape)
    if isinstance(layer, _CONVOLUTIONS):
        positions = _positions(node.outputs[0], layer)
        return math.prod(positions) * math.prod(layer.kernel.shape)
    return 0 if _is_scale(node) else None


def _is_scale(node) -> bool:
    """Whether a layer's weights are one per channel, as a normalization's are.

    Such as ConvNeXt's LayerScale: one multiplication per value, which is free.
    """
    output = node.outputs[0].shape
    return [t.shape for t in node.input_tensors] == [output] and all(
        math.prod(weight.shape) in (1, output[-1])
        for weight in graph.layer_of(node).weights
    )


def _positions(tensor, layer) -> tuple[int, ...]:
    """The sizes of the axes that are neither batch nor channels."""
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    sizes = tensor.shape[2:] if channels_first else tensor.shape[1:-1]
    if None in sizes:
        raise ValueError(
            "Expected static image sizes, since multiply-adds depend on them. "
            f"Received: layer '{layer.name}' with shape {tensor.shape}."
        )
    return tuple(sizes)
