"""Models from files, and to files."""

import os

import keras

from epnet_tf.files import write_whole


def load_model(path: str):
    """Loads a .keras file.

    Args:
        path: The file.

    Returns:
        The model.

    Raises:
        ValueError: If there is no model in it, or one of unknown classes.
    """
    try:
        return keras.saving.load_model(path)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no model that can be loaded: {error}") from None


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Saves a model to a .keras file, whole or not at all.

    Args:
        model: The model.
        path: The file; one that is there is replaced.
    """
    with write_whole(path) as temporary:
        model.save(temporary)
