"""Exploration: controllers are kept from making up their minds too early."""

import keras


class Exploration(keras.callbacks.Callback):
    """Rewards undecided controllers, less and less, while they are trained.

    The temperature of the objective (`objective.training_objective`) of a
    `ControllerTrainer` or `ControllerSweep` falls linearly to 0 in the first three
    quarters of training; then the objective is the expected benefit alone.
    `train_controllers` explores; it is worth 0.3 to 0.4 points on Max-Min, and without
    it controllers for a wide range of β fail at one of its ends
    (`benchmarks/controllers.py` trains with and without).

    Args:
        temperature: The first temperature.
    """

    def __init__(self, temperature: float = 0.03):
        super().__init__()
        self.temperature = temperature
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Keeps the epoch."""
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the temperature; by epochs alone where their steps are not known."""
        steps = self.params["steps"]
        done = (self.epoch + (batch / steps if steps else 0.0)) / self.params["epochs"]
        self.model.temperature.assign(self.temperature * max(0.0, 1.0 - done / 0.75))

    def on_train_end(self, logs=None):
        """Leaves the objective as it is without exploration."""
        self.model.temperature.assign(0.0)
