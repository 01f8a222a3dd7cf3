"""Training that goes on where it was killed."""

import os
import pathlib
import tempfile

import keras

from epnet_tf.files import write_whole


class Checkpoint(keras.callbacks.Callback):
    """Keeps a model's and its optimizer's state in one file, written after each epoch.

    The epoch is read off the optimizer's steps, so that the state is in that one file
    and a kill at any moment leaves the file of the epoch before.

    Args:
        path: The file, named `*.weights.h5`.
        steps_per_epoch: Optimizer steps of one epoch.
        keep: Whether this process keeps the file; of several workers one does, but
            all read the metrics' states, which are sums over all of them.
    """

    def __init__(self, path: str | os.PathLike, steps_per_epoch: int, keep=True):
        super().__init__()
        self.keep = keep
        self.path = pathlib.Path(path)
        self.steps_per_epoch = steps_per_epoch

    def restore(self, model: keras.Model) -> int:
        """Brings a compiled model to the state of the file, if there is one.

        Args:
            model: The compiled model.

        Returns:
            The number of epochs that are done.
        """
        model.optimizer.build(model.trainable_variables)
        if not self.path.exists():
            return 0
        model.load_weights(self.path)
        # Rounded up: loss scaling leaves out the steps whose gradients overflow.
        steps = int(model.optimizer.iterations.numpy())
        return -(-steps // self.steps_per_epoch)

    def on_epoch_end(self, epoch, logs=None):
        """Writes the file."""
        if self.keep:
            with write_whole(self.path) as path:
                self.model.save_weights(path)
        else:
            with tempfile.TemporaryDirectory() as folder:
                self.model.save_weights(pathlib.Path(folder) / self.path.name)
