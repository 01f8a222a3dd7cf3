"""Exploration: its temperature over a training, and what it is for."""

import keras
import numpy as np
import pytest
from small_models import small_epnet, small_images

import epnet_tf
from epnet_tf.model import compute_states
from epnet_tf.training import ControllerSweep, Exploration

BETA_RANGE = (1e-6, 1e-4)


class Recorder(keras.callbacks.Callback):
    """Keeps the temperature of each step."""

    def __init__(self):
        super().__init__()
        self.temperatures = []

    def on_train_batch_end(self, batch, logs=None):
        self.temperatures.append(float(self.model.temperature))


@pytest.fixture(scope="module")
def states():
    images, labels = small_images(32)
    return compute_states(small_epnet(), images, labels, verbose=0)


def test_the_temperature_falls_to_nothing(states):
    sweep = ControllerSweep(small_epnet(), [1e-6])
    sweep.compile("adam")
    recorder = Recorder()
    sweep.fit(
        states.inputs,
        states.correct.astype("float32"),
        batch_size=8,
        epochs=2,
        callbacks=[Exploration(0.6), recorder],
        verbose=0,
    )
    # 8 steps; 0.6 · (1 − done / 0.75) before each.
    expected = [0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0]
    np.testing.assert_allclose(recorder.temperatures, expected, atol=1e-6)
    assert float(sweep.temperature) == 0.0


def test_trainers_on_images_explore_as_well(states):
    images, labels = small_images(32)
    model = small_epnet(beta_range=BETA_RANGE)
    trainer = epnet_tf.ControllerTrainer(model)
    trainer.compile("adam")
    recorder = Recorder()
    trainer.fit(
        images, labels, batch_size=16, callbacks=[Exploration(), recorder], verbose=0
    )
    np.testing.assert_allclose(recorder.temperatures, [0.03, 0.01], atol=1e-6)


def test_undecided_controllers_cost_less_while_it_is_warm(states):
    sweep = ControllerSweep(small_epnet(), [1e-6])
    correct = states.correct.astype("float32")
    even, sure = np.zeros([1, 32, 2], "float32"), np.full([1, 32, 2], 9.0, "float32")

    def losses():
        return [float(sweep.compute_loss(y=correct, y_pred=s)) for s in (even, sure)]

    cold = losses()
    sweep.temperature.assign(1.0)
    warm = losses()
    assert warm[0] < cold[0] - 100
    assert warm[1] == pytest.approx(cold[1], abs=1.0)
