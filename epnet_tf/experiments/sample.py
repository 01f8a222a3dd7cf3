"""A few test images with what policies do on them: scores that anyone can redo."""

import os

import numpy as np

from epnet_tf import policies
from epnet_tf.experiments.case import Case
from epnet_tf.experiments.case_controllers import kept_controllers
from epnet_tf.files import write_whole
from epnet_tf.model import EPNet, ExitStates, compute_states


def write(
    case: Case, file: str | os.PathLike, count: int = 500
) -> dict[str, list[float]]:
    """Writes the first test images.

    Args:
        case: The case.
        file: The .npz file to write: `images`, `labels`.
        count: Number of images.

    Returns:
        How a few policies score on them, see `scores`.
    """
    test = case.dataset.test
    with write_whole(file) as path, path.open("wb") as stream:
        np.savez_compressed(
            stream, images=test.images[:count], labels=test.labels[:count]
        )
    return scores(case.model, case.folder, case.test.take(slice(count)))


def recompute(
    model: EPNet, folder: str | os.PathLike, file: str | os.PathLike
) -> dict[str, list[float]]:
    """Scores the policies on the images of a file anew.

    Args:
        model: The `EPNet` of the case.
        folder: Where its controllers are kept.
        file: As from `write`.

    Returns:
        What comes out, see `scores`.
    """
    with np.load(file) as kept:
        states = compute_states(model, kept["images"], kept["labels"], verbose=0)
    return scores(model, folder, states)


def scores(
    model: EPNet, folder: str | os.PathLike, states: ExitStates
) -> dict[str, list[float]]:
    """Accuracy and mean cost of the policies that need no other states.

    Args:
        model: The `EPNet` of the case.
        folder: Where its controllers are kept.
        states: States of the images.

    Returns:
        For `epnet` at each β (seed 0), and for fixed rules: accuracy (0 to 1), mean
        cost.
    """
    costs = model.exit_costs
    found = {
        policy.name: policy
        for policy in (
            policies.resnet(costs),
            policies.branchynet(0.3, costs),
            policies.softmax_gate(0.1, costs),
        )
    }
    for beta, weights in kept_controllers(folder, "epnet", seed=0).items():
        found[f"epnet at {beta:g}"] = policies.epnet(model, weights=weights)
    results = {name: policies.score(p, states) for name, p in found.items()}
    return {name: [s.accuracy, s.mean_cost] for name, s in results.items()}
