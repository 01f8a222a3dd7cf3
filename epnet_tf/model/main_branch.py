"""What can be a main branch, and where it ends and its classifier begins."""

import keras
from keras import layers

from epnet_tf.model import graph
from epnet_tf.model.exits import is_activation


def check_backbone(backbone) -> None:
    """Checks that a model can be the main branch.

    Args:
        backbone: What the user gave.

    Raises:
        ValueError: If it is no built functional model with one image input and one
            output.
    """
    shape = getattr(backbone, "input_shape", None)
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


def split_classifier(
    output: keras.KerasTensor, num_classes: int
) -> tuple[keras.KerasTensor, layers.Dense | None]:
    """Parts a main branch from the Dense classifier that it may end in.

    Args:
        output: The main branch's symbolic output.
        num_classes: Number of classes.

    Returns:
        Features [b, h, w, c] or [b, c], and the classifier layer or None.

    Raises:
        ValueError: If the output is neither features nor a linear or softmax
            classifier of `num_classes`.
    """
    node, follows = graph.producer(output), None
    if is_activation(node.operation) or _is_softmax(node.operation):
        node, follows = graph.producer(node.input_tensors[0]), node.operation
    softmax_follows = follows is not None and _is_softmax(follows)
    layer = node.operation
    if not isinstance(layer, layers.Dense) or len(output.shape) != 2:
        if len(output.shape) not in (2, 4) or softmax_follows:
            raise ValueError(
                "Expected a backbone that ends in a feature map [b, h, w, c], in "
                "features [b, c] or in a Dense classifier. Received: output of shape "
                f"{output.shape} from layer '{layer.name}' ({type(layer).__name__})"
                f"{' and a softmax' if softmax_follows else ''}."
            )
        return output, None
    linear = layer.activation in (None, keras.activations.linear)
    if (
        layer.units != num_classes
        or not (linear or layer.activation is keras.activations.softmax)
        or not (follows is None or softmax_follows)
    ):
        activation = getattr(follows or layer, "activation", follows)
        activation = getattr(activation, "__name__", type(activation).__name__)
        raise ValueError(
            f"Expected the backbone's last layer to be a linear or softmax Dense of "
            f"{num_classes} units, or no Dense at all (a headless backbone). Received: "
            f"'{layer.name}' with {layer.units} units and activation {activation}."
        )
    features = node.input_tensors[0]
    # A pooling layer before the classifier is the exit's own pooling.
    pooling = graph.producer(features)
    if isinstance(pooling.operation, layers.GlobalAveragePooling2D):
        features = pooling.input_tensors[0]
    return features, layer


def _is_softmax(operation) -> bool:
    # The layer, or the operation that `keras.ops.softmax` leaves.
    if type(operation).__name__ == "Softmax":
        return True
    activation = isinstance(operation, layers.Activation) and operation.activation
    return activation is keras.activations.softmax
