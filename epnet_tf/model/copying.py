"""Copies of models that share nothing that can change with what they are made of."""

import os
import tempfile
import types

import keras

from epnet_tf.model import graph


def clone(layer):
    """A layer or model with weights of its own, not yet equal ones.

    The layer need not be registered with Keras, as it would have to be for a file.
    What has no weights and no state is not copied but used again.

    Args:
        layer: A layer, operation or model of a live graph.

    Returns:
        The clone; `copy_state` gives it the values.

    Raises:
        ValueError: If a layer cannot be made from its configuration.
    """
    if isinstance(layer, graph.Renamed):
        return graph.Renamed(clone(layer.layer), layer.name)
    if graph.is_graph(layer) and type(layer).__module__.startswith("keras."):
        return keras.models.clone_model(layer, clone_function=clone)
    if not getattr(layer, "variables", None):
        return layer
    try:
        copy = _from_live_config(layer)
    except Exception as error:  # Whatever a user's layer raises.
        raise ValueError(
            "Expected layers that can be made again from their get_config(). Received: "
            f"layer '{layer.name}' of type {type(layer).__name__}, which fails with "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    if copy.trainable != layer.trainable:
        copy.trainable = layer.trainable
    return copy


def copy_state(source: keras.Model, target: keras.Model) -> None:
    """Gives a model all values of another one of the same layers.

    By way of a file, as Keras then also restores what a layer derives from its
    weights, such as the statistics of an adapted `Normalization`.

    Args:
        source: The model that has them.
        target: The model that gets them.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "state.weights.h5")
        source.save_weights(path)
        target.load_weights(path)


def _from_live_config(layer):
    """Makes a layer from its configuration, with what Keras would have to look up."""
    live, config = vars(layer), layer.get_config()
    functions = {
        key: live[key]
        for key in config
        if isinstance(live.get(key), types.FunctionType)
    }
    classes = {type(value).__name__: type(value) for value in live.values()}
    with keras.saving.custom_object_scope(classes):
        return type(layer).from_config(config | functions)
