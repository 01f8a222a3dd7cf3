"""Models from files."""

import keras


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
