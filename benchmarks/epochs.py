"""What benchmarks of training share: a clock of epochs."""

import time

import keras
import numpy as np


class EpochClock(keras.callbacks.Callback):
    """Times epochs, by the clock and by the processor, which other work disturbs less.

    Attributes:
        times: For each epoch seconds [by the clock, of the processor].
    """

    def __init__(self):
        super().__init__()
        self.times: list[np.ndarray] = []

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.start = self._now()

    def on_epoch_end(self, epoch, logs=None):
        """Stops it."""
        self.times.append(self._now() - self.start)

    def _now(self) -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])
