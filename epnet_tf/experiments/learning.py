"""How controllers learn: exact gradient against REINFORCE, and how fast it all goes."""

import time

import keras
import numpy as np
import tensorflow as tf

from epnet_tf import objective, policies
from epnet_tf.evaluation.learning import Learning
from epnet_tf.experiments.case import Case
from epnet_tf.model import ExitStates, compute_states
from epnet_tf.policies import Policy
from epnet_tf.training import ControllerSweep, ControllerTrainer, train_controllers
from epnet_tf.training.reinforce import ReinforceSweep

_BATCH = 512  # That of `train_controllers`.


class BenefitRecorder(keras.callbacks.Callback):
    """Measures a sweep's first policy on held-out states while it is trained.

    Args:
        states: The states.
        every: Training steps from one measurement to the next.
    """

    def __init__(self, states: ExitStates, every: int):
        super().__init__()
        self.states, self.every = states, every
        self.steps: list[int] = []
        self.benefits: list[float] = []

    def on_train_begin(self, logs=None):
        """Measures the start."""
        self._measure(0)

    def on_train_batch_end(self, batch, logs=None):
        """Measures, if it is time."""
        step = int(self.model.optimizer.iterations)
        if step % self.every == 0:
            self._measure(step)

    def _measure(self, step: int):
        sweep = self.model
        stops = sweep.predict_on_batch(self.states.inputs)[0]
        exits = np.asarray(objective.first_stop(stops)) + 1
        score = policies.score_exits(exits, self.states, np.asarray(sweep.costs))
        self.steps.append(step)
        self.benefits.append(score.benefit(sweep.betas[0]))


def compare(case: Case, max_images: int = 2000, every: int = 10) -> Learning:
    """Trains controllers for the plan's β both ways, with the same seeds and steps.

    Both without `Exploration`, by the gradient of the expected benefit alone, and on
    training images alone, so that the validation images show what they are worth.

    Args:
        case: The case.
        max_images: Validation images to measure on.
        every: Training steps from one measurement to the next.

    Returns:
        The `Learning`.
    """
    held_out = case.validation.take(slice(max_images))
    beta = case.plan.table_beta
    curves: dict[str, list] = {"exact": [], "reinforce": []}
    ended: dict[str, list[Policy]] = {"exact": [], "reinforce": []}
    for seed in range(case.seeds):
        for name, kind in (("exact", ControllerSweep), ("reinforce", ReinforceSweep)):
            recorder = BenefitRecorder(held_out, every)
            sweep = train_controllers(
                case.model,
                case.unseen,
                [beta],
                seed,
                case.controller_epochs,
                temperature=0.0,
                verbose=0,
                callbacks=[recorder],
                sweep_class=kind,
            )
            curves[name].append(recorder.benefits)
            sweep.assign(0)
            weights = policies.controller_weights(case.model)
            ended[name].append(policies.epnet(case.model, weights=weights, name=name))
    return Learning(
        beta,
        np.array(recorder.steps),
        {name: np.array(values) for name, values in curves.items()},
        ended,
    )


def gradient_noise(case: Case, batches: int = 50, warm_up_steps: int = 100) -> dict:
    """How much the gradient of a batch scatters, at the same point of the weights.

    Args:
        case: The case.
        batches: Batches to compute the gradient of.
        warm_up_steps: Steps of exact training that lead to the point.

    Returns:
        `exact` and `reinforce`: variance of the gradient over batches (the sum over
        weights) divided by the squared length of the mean exact gradient; `ratio` of
        the two; `point` says after how many steps.
    """
    beta, states = case.plan.table_beta, case.train
    few = states.take(slice(warm_up_steps * _BATCH))
    exact = train_controllers(
        case.model, few, [beta], epochs=1, temperature=0.0, verbose=0
    )
    sampled = ReinforceSweep(case.model, [beta], 0)
    for mine, theirs in zip(sampled.weights, exact.weights, strict=True):
        mine.assign(theirs)
    rng = np.random.default_rng(0)
    gradients: dict[str, list[np.ndarray]] = {"exact": [], "reinforce": []}
    of_sweep = {
        "exact": _gradient_function(exact),
        "reinforce": _gradient_function(sampled),
    }
    for _ in range(batches):
        batch = states.take(rng.integers(0, len(states), _BATCH))
        for name, gradient in of_sweep.items():
            x = {k: tf.constant(v) for k, v in batch.inputs.items()}
            gradients[name].append(gradient(x, batch.correct.astype("float32")).numpy())
    length = np.sum(np.mean(gradients["exact"], axis=0) ** 2)
    noise = {
        name: float(np.var(found, axis=0, ddof=1).sum() / length)
        for name, found in gradients.items()
    }
    return noise | {
        "ratio": noise["reinforce"] / noise["exact"],
        "point": int(exact.optimizer.iterations),
        "batch": _BATCH,
    }


def speed(case: Case, steps: int = 50, batch_size: int = 64) -> dict:
    """How long an image takes on cached states, for all β, and on images, for one.

    All of it is measured one after the other, so that the machine is the same.

    Args:
        case: The case.
        steps: Training steps to measure, in two epochs.
        batch_size: Images in a step on images, the paper's.

    Returns:
        Seconds for an image in one epoch: `sweep`, on states, for all β of the plan;
        `images`, for one β; and `states`, to compute its states, once for all.
    """
    clock = _Clock()
    few = case.train.take(slice(steps // 2 * _BATCH))
    train_controllers(
        case.model, few, case.plan.all_betas, epochs=2, verbose=0, callbacks=[clock]
    )
    sweep = clock.seconds / _BATCH
    trainer = ControllerTrainer(case.model, beta=case.plan.table_beta)
    trainer.compile(keras.optimizers.AdamW(3e-3, weight_decay=1e-2))
    train, count = case.dataset.train, steps // 2 * batch_size
    trainer.fit(
        np.asarray(train.images[:count]),
        train.labels[:count],
        batch_size,
        epochs=2,
        verbose=0,
        callbacks=[clock],
    )
    test, start = case.dataset.test, time.perf_counter()
    compute_states(case.model, test.images, test.labels, verbose=0)
    states = (time.perf_counter() - start) / len(test)
    return {"sweep": sweep, "images": clock.seconds / batch_size, "states": states}


class _Clock(keras.callbacks.Callback):
    """Mean seconds of a training step, without the first, which builds the graph."""

    def on_train_begin(self, logs=None):
        self._steps = 0

    def on_train_batch_end(self, batch, logs=None):
        if self._steps == 0:
            self._start = time.perf_counter()
        else:
            self.seconds = (time.perf_counter() - self._start) / self._steps
        self._steps += 1


def _gradient_function(sweep: ControllerSweep):
    """(inputs, correct) to the loss's gradient in one vector; without dropout."""

    @tf.function
    def gradient(x, correct):
        with tf.GradientTape() as tape:
            loss = sweep.compute_loss(x, correct, sweep(x, training=False))
        found = tape.gradient(loss, sweep.trainable_weights)
        return tf.concat([tf.reshape(g, [-1]) for g in found], axis=0)

    return gradient
