"""Policies on the same exits: how they did on the test set."""

import dataclasses

import numpy as np

from epnet_tf import policies
from epnet_tf.model import ExitStates
from epnet_tf.policies import Policy, Score


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What one policy did on the test set.

    Attributes:
        exits: int [n], where each image left, counted from 1.
        score: Its score.
    """

    exits: np.ndarray
    score: Score


# Name of the policy, then β, to the outcome of each seed.
Outcomes = dict[str, dict[float, list[Outcome]]]
Contestants = dict[str, dict[float, list[Policy]]]


def outcomes(found: Contestants, test: ExitStates) -> Outcomes:
    """Lets every policy decide on the test set, once.

    Args:
        found: The policies.
        test: States of the test images.

    Returns:
        The outcomes.
    """
    return {
        name: {b: [outcome(p, test) for p in seeds] for b, seeds in of_betas.items()}
        for name, of_betas in found.items()
    }


def outcome(policy: Policy, states: ExitStates) -> Outcome:
    """Lets one policy decide.

    Args:
        policy: The policy.
        states: States of the images.
    """
    exits = policy.decide(states)
    return Outcome(exits, policies.score_exits(exits, states, policy.costs))
