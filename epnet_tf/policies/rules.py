"""Policies without learning: fixed exits and thresholds on confidence."""

import numpy as np

from epnet_tf.model.cost import ExitCosts
from epnet_tf.policies.policy import Policy, score_exits
from epnet_tf.training.states import ExitStates


def resnet(costs: ExitCosts) -> Policy:
    """The plain network: everyone leaves through the last exit."""
    return _always(len(costs.alone), costs, "resnet")


def static(validation: ExitStates, costs: ExitCosts, beta: float) -> Policy:
    """The one exit that is best for everyone, chosen on validation states.

    Args:
        validation: States of held-out images.
        costs: The model's costs.
        beta: Cost sensitivity, percentage points per MAC.
    """
    accuracy = validation.correct.mean(axis=0)
    best = (100.0 * accuracy - beta * costs.alone).argmax()
    return _always(int(best) + 1, costs, "static")


def softmax_gate(gamma: float, costs: ExitCosts, name: str | None = None) -> Policy:
    """Leaves where the largest softmax probability is above 1 − γ (paper, 5.2).

    Args:
        gamma: What the largest probability may lack to 1.
        costs: The model's costs.
        name: Name of the policy; by default it says γ.
    """
    return Policy(
        name or f"softmax-gate-{gamma:g}",
        lambda states: first_below(lack_of_confidence(states), gamma),
        costs.with_classifiers,
    )


def softmax_gate_tuned(validation: ExitStates, costs: ExitCosts, beta: float) -> Policy:
    """The softmax gate whose γ has the highest benefit on validation states.

    Args:
        validation: States of held-out images.
        costs: The model's costs.
        beta: Cost sensitivity, percentage points per MAC.
    """
    lack = lack_of_confidence(validation)
    gammas = candidates(lack)
    benefits = [
        score_exits(first_below(lack, g), validation, costs.with_classifiers).benefit(
            beta
        )
        for g in gammas
    ]
    best = float(gammas[int(np.argmax(benefits))])
    return softmax_gate(best, costs, "softmax-gate-tuned")


def lack_of_confidence(states: ExitStates) -> np.ndarray:
    """One minus the largest softmax probability: float64 [n, N].

    Summed up from the other classes, so that 1e-9 differs from 1e-12.
    """
    logits = states.logits.astype("float64")
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (p.sum(axis=-1) - 1.0) / p.sum(axis=-1)


def first_below(values: np.ndarray, thresholds) -> np.ndarray:
    """The first exit at which a value is below its threshold, else the last.

    Args:
        values: [n, N].
        thresholds: A scalar, or [N].

    Returns:
        int [n], counted from 1.
    """
    below = values < thresholds
    below[:, -1] = True
    return below.argmax(axis=1) + 1


def candidates(values: np.ndarray, count: int = 500) -> np.ndarray:
    """Thresholds worth trying: quantiles of the values, and beyond both ends."""
    quantiles = np.quantile(values, np.linspace(0, 1, count))
    return np.unique(np.concatenate([[0.0], quantiles, [np.inf]]))


def _always(exit_number: int, costs: ExitCosts, name: str) -> Policy:
    return Policy(name, lambda states: np.full(len(states), exit_number), costs.alone)
