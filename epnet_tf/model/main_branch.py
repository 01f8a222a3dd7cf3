"""What can be a main branch, and where it ends and its classifier begins."""

import dataclasses

import keras
import numpy as np
from keras import layers

from epnet_tf.model import graph
from epnet_tf.model.exits import is_activation


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The linear classifier that a backbone ended in, as one dense layer.

    Attributes:
        kernel: float32 [c, classes].
        bias: float32 [classes].
    """

    kernel: np.ndarray
    bias: np.ndarray


def check_backbone(backbone) -> None:
    """Checks that a model can be the main branch.

    Args:
        backbone: What the user gave.

    Raises:
        ValueError: If it is no built functional model with one image input and one
            output, computes something else than its graph says, or has layers whose
            channels come first.
    """
    shape = getattr(backbone, "input_shape", None)
    if isinstance(backbone, keras.Model) and shape and graph.overrides_call(backbone):
        raise ValueError(
            "Expected as backbone a model that its graph tells all of; "
            "keras.Model(inputs, outputs) of the same layers is one. "
            f"Received: {type(backbone).__name__}, which overrides call()."
        )
    if not (graph.is_graph(backbone) and isinstance(shape, tuple) and len(shape) == 4):
        raise ValueError(
            "Expected as backbone a built functional or Sequential keras.Model with "
            "one input [batch, height, width, channels]. Received: "
            f"{type(backbone).__name__} with input shape {shape}."
        )
    if len(backbone.outputs) != 1:
        raise ValueError(
            "Expected a backbone with one output. "
            f"Received: '{backbone.name}' with {len(backbone.outputs)} outputs."
        )
    for layer in graph.operations(backbone):
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                "Expected layers with data_format='channels_last', [batch, height, "
                f"width, channels]. Received: layer '{layer.name}' with "
                "data_format='channels_first'."
            )


def split_classifier(
    output: keras.KerasTensor, num_classes: int
) -> tuple[keras.KerasTensor, Classifier | None]:
    """Parts a main branch from the classifier that it may end in.

    A classifier is a Dense layer of `num_classes` units, or a 1×1 convolution of a
    1×1 map, flattened; linear or followed by a softmax, which is taken off. For two
    classes it may have one unit, linear or followed by a sigmoid: its logit z, of the
    second class, becomes the two logits 0 and z, with the same probabilities.

    Args:
        output: The main branch's symbolic output.
        num_classes: Number of classes.

    Returns:
        Features [b, h, w, c] or [b, c], and the classifier or None.

    Raises:
        ValueError: If the output is neither features nor such a classifier.
    """
    node, passed = _before_activations(graph.producer(output))
    layer = graph.layer_of(node)
    activations = [name for name in map(_activation, [layer, *passed]) if name]
    units = _units(node) if len(output.shape) == 2 else None
    fits = _fits(units, activations, num_classes)
    if not fits and (units is None or not isinstance(layer, layers.Dense)):
        _check_features(output, activations)
        return output, None
    if not fits:
        one = " (or a sigmoid one of 1 unit)" if num_classes == 2 else ""
        raise ValueError(
            f"Expected the backbone's last layer to be a linear or softmax Dense of "
            f"{num_classes} units{one}, or no Dense at all (a headless backbone). "
            f"Received: '{layer.name}' with {units} units and activation "
            f"{' and '.join(activations) or 'linear'}."
        )
    features = node.input_tensors[0]
    # A pooling layer before the classifier is the exit's own pooling.
    pooling = graph.producer(features)
    if isinstance(graph.layer_of(pooling), layers.GlobalAveragePooling2D):
        features = pooling.input_tensors[0]
    return features, _classifier(layer, num_classes)


def _before_activations(node) -> tuple:
    """Goes back over activations and flattening.

    Returns:
        The node before them, and the layers that were passed, as they run.
    """
    passed: list = []
    while True:
        layer = graph.layer_of(node)
        kind = type(layer).__name__
        if kind not in ("Flatten", "Reshape", "Softmax") and not is_activation(layer):
            return node, passed
        passed.insert(0, layer)
        node = graph.producer(node.input_tensors[0])


def _activation(layer) -> str | None:
    """The name of what a layer or operation applies at its end; None if nothing."""
    function = getattr(layer, "activation", None)
    if function is not None:
        linear = function is keras.activations.linear
        return None if linear else getattr(function, "__name__", str(function))
    # The layer, or the operation that `keras.ops.softmax` leaves.
    name = type(layer).__name__
    if name == "Softmax":
        return "softmax"
    return name if is_activation(layer) else None


def _units(node) -> int | None:
    """Outputs of a dense layer on one place of a map; None for anything else."""
    layer, tensors = graph.layer_of(node), [*node.input_tensors, *node.outputs]
    if any(size != 1 for tensor in tensors for size in tensor.shape[1:-1]):
        return None
    if isinstance(layer, layers.Dense):
        return layer.units
    pointwise = isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1)
    return layer.filters if pointwise and layer.groups == 1 else None


def _fits(units: int | None, activations: list[str], num_classes: int) -> bool:
    names = [name.lower() for name in activations]
    one_logit = units == 1 and num_classes == 2 and names in ([], ["sigmoid"])
    return one_logit or (units == num_classes and names in ([], ["softmax"]))


def _check_features(output, activations) -> None:
    if len(output.shape) in (2, 4) and "softmax" not in activations:
        return
    node = graph.producer(output)
    if _activation(graph.layer_of(node)) == "softmax":
        node = graph.producer(node.input_tensors[0])
    layer = graph.layer_of(node)
    raise ValueError(
        "Expected a backbone that ends in a feature map [b, h, w, c], in features "
        "[b, c] or in a Dense classifier. Received: output of shape "
        f"{output.shape} from layer '{layer.name}' ({type(layer).__name__})"
        f"{' and a softmax' if 'softmax' in activations else ''}."
    )


def _classifier(layer, num_classes: int) -> Classifier:
    kernel = np.asarray(layer.kernel, "float32").reshape(-1, layer.kernel.shape[-1])
    bias = np.zeros(kernel.shape[-1], "float32")
    if layer.bias is not None:
        bias = np.asarray(layer.bias, "float32")
    if len(bias) < num_classes:  # One logit for the second of two classes.
        kernel, bias = np.pad(kernel, ((0, 0), (1, 0))), np.pad(bias, (1, 0))
    return Classifier(kernel, bias)
