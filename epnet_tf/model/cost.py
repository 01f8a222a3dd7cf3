"""Multiply-adds (MACs): of a layer, of a model, and up to each exit."""

import dataclasses
import math
from collections.abc import Mapping

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
        ValueError: If a layer with weights cannot be counted.
    """
    count = sum(name.startswith("logits_") for name in model.output)
    names = [f"logits_{i:02d}" for i in range(1, count + 1)]
    executed: dict[int, int] = {}
    classifiers = controllers = 0
    with_controllers, with_classifiers, alone = [], [], []
    for name in names:
        nodes = graph.ancestors([model.output[name]])
        macs = {id(node): node_macs(node, layer_macs) for node in nodes}
        alone.append(sum(macs.values()))
        classifier = macs.pop(id(graph.producer(model.output[name])))
        executed |= macs
        classifiers += classifier
        stop = model.output.get(name.replace("logits", "stop"))
        if stop is not None:
            controllers += node_macs(graph.producer(stop), layer_macs)
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
        ValueError: If a layer with weights cannot be counted.
    """
    macs: dict[str, int] = {}
    for node in graph.ancestors(model.outputs):
        name = node.operation.name
        macs[name] = macs.get(name, 0) + node_macs(node, layer_macs)
    return macs


def node_macs(node, layer_macs: Mapping[str, int] | None = None) -> int:
    """Counts the MACs of one call of a layer in a model's graph, for one image.

    Args:
        node: A node of the graph (see `epnet_tf.model.graph`).
        layer_macs: MACs of layers that cannot be counted, by layer name.

    Returns:
        The number of multiply-adds.

    Raises:
        ValueError: If the layer has weights and is of a type unknown here, or if a
            shape that counts is not static.
    """
    layer = node.operation
    if layer_macs and layer.name in layer_macs:
        return int(layer_macs[layer.name])
    if graph.is_graph(layer):
        return sum(model_macs(layer, layer_macs).values())
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
    if isinstance(
        layer, (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
    ):
        positions = _positions(node.input_tensors[0], layer)
        return math.prod(positions) * math.prod(layer.kernel.shape)
    if isinstance(
        layer,
        (
            layers.Conv1D,
            layers.Conv2D,
            layers.Conv3D,
            layers.DepthwiseConv1D,
            layers.DepthwiseConv2D,
        ),
    ):
        positions = _positions(node.outputs[0], layer)
        return math.prod(positions) * math.prod(layer.kernel.shape)
    raise ValueError(
        "Expected layers whose multiply-adds can be counted (convolutions and dense "
        "layers); give the figure of any other with "
        f"layer_macs={{'{layer.name}': MACS}}. Received: layer '{layer.name}' of type "
        f"{type(layer).__name__} with {layer.count_params()} weights."
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
