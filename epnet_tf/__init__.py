"""EPNet for Keras: exits after every convolution, and a learned policy that stops.

Every name is imported when it is first used: a device that runs bundles has NumPy and
LiteRT, and no TensorFlow.
"""

import contextlib
import importlib

from epnet_tf import extras

# Where each public name is defined.
_HOMES = {
    "Prediction": "epnet_tf.runtime.prediction",
    "SegmentRunner": "epnet_tf.runtime.runner",
    "CostTable": "epnet_tf.runtime.cost_table",
    "read_costs": "epnet_tf.runtime.cost_table",
    "load_dataset": "epnet_tf.data",
    "BranchClassifier": "epnet_tf.model",
    "Controller": "epnet_tf.model",
    "EPNet": "epnet_tf.model",
    "ExitStates": "epnet_tf.model",
    "PaperClassifier": "epnet_tf.model",
    "PaperController": "epnet_tf.model",
    "compute_states": "epnet_tf.model",
    "resnet10": "epnet_tf.model",
    "resnet12": "epnet_tf.model",
    "ClassifierTrainer": "epnet_tf.training",
    "ControllerTrainer": "epnet_tf.training",
    "train_controllers": "epnet_tf.training",
    "select_exits": "epnet_tf.policies",
    "convert": "epnet_tf.conversion.convert",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'epnet_tf' has no attribute '{name}'")
    with extras.needed_by(f"epnet_tf.{name}"):
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted({*globals(), *_HOMES})


def _register_with_keras(_) -> None:
    """Makes Keras know our classes, so that it loads models that have them."""
    # A room that is itself the first to import Keras cannot be leaned on yet; what is
    # wrong with any other is told where it is used.
    with contextlib.suppress(ImportError):
        importlib.import_module("epnet_tf.training")


# TensorFlow brings wrapt; without it there is no Keras.
with contextlib.suppress(ModuleNotFoundError):
    import wrapt

    wrapt.register_post_import_hook(_register_with_keras, "keras")
