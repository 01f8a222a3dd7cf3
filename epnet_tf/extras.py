"""What the extras of the installation bring, told in a sentence to who lacks it."""

import contextlib
from collections.abc import Iterator

# Packages by the names that they are imported by: what they are called, and the extra.
_EXTRAS = {
    # TensorFlow brings Keras; Keras is missed first.
    "keras": ("TensorFlow", "train"),
    "tensorflow": ("TensorFlow", "train"),
    "flatbuffers": ("flatbuffers", "train"),
    "litert_quantizer": ("litert-quantizer", "train"),
    "matplotlib": ("Matplotlib", "train"),
    "scipy": ("SciPy", "train"),
    "sklearn": ("scikit-learn", "train"),
    "tensorboard": ("TensorBoard", "train"),
    "threadpoolctl": ("threadpoolctl", "train"),
    "tensorflow_model_optimization": ("TensorFlow Model Optimization", "qat"),
    "tf_keras": ("tf_keras", "qat"),
}


class MissingExtra(ImportError):
    """A package is missing that an extra of the installation would bring."""


@contextlib.contextmanager
def needed_by(what: str) -> Iterator[None]:
    """Says which extra is missing where a package of one cannot be imported.

    Any other import that fails is a mistake, and keeps its traceback.

    Args:
        what: Who needs it, such as `epnet_tf.EPNet` or `train.py`.

    Raises:
        MissingExtra: If the block misses such a package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        name, extra = _EXTRAS[package]
        raise MissingExtra(
            f'{what} needs {name}: pip install "epnet-tf[{extra}]"', name=error.name
        ) from error
