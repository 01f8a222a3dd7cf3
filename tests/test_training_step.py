"""The one step of all stages is Keras's own to the digit, loss scaling included."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import small_epnet, small_images

import epnet_tf
from epnet_tf.training import ControllerSweep
from epnet_tf.training.reinforce import ReinforceSweep
from epnet_tf.training.stage import Stage

IMAGES, LABELS = small_images()
BETA_RANGE = (1e-6, 1e-3)


def with_kerass_step(kind):
    """The stage, trained and evaluated by the steps that Keras has for every model."""

    class Reference(kind):
        def train_step(self, data):
            return keras.Model.train_step(self, prepared(self, data))

        def test_step(self, data):
            return keras.Model.test_step(self, prepared(self, data))

    def prepared(stage, data):
        return stage._with_betas(data) if isinstance(stage, ControllerSweep) else data

    return Reference


def classifiers(wrap):
    return wrap(epnet_tf.ClassifierTrainer)(small_epnet()), IMAGES, LABELS


def controllers(wrap, **kwargs):
    model = small_epnet(controller=epnet_tf.Controller(6, dropout=0.3), **kwargs)
    beta = None if kwargs else 1e-4
    return wrap(epnet_tf.ControllerTrainer)(model, beta), IMAGES, LABELS


def sweep(wrap, kind=ControllerSweep, **kwargs):
    model = small_epnet(controller=epnet_tf.Controller(6, dropout=0.3), **kwargs)
    states = epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)
    betas = None if kwargs else (1e-5, 1e-4)
    return wrap(kind)(model, betas), states.inputs, states.correct.astype("float32")


STAGES = {
    "classifiers": classifiers,
    "controllers": controllers,
    "controllers for a range": lambda wrap: controllers(wrap, beta_range=BETA_RANGE),
    "sweep": sweep,
    "sweep for a range": lambda wrap: sweep(wrap, beta_range=BETA_RANGE),
    "reinforce": lambda wrap: sweep(wrap, ReinforceSweep),
}


def trained(make, wrap, optimizer, weighted):
    keras.utils.set_random_seed(0)
    stage, x, y = make(wrap)
    stage.compile(optimizer(), jit_compile=False)
    weights = np.linspace(0, 2, len(y)).astype("float32") if weighted else None
    history = stage.fit(
        x, y, batch_size=16, epochs=2, sample_weight=weights, verbose=0
    ).history
    found = stage.evaluate(x, y, 16, verbose=0, return_dict=True)
    return (
        history,
        found,
        [np.asarray(w) for w in stage.model.variables + stage.weights],
    )


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("name", STAGES)
def test_the_numbers_are_those_of_kerass_step(name, precision):
    keras.config.set_dtype_policy(precision)

    def optimizer():
        return keras.optimizers.SGD(1e-3, momentum=0.9)

    try:
        ours, theirs = (
            trained(STAGES[name], wrap, optimizer, name == "classifiers")
            for wrap in (lambda kind: kind, with_kerass_step)
        )
    finally:
        keras.config.set_dtype_policy("float32")
    assert ours[0] == theirs[0] and ours[1] == theirs[1]
    for a, b in zip(ours[2], theirs[2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_there_is_one_step():
    for kind in (epnet_tf.ClassifierTrainer, epnet_tf.ControllerTrainer):
        assert kind.train_step is Stage.train_step
        assert kind.test_step is Stage.test_step


def test_the_loss_is_scaled_before_gradients_are_taken():
    """By hand: weights move by the learning rate times the unscaled gradient."""
    trainer = epnet_tf.ControllerTrainer(small_epnet(), 1e-4)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3))
    trainer.compile(optimizer, jit_compile=False)
    with tf.GradientTape() as tape:
        y_pred = trainer(IMAGES, training=True)
        loss = trainer.compute_loss(IMAGES, LABELS, y_pred)
    gradients = tape.gradient(loss, trainer.trainable_weights)
    before = [np.asarray(w) for w in trainer.trainable_weights]
    trainer.train_step((tf.constant(IMAGES), tf.constant(LABELS)))
    moved = 0.0
    for old, new, gradient in zip(
        before, trainer.trainable_weights, gradients, strict=True
    ):
        np.testing.assert_allclose(new, old - 1e-3 * gradient, rtol=1e-5, atol=1e-7)
        moved = max(moved, np.abs(new - old).max())
    assert moved > 1e-6


def test_weights_of_images_count_in_a_sweep():
    """Half of the images at weight 0 halve the loss of the others alone."""
    stage, x, y = sweep(lambda kind: kind)
    stage.compile("sgd", jit_compile=False)
    weights = (np.arange(len(y)) % 2).astype("float32")
    found = stage.evaluate(x, y, 48, sample_weight=weights, verbose=0)
    alone = stage.evaluate({k: v[1::2] for k, v in x.items()}, y[1::2], 48, verbose=0)
    assert found == pytest.approx(alone / 2, rel=1e-4)
