"""EPNet for Keras: exits after every convolution, and a learned policy that stops.

Every name is imported when it is first used: a device that runs bundles has NumPy and
LiteRT, and no TensorFlow.
"""

import importlib
import importlib.abc
import importlib.util
import sys

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


# What registers classes with Keras, so that `keras.saving.load_model` knows them.
_REGISTERING = ("epnet_tf.model", "epnet_tf.training")


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'epnet_tf' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted({*globals(), *_HOMES})


def _register() -> None:
    for room in _REGISTERING:
        importlib.import_module(room)


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Registers our classes when Keras is imported after this package.

    Python asks it where Keras is; it lets the others answer, and adds a step behind
    the execution of Keras.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        # Keras that one of our own rooms imports finds the room half made.
        own = "epnet_tf.model" in sys.modules
        if spec is None or spec.loader is None or own:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module):
            execute(module)
            _register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if "keras" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _AfterKeras())
