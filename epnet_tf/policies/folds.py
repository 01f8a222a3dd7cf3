"""Scores of policies that are tuned on the very images that they are scored on."""

from collections.abc import Callable

import numpy as np

from epnet_tf.model.states import ExitStates
from epnet_tf.policies.policy import Policy, Score, score_exits

_FOLDS = 5


def score_folded(tune: Callable[[ExitStates], Policy], states: ExitStates) -> Score:
    """Scores what tuning on some images is worth on others.

    Each fifth of the images is decided on by a policy tuned on the other four. Tuned on
    all, a policy suits just these: with few images it scores points too high.

    Args:
        tune: States to a policy tuned on them.
        states: States of images that nothing else was trained on.

    Returns:
        The `Score` over all images.

    Raises:
        ValueError: If there are less than 2 images.
    """
    if len(states) < 2:
        raise ValueError(
            f"Expected states of at least 2 images. Received: {len(states)}."
        )
    count = min(_FOLDS, len(states))
    folds = np.random.default_rng(0).permutation(len(states)) % count
    exits = np.empty(len(states), int)
    for fold in range(count):
        policy = tune(states.take(np.flatnonzero(folds != fold)))
        held_out = np.flatnonzero(folds == fold)
        exits[held_out] = policy.decide(states.take(held_out))
    return score_exits(exits, states, policy.costs)
