"""Models from files, and to files."""

import os
import pathlib
import zipfile
import zlib

import keras

from epnet_tf.files import write_whole
from epnet_tf.model import transfer
from epnet_tf.model.epnet import EPNet


def load_model(path: str | os.PathLike):
    """Loads a .keras file.

    Args:
        path: The file.

    Returns:
        The model.

    Raises:
        ValueError: If there is no model in it, a damaged one, or one of unknown
            classes.
    """
    try:
        return keras.saving.load_model(path)
    except (KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} holds no model that can be loaded: {error}") from None


def load_epnet(path: str | os.PathLike) -> EPNet:
    """Loads a .keras file with an EPNet.

    Args:
        path: The file.

    Returns:
        The `EPNet`.

    Raises:
        ValueError: If it cannot be loaded, or is another model.
    """
    model = load_model(path)
    if not isinstance(model, EPNet):
        raise ValueError(
            "Expected a .keras file with an EPNet, as train.py leaves it. "
            f"Received: '{path}' with a {type(model).__name__}."
        )
    return model


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Saves a model to a .keras file, whole or not at all.

    Args:
        model: The model.
        path: The file; one that is there is replaced.
    """
    with write_whole(path) as temporary:
        model.save(temporary)


def load_weights(path: str | os.PathLike) -> EPNet:
    """Loads an EPNet whose weights another one is to take: see `take_weights`.

    Args:
        path: A .keras file with it.

    Returns:
        The `EPNet`.

    Raises:
        ValueError: If there is no such file, or no EPNet in it.
    """
    if not pathlib.Path(path).is_file():
        raise ValueError(
            f"Expected as weights a .keras file with an EPNet. Received: '{path}', "
            "which does not exist."
        )
    return load_epnet(path)


def take_weights(model: EPNet, source: EPNet) -> None:
    """Gives an EPNet the weights of another one on the same backbone.

    Heads of another kind, and those of exits that the other one has not, stay as they
    are.

    Args:
        model: The model that gets them.
        source: The model that has them.

    Raises:
        ValueError: If its main branch is another.
    """
    heads = {layer.name for layer in model.head_layers()}
    known = {layer.name: layer for layer in source.layers if layer.name not in heads}
    for theirs, ours in transfer.renamed_heads(source, model).items():
        known[ours] = source.get_layer(theirs)
    for layer in model.layers:
        values = known[layer.name].get_weights() if layer.name in known else []
        if [v.shape for v in values] == [w.shape for w in layer.weights]:
            layer.set_weights(values)
        elif layer.name not in heads:
            raise ValueError(
                f"Expected as weights an EPNet with the main branch of '{model.name}'. "
                f"Received: one whose layer '{layer.name}' is missing or another."
            )
