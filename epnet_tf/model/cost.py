"""What leaving through each exit costs: multiply-adds (MACs), counted, or given."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import keras
import numpy as np
from keras import layers

from epnet_tf.model import graph
from epnet_tf.runtime import units
from epnet_tf.runtime.cost_table import CostTable

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
    """What leaving through each exit costs: in MACs, int64, or in a unit given, floats.

    A policy pays for all that runs until its exit has answered.

    Attributes:
        with_controllers: [N]; every classifier and controller on the way runs (EPNet).
        with_classifiers: [N]; every classifier on the way runs, no controller does
            (threshold rules).
        alone: [N]; this exit's classifier only (a static exit).
        unit: `macs`, `ms`, or the user's own word.
    """

    with_controllers: np.ndarray
    with_classifiers: np.ndarray
    alone: np.ndarray
    unit: str = units.MACS

    @property
    def full(self) -> int | float:
        """The plain network with its one classifier: what "share of full" means."""
        return self.alone[-1].item()


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
    every = costs_by_exits(model, layer_macs)
    count = sum(name.startswith("logits_") for name in model.output)
    return every(range(1, count + 1))


def costs_by_exits(
    model: keras.Model, layer_macs: Mapping[str, int] | None = None
) -> Callable[[Sequence[int]], ExitCosts]:
    """Prepares to count what leaving costs if the model had some of its exits only.

    Args:
        model: As in `exit_costs`.
        layer_macs: As there.

    Returns:
        Numbers of exits, from 1 and ascending, to their `ExitCosts`.

    Raises:
        ValueError: If layers with weights cannot be counted.
    """
    answers = {}
    for name in model.output:
        if name.startswith("logits_"):
            macs = macs_by_node(graph.ancestors([model.output[name]]), layer_macs)
            classifier = macs.pop(id(graph.producer(model.output[name])))
            controller, stop = 0, model.output.get(name.replace("logits", "stop"))
            if stop is not None:
                node = graph.producer(stop)
                controller = macs_by_node([node], layer_macs)[id(node)]
            answers[int(name.removeprefix("logits_"))] = macs, classifier, controller

    def costs(numbers: Sequence[int]) -> ExitCosts:
        executed: dict[int, int] = {}
        classifiers = controllers = 0
        with_controllers, with_classifiers, alone = [], [], []
        for number in numbers:
            macs, classifier, controller = answers[number]
            alone.append(sum(macs.values()) + classifier)
            executed |= macs
            classifiers += classifier
            controllers += controller
            with_classifiers.append(sum(executed.values()) + classifiers)
            with_controllers.append(with_classifiers[-1] + controllers)
        return ExitCosts(
            np.array(with_controllers, np.int64),
            np.array(with_classifiers, np.int64),
            np.array(alone, np.int64),
        )

    return costs


def given_costs(table: CostTable) -> Callable[[Sequence[int]], ExitCosts]:
    """Prepares to tell what leaving costs, if the model had some of its exits only.

    A clock sees of an exit a call and a hand-over, hardly its size. So what the exits
    take together, the whole way less the plain network, is shared evenly among them:
    an exit that is left out, or that no static exit needs, saves its share. Threshold
    rules pay as controllers do.

    Args:
        table: What leaving through each of all exits costs.

    Returns:
        Numbers of exits, from 1 and ascending, the last one among them, to their
        `ExitCosts`.
    """
    reaching = np.array(table.costs)
    number = np.arange(len(reaching))
    share = max(reaching[-1] - table.full, 0.0) / max(len(reaching) - 1, 1)
    # Where an exit takes less than its share, none is cheaper than one before it.
    alone = np.maximum.accumulate(reaching - share * number)
    alone = np.append(np.minimum(alone[:-1], table.full), table.full)

    def costs(numbers: Sequence[int]) -> ExitCosts:
        at = np.array(numbers) - 1
        left_out = at - np.arange(len(at))
        passing = np.maximum.accumulate(reaching[at] - share * left_out)
        return ExitCosts(passing, passing, alone[at], table.unit)

    return costs


def costs_with_exits(table: CostTable, names: Sequence[str]) -> CostTable:
    """What leaving would cost if a network had some of its exits only, estimated.

    Args:
        table: What leaving through each of all exits costs (see `given_costs`).
        names: Of `table.layers`, those of the exits; the last one stays anyway.

    Returns:
        The same for these exits, without `p90`.
    """
    kept = {*names, table.layers[-1]}
    numbers = [i for i, layer in enumerate(table.layers, start=1) if layer in kept]
    estimated = given_costs(table)(numbers).with_controllers
    return dataclasses.replace(
        table,
        layers=tuple(table.layers[i - 1] for i in numbers),
        costs=tuple(estimated.tolist()),
        p90=None,
    )


def check_layers(table: CostTable | None, exit_layers: Sequence[str]) -> None:
    """Checks that costs, if any, are of a network.

    Args:
        table: The costs.
        exit_layers: The layers of the network's exits.

    Raises:
        ValueError: If they are of another one.
    """
    if table is not None and table.layers != tuple(exit_layers):
        raise ValueError(
            f"Expected costs of this network's exits, after {', '.join(exit_layers)}. "
            f"Received: of exits after {', '.join(table.layers)}."
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
