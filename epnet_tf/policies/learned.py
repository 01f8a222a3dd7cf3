"""The learned policy: controllers that decide on exit states."""

from collections.abc import Sequence

import keras
import numpy as np

from epnet_tf import objective
from epnet_tf.model.states import ExitStates
from epnet_tf.model.transfer import controllers
from epnet_tf.policies.policy import Policy

# The values of a controller's trainable and other variables, for each exit.
ControllerWeights = Sequence[tuple[list[np.ndarray], list[np.ndarray]]]


def epnet(
    model: keras.Model,
    beta: float | None = None,
    weights: ControllerWeights | None = None,
    threshold: float = 0.0,
    name: str = "epnet",
) -> Policy:
    """The controllers of an EPNet: leave where the first stop logit is above 0.

    Args:
        model: The `EPNet`, read when the policy decides.
        beta: Cost sensitivity, for a model with `beta_range`.
        weights: As from `controller_weights`; None for those that the model has when
            the policy decides.
        threshold: Stop logit above which to leave; 0 is probability ½.
        name: Name of the policy.
    """

    def decide(states: ExitStates) -> np.ndarray:
        stops = stop_logits(model, states, beta, weights)
        return np.asarray(objective.first_stop(stops, threshold)) + 1

    return Policy(name, decide, model.exit_costs.with_controllers)


def epnet_matched(
    model: keras.Model,
    weights: ControllerWeights,
    validation: ExitStates,
    mean_cost: float,
) -> Policy:
    """An EPNet's controllers with the threshold that spends about so much.

    Args:
        model: The `EPNet`.
        weights: As from `controller_weights`.
        validation: States of held-out images.
        mean_cost: What an image may cost on average.
    """
    stops = stop_logits(model, validation, None, weights)
    costs = model.exit_costs.with_controllers
    low, high = float(stops.min()), float(stops.max())
    for _ in range(30):  # The higher the threshold, the more is spent.
        middle = (low + high) / 2
        spent = costs[np.asarray(objective.first_stop(stops, middle))].mean()
        low, high = (middle, high) if spent <= mean_cost else (low, middle)
    return epnet(model, None, weights, low)


def controller_weights(model: keras.Model) -> ControllerWeights:
    """The values of all controllers' variables, as they are now."""
    return [
        (
            [v.numpy() for v in controller.trainable_variables],
            [v.numpy() for v in controller.non_trainable_variables],
        )
        for controller in controllers(model)
    ]


def assign_controllers(model: keras.Model, weights: ControllerWeights) -> None:
    """Gives the controllers what `controller_weights` had of others like them."""
    for controller, (trainable, other) in zip(controllers(model), weights, strict=True):
        own = controller.trainable_variables + controller.non_trainable_variables
        for variable, value in zip(own, [*trainable, *other], strict=True):
            variable.assign(value)


def stop_logits(
    model: keras.Model,
    states: ExitStates,
    beta: float | None = None,
    weights: ControllerWeights | None = None,
) -> np.ndarray:
    """What the controllers say of exit states.

    Args:
        model: The `EPNet`.
        states: States of n images.
        beta: Cost sensitivity, for a model with `beta_range`.
        weights: As from `controller_weights`; None for those that the model has.

    Returns:
        Stop logits, float32 [n, N − 1].

    Raises:
        ValueError: If the states are of another number of exits.
    """
    if states.logits.shape[1] != model.num_exits:
        raise ValueError(
            f"Expected states of the model's {model.num_exits} exits. "
            f"Received: states of {states.logits.shape[1]}."
        )
    inputs = [] if beta is None else [np.full([len(states), 1], beta, "float32")]
    stops = []
    for i, controller in enumerate(controllers(model)):
        trainable, other = (
            weights[i]
            if weights
            else (controller.trainable_variables, controller.non_trainable_variables)
        )
        stop, _ = controller.stateless_call(
            trainable,
            other,
            [states.pooled[i], states.logits[:, i], *inputs],
            training=False,
        )
        stops.append(np.asarray(stop))
    return np.concatenate(stops, axis=1)
