"""Where the exits go in a main branch (one after every convolution's activation)."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
from absl import logging
from keras import layers

from epnet_tf.model import graph
from epnet_tf.model.cost import macs_by_node

_CONVOLUTIONS = (
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
)
_ACTIVATION_LAYERS = (
    layers.Activation,
    layers.ELU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ReLU,
)
# `keras.activations` and `keras.ops` called on symbolic tensors leave such operations
# (lower case: the former's are `ReLU`, the latter's `Relu`).
_ACTIVATION_OPERATIONS = {
    *("relu", "relu6", "leakyrelu", "elu", "celu", "selu", "gelu", "silu", "hardsilu"),
    *("sigmoid", "hardsigmoid", "tanh", "hardtanh", "softplus", "softsign", "mish"),
}
_NORMALIZATIONS = (
    layers.BatchNormalization,
    layers.Dropout,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.SpatialDropout2D,
)
_JOINS = {"Add", "Concatenate"}


@dataclasses.dataclass(frozen=True)
class Exit:
    """A place for an exit.

    Attributes:
        layer: Name of the layer whose output feeds the exit's classifier.
        features: Its symbolic output [b, h, w, c].
    """

    layer: str
    features: keras.KerasTensor


def place_exits(
    features: keras.KerasTensor,
    exits: int | Sequence[str] | None,
    head_cost: Callable[[keras.KerasTensor], int],
    classifier_macs: int,
    layer_macs=None,
) -> list[Exit]:
    """Chooses the exits of a main branch, the last one (the network itself) excepted.

    Args:
        features: Output of the main branch, before its classifier.
        exits: None for one after every convolution, an int for about that many at
            the ends of blocks, spread evenly over the MACs and with the last one
            counted, or names of layers.
        head_cost: MACs of classifier and controller on a feature map.
        classifier_macs: MACs of the network's own classifier.
        layer_macs: MACs of layers that cannot be counted, by layer name.

    Returns:
        The exits in the order in which they are reached.

    Raises:
        ValueError: If a named layer is missing, repeats, makes no feature map or is
            the network's own output, or if the number is below 2.
    """
    nodes = graph.ancestors([features])
    if isinstance(exits, Sequence):
        return _named(nodes, list(exits), features)
    reached = _macs_until(nodes, layer_macs)
    candidates = _after_convolutions(nodes, features)
    total = reached(features) + classifier_macs
    kept = _worth_their_heads(candidates, reached, head_cost, total)
    if exits is None:
        return kept
    ends = {end.layer for end in _ends_of_blocks(nodes, candidates, features)}
    anywhere = _spread(kept, exits, reached, total)
    narrow = [exit_ for exit_ in kept if exit_.layer in ends]
    at_ends = _spread(narrow, exits, reached, total) if narrow else []
    # Fewer where blocks are few, or their ends close to each other.
    return at_ends if len(at_ends) >= len(anywhere) else anywhere


def crossing(
    nodes: Sequence, tensors: Sequence[keras.KerasTensor]
) -> list[list[keras.KerasTensor]]:
    """What has to be kept for what runs later, when a network stops after a tensor.

    Args:
        nodes: Of the network, in the order in which they run.
        tensors: Where it stops, in that order.

    Returns:
        For each tensor those that were made until then and are read by what remains,
        or are themselves where it ends; the images, which are there anyway, are none.
    """
    at = {id(t): i for i, node in enumerate(nodes) for t in node.outputs}
    made = {id(t): t for node in nodes if node.input_tensors for t in node.outputs}
    last_read: dict[int, int] = {}
    for i, node in enumerate(nodes):
        for tensor in node.input_tensors:
            last_read[id(tensor)] = i
    for tensor in nodes[-1].outputs:
        last_read[id(tensor)] = len(nodes)
    return [
        [t for key, t in made.items() if at[key] <= at[id(x)] < last_read.get(key, -1)]
        for x in tensors
    ]


def _ends_of_blocks(nodes, candidates: list[Exit], features) -> list[Exit]:
    """The candidates where no more crosses the cut than at those beside them.

    Within a residual block its shortcut crosses too, within an inverted bottleneck the
    expansion, several times as wide: all that a segment hands to the next.
    """
    cuts = crossing(nodes, [*(c.features for c in candidates), features])
    values = [sum(math.prod(tensor.shape[1:]) for tensor in cut) for cut in cuts]
    before = [math.inf, *values]
    return [
        candidate
        for i, candidate in enumerate(candidates)
        if values[i] <= min(before[i], values[i + 1])
    ]


def _macs_until(nodes, layer_macs) -> Callable[[keras.KerasTensor], int]:
    """MACs spent when the nodes run in order until a tensor is there."""
    macs = macs_by_node(nodes, layer_macs)
    spent, until = 0, {}
    for node in nodes:
        spent += macs[id(node)]
        for output in node.outputs:
            until[id(output)] = spent
    return lambda tensor: until[id(tensor)]


def _after_convolutions(nodes, features) -> list[Exit]:
    names = {id(tensor): name for name, tensor in _outputs_by_name(nodes).items()}
    consumers: dict[int, list] = {}
    for node in nodes:
        for tensor in node.input_tensors:
            consumers.setdefault(id(tensor), []).append(node)
    found = {}
    for node in nodes:
        if isinstance(graph.layer_of(node), _CONVOLUTIONS):
            tensor = _activation_of(node, consumers).outputs[0]
            if tensor is not features:
                found[id(tensor)] = Exit(names[id(tensor)], tensor)
    order = {id(output): i for i, node in enumerate(nodes) for output in node.outputs}
    return sorted(found.values(), key=lambda e: order[id(e.features)])


def _activation_of(node, consumers):
    """Follows a convolution to its activation, or as far as it has its own path.

    Goes through normalization and dropout and on into an addition or concatenation as
    long as nothing else reads what is passed on the way.
    """
    activation = getattr(graph.layer_of(node), "activation", None)
    if activation not in (None, keras.activations.linear):
        return node
    while True:
        readers = consumers.get(id(node.outputs[0]), [])
        if len(readers) != 1:
            return node
        operation = graph.layer_of(readers[0])
        if is_activation(operation):
            return readers[0]
        joins = type(operation).__name__ in _JOINS
        if not joins and not isinstance(operation, _NORMALIZATIONS):
            return node
        node = readers[0]


def is_activation(operation) -> bool:
    """Whether an operation of a graph is an activation, as a layer or a function."""
    return (
        isinstance(operation, _ACTIVATION_LAYERS)
        or type(operation).__name__.lower() in _ACTIVATION_OPERATIONS
    )


def _worth_their_heads(candidates, reached, head_cost, total) -> list[Exit]:
    """Leaves out exits that cost more than the way to the next one (paper, 4.1.2)."""
    kept: list[Exit] = []
    following = total
    for candidate in reversed(candidates):
        own, way = (
            head_cost(candidate.features),
            following - reached(candidate.features),
        )
        if own > way:
            logging.info(
                "No exit after '%s': its classifier and controller take %d MACs, "
                "the layers up to the next exit %d.",
                candidate.layer,
                own,
                way,
            )
            continue
        kept.insert(0, candidate)
        following = reached(candidate.features)
    return kept


def _spread(kept, count, reached, total) -> list[Exit]:
    if count < 2:
        raise ValueError(
            "Expected at least 2 exits, the last of which is the network itself. "
            f"Received: exits={count}."
        )
    if not kept:
        raise ValueError(
            "Expected a backbone in which an exit before the last costs less than the "
            f"layers that follow; there is no exit to choose. Received: exits={count}."
        )
    macs = np.array([reached(e.features) for e in kept])
    targets = total * np.arange(1, count) / count
    nearest = {int(np.abs(macs - target).argmin()) for target in targets}
    return [kept[i] for i in sorted(nearest)]


def _named(nodes, names, features) -> list[Exit]:
    if len(set(names)) < len(names):
        raise ValueError(
            f"Expected each exit layer once. Received: exits={list(names)}."
        )
    outputs = _outputs_by_name(nodes)
    for name in names:
        if name not in outputs or len(outputs[name].shape) != 4:
            maps = [n for n, tensor in outputs.items() if len(tensor.shape) == 4]
            raise ValueError(
                "Expected exits at layers that lead to the output and give a feature "
                f"map [b, h, w, c], such as {maps[-3:]}. "
                f"Received: exit layer '{name}'."
            )
    return [
        Exit(name, tensor)
        for name, tensor in outputs.items()
        if name in names and tensor is not features
    ]


def _outputs_by_name(nodes) -> dict[str, keras.KerasTensor]:
    """First output of every node by layer name; `name:2` is a layer's second use."""
    outputs: dict[str, keras.KerasTensor] = {}
    uses: dict[str, int] = {}
    for node in nodes:
        name = node.operation.name
        uses[name] = uses.get(name, 0) + 1
        outputs[name if uses[name] == 1 else f"{name}:{uses[name]}"] = node.outputs[0]
    return outputs
