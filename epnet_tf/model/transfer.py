"""From one EPNet to another: what its heads have learned, and which are not trained."""

from collections.abc import Iterable

import keras

from epnet_tf.model import graph


def controllers(model: keras.Model) -> list[keras.Model]:
    """The controllers of an `EPNet`, exit by exit."""
    stops = [name for name in model.output if name.startswith("stop_")]
    return [graph.producer(model.output[name]).operation for name in stops]


def frozen_heads(model: keras.Model) -> list[str]:
    """Layers of heads that are not trained: `logits_01`, `controller_01/hidden`.

    Args:
        model: An `EPNet`.
    """
    frozen = []
    for layer in model.head_layers():
        inner = layer.layers if graph.is_graph(layer) else []
        parts = {layer.name: layer} | {f"{layer.name}/{x.name}": x for x in inner}
        frozen += [k for k, v in parts.items() if v.weights and not v.trainable]
    return frozen


def freeze_heads(model: keras.Model, paths: Iterable[str]) -> None:
    """Leaves layers of heads out of training.

    Args:
        model: An `EPNet`.
        paths: As `frozen_heads` names them.
    """
    for path in paths:
        head, _, inner = path.partition("/")
        layer = model.get_layer(head)
        (layer.get_layer(inner) if inner else layer).trainable = False


def copy_controllers(source: keras.Model, target: keras.Model) -> None:
    """Gives an `EPNet` the controllers' weights of another with the same exits.

    Args:
        source: The model that has them.
        target: The model that gets them.
    """
    for controller in controllers(source):
        target.get_layer(controller.name).set_weights(controller.get_weights())


def copy_heads(source: keras.Model, target: keras.Model) -> None:
    """Gives an `EPNet` the heads of another that has all of its exits, and more.

    Args:
        source: The model that has them.
        target: The model that gets them, weights and what is not trained.
    """
    renamed = renamed_heads(source, target)
    for layer in source.head_layers():
        if layer.name in renamed:
            target.get_layer(renamed[layer.name]).set_weights(layer.get_weights())
    for path in frozen_heads(source):
        head, separator, inner = path.partition("/")
        if head in renamed:
            freeze_heads(target, [renamed[head] + separator + inner])


def renamed_heads(source: keras.Model, target: keras.Model) -> dict[str, str]:
    """What the heads of a model are called in one with some of its exits.

    Args:
        source: An `EPNet`.
        target: An `EPNet` on the same backbone.

    Returns:
        Names of layers in the first to those in the second, of exits that both have.
    """
    numbers = {
        source.exit_layers.index(layer) + 1: number
        for number, layer in enumerate(target.exit_layers, start=1)
        if layer in source.exit_layers
    }
    renamed = {}
    for layer in source.head_layers():
        kind, _, number = layer.name.rpartition("_")
        if number.isdecimal() and int(number) in numbers:
            renamed[layer.name] = f"{kind}_{numbers[int(number)]:02d}"
    return renamed
