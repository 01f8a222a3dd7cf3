"""EPNet for Keras: exits after every convolution, and a learned policy that stops.

Every name is imported when it is first used: a device that runs bundles has NumPy and
LiteRT, and no TensorFlow.
"""

import importlib

# Where each public name is defined.
_HOMES = {
    "Prediction": "epnet_tf.runtime.prediction",
    "SegmentRunner": "epnet_tf.runtime.runner",
    "load_dataset": "epnet_tf.data",
    "Controller": "epnet_tf.model",
    "EPNet": "epnet_tf.model",
    "ExitStates": "epnet_tf.model",
    "PaperController": "epnet_tf.model",
    "compute_states": "epnet_tf.model",
    "resnet10": "epnet_tf.model",
    "resnet12": "epnet_tf.model",
    "ClassifierTrainer": "epnet_tf.training",
    "ControllerTrainer": "epnet_tf.training",
    "train_controllers": "epnet_tf.training",
    "convert": "epnet_tf.conversion.convert",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'epnet_tf' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted({*globals(), *_HOMES})
