"""What a policy is, and how one is scored."""

import dataclasses
from collections.abc import Callable

import numpy as np

from epnet_tf import objective
from epnet_tf.model.states import ExitStates


@dataclasses.dataclass(frozen=True)
class Policy:
    """A rule for leaving.

    Attributes:
        name: As in reports and figures.
        decide: Exit states of n images to the exit of each, int [n], counted from 1.
        costs: [N]; what leaving through each exit costs, in the model's unit: a policy
            pays for the classifiers and controllers that it executes, and no others.
    """

    name: str
    decide: Callable[[ExitStates], np.ndarray]
    costs: np.ndarray


@dataclasses.dataclass(frozen=True)
class Score:
    """How a policy did on some images.

    Attributes:
        accuracy: Share of images with the right label, 0 to 1.
        mean_cost: Mean cost of an image, in the unit of the policy's costs.
        exit_rates: [N]; share of images that left through each exit.
    """

    accuracy: float
    mean_cost: float
    exit_rates: np.ndarray

    def benefit(self, beta: float) -> float:
        """Benefit in percentage points (equation 1) at a cost sensitivity."""
        return objective.benefit(self.accuracy, self.mean_cost, beta)


def score(policy: Policy, states: ExitStates) -> Score:
    """Scores a policy.

    Args:
        policy: The policy.
        states: States of the images.

    Returns:
        The `Score`.
    """
    return score_exits(policy.decide(states), states, policy.costs)


def score_exits(exits: np.ndarray, states: ExitStates, costs: np.ndarray) -> Score:
    """Scores a choice of exits.

    Args:
        exits: int [n], counted from 1.
        states: States of the images.
        costs: [N]; what leaving through each exit costs.

    Returns:
        The `Score`.
    """
    index = np.asarray(exits) - 1
    return Score(
        accuracy=float(states.correct[np.arange(len(index)), index].mean()),
        mean_cost=float(np.asarray(costs)[index].mean()),
        exit_rates=np.bincount(index, minlength=len(costs)) / len(index),
    )
