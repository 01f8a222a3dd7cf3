"""Stage two: controllers, by the exact expected benefit, on images or on states."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from epnet_tf import objective
from epnet_tf.model import transfer
from epnet_tf.training.trainer import ExitTrainer


@keras.saving.register_keras_serializable("epnet_tf")
class ControllerTrainer(ExitTrainer):
    """Trains the controllers of an EPNet by the exact expected benefit (4.2, 4.3).

    Main branch and classifiers are frozen and run in inference mode. Compile with an
    optimizer (the loss is built in: minus the expected benefit) and fit on raw images
    and labels, or, far faster, on `ExitStates.inputs`, computed once; the gradients
    are the same. Reports `benefit`, `accuracy` and `mean_cost` of the policy as it
    will run, with hard stops; with `beta_range`, at both ends and in the (geometric)
    middle of the range.

    Args:
        model: The `EPNet` whose controllers are trained in place.
        beta: Cost sensitivity, points per unit of cost; becomes `model.beta`. None
            for a model with `beta_range`: there β is drawn log-uniformly from the
            range for each image of each batch.
        seed: Seed of the β drawn.

    Raises:
        ValueError: If the model has one exit only, or β is missing, negative or
            superfluous.
    """

    def __init__(
        self, model: keras.Model, beta: float | None = None, seed: int = 0, **kwargs
    ):
        # Controllers are in float32 in every precision, and so are their inputs and β.
        super().__init__(model, dtype="float32", **kwargs)
        check_betas(beta, model)
        self.controllers = transfer.controllers(model)
        self.costs = tuple(float(c) for c in model.exit_costs.with_controllers)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # Above 0 while `Exploration` is at work.
        self.temperature = self.add_weight(
            (), initializer="zeros", trainable=False, name="temperature"
        )
        report_at: dict[str, float | None] = {"": None}
        if beta is not None:
            self.beta = self.add_weight((), trainable=False, name="beta")
            self.set_beta(beta)
        else:
            low, high = model.beta_range
            report_at = {f"_{b:.1e}": b for b in (low, math.sqrt(low * high), high)}
        self.policy_metrics = {
            name: (
                at,
                keras.metrics.Mean(name=f"benefit{name}"),
                keras.metrics.Mean(name=f"accuracy{name}"),
                keras.metrics.Mean(name=f"mean_cost{name}"),
            )
            for name, at in report_at.items()
        }

    def set_beta(self, beta: float):
        """Changes β without compiling anew.

        Args:
            beta: Cost sensitivity, points per unit of cost.

        Raises:
            ValueError: If β is negative.
        """
        objective.check_beta(beta)
        paid = self.model.exit_costs
        objective.warn_of_beta(beta, paid.full, paid.unit)
        self.beta.assign(beta)
        self.model.beta = float(beta)

    @property
    def trainable_weights(self):
        """The controllers' alone: main branch and classifiers are frozen."""
        return [w for c in self.controllers for w in c.trainable_weights]

    def call(self, inputs, training=None):
        """States of the images, β and the stop logits [b, N − 1].

        Args:
            inputs: Images [b, h, w, c], or states as `ExitStates.inputs` gives them.
            training: Whether the controllers run in training mode.
        """
        states = inputs
        if not isinstance(inputs, dict):
            states = keras.tree.map_structure(
                ops.stop_gradient, self.states(inputs, training=False)
            )
        beta = self._beta_for(states["logits_01"])
        return {**states, "beta": beta, "stops": self._stops(states, beta, training)}

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Minus the training objective, mean over the batch; with a range, relative."""
        correct = ops.stack(self.correct(y, self.logits(y_pred)), axis=-1)
        objectives = objective.training_objective(
            y_pred["stops"],
            correct,
            self.costs,
            y_pred["beta"],
            self.temperature,
            relative=self.model.beta_range is not None,
        )
        return self.mean_loss(-objectives, sample_weight)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Benefit, accuracy and mean cost with hard stops."""
        correct = ops.stack(self.correct(y, self.logits(y_pred)), axis=-1)
        costs = ops.convert_to_tensor(self.costs)
        for beta, *metrics in self.policy_metrics.values():
            stops, betas = y_pred["stops"], y_pred["beta"][:, 0]
            if beta is not None:
                betas = ops.full_like(betas, beta)
                stops = self._stops(y_pred, betas[:, None], training=False)
            left = ops.one_hot(objective.first_stop(stops), len(self.costs))
            right, spent = ops.sum(left * correct, axis=-1), ops.sum(left * costs, -1)
            benefits = objective.benefit(right, spent, betas)
            for metric, value in zip(metrics, (benefits, right, spent), strict=True):
                metric.update_state(value, sample_weight)
        return self.get_metrics_result()

    def get_config(self):
        """The constructor's arguments."""
        return super().get_config() | {"beta": self.model.beta, "seed": self.seed}

    def _beta_for(self, logits):
        """β of each image of a batch: [b, 1]."""
        shape = (ops.shape(logits)[0], 1)
        if self.model.beta_range is None:
            return ops.broadcast_to(self.beta, shape)
        return draw_betas(shape[0], self.model.beta_range, self.seed_generator)

    def _stops(self, states, beta, training):
        inputs = [beta] if self.model.beta_range else []
        stops = [
            controller(
                [states[f"pooled_{i:02d}"], states[f"logits_{i:02d}"], *inputs],
                training=training,
            )
            for i, controller in enumerate(self.controllers, start=1)
        ]
        return ops.concatenate(stops, axis=-1)


def check_betas(betas: float | Sequence[float] | None, model: keras.Model) -> None:
    """Checks the β that a model's controllers are to be trained for.

    Args:
        betas: One cost sensitivity or several, points per unit of cost, or None.
        model: The `EPNet`.

    Raises:
        ValueError: If the model has one exit only, or thresholds instead of
            controllers, or β is missing without a range, superfluous with one, or
            negative.
    """
    if model.num_exits < 2:
        raise ValueError("Expected a model with 2 exits or more. Received: 1 exit.")
    if model.confidence is not None:
        raise ValueError(
            "Expected a model with controllers, such as with_new_controllers("
            f"Controller()) makes. Received: '{model.name}' with thresholds instead."
        )
    if (betas is None) != (model.beta_range is not None):
        raise ValueError(
            "Expected a beta for a model without beta_range, and none with it. "
            f"Received: beta={betas}, beta_range={model.beta_range}."
        )
    for beta in [] if betas is None else np.atleast_1d(betas):
        objective.check_beta(beta)


def draw_betas(count, beta_range: tuple[float, float], seed_generator):
    """Draws a β for each image, log-uniformly.

    Args:
        count: Number of images b.
        beta_range: Lowest and highest cost sensitivity, points per unit of cost.
        seed_generator: A `keras.random.SeedGenerator`.

    Returns:
        float32 [b, 1].
    """
    low, high = (math.log(beta) for beta in beta_range)
    return ops.exp(keras.random.uniform((count, 1), low, high, seed=seed_generator))
