"""The learned policy: controllers that decide on exit states."""

import keras
import numpy as np

from epnet_tf import objective
from epnet_tf.policies.policy import Policy
from epnet_tf.training.states import ExitStates


def epnet(model: keras.Model, beta: float | None = None) -> Policy:
    """The controllers of an EPNet: leave where the first stop logit is above 0.

    Args:
        model: The `EPNet`, read when the policy decides.
        beta: Cost sensitivity, for a model with `beta_range`.
    """
    return Policy(
        "epnet",
        lambda states: (
            np.asarray(objective.first_stop(stop_logits(model, states, beta))) + 1
        ),
        model.exit_costs.with_controllers,
    )


def stop_logits(
    model: keras.Model, states: ExitStates, beta: float | None = None
) -> np.ndarray:
    """What the controllers say of exit states.

    Args:
        model: The `EPNet`.
        states: States of n images.
        beta: Cost sensitivity, for a model with `beta_range`.

    Returns:
        Stop logits, float32 [n, N − 1].
    """
    inputs = [] if beta is None else [np.full([len(states), 1], beta, "float32")]
    stops = [
        model.get_layer(f"controller_{i:02d}")(
            [pooled, states.logits[:, i - 1], *inputs]
        )
        for i, pooled in enumerate(states.pooled, start=1)
    ]
    return np.concatenate([np.asarray(stop) for stop in stops], axis=1)
