"""Tables of outcomes and exit states, as lists of dicts for JSON."""

import numpy as np

from epnet_tf.evaluation import paper
from epnet_tf.evaluation.contest import Outcomes
from epnet_tf.evaluation.reports import row
from epnet_tf.model import ExitStates


def mean_score(results: Outcomes, name: str, beta: float) -> dict:
    """A policy at one β, mean over seeds; as in `reports.row`."""
    return row(beta, [outcome.score for outcome in results[name][beta]])


def budget_table(results: Outcomes, beta: float, num_classes: int, name: str) -> list:
    """Table 1: what each policy gets right with the compute that EPNet spent.

    A policy that runs out guesses the rest of the images.

    Args:
        results: Outcomes on the test set.
        beta: Cost sensitivity of the policies that have one.
        num_classes: Number of classes.
        name: Name of the data set, for the paper's numbers.

    Returns:
        A dict for each policy but the bound, best first: `policy`, `accuracy` and
        `budget_accuracy` in per cent, `rank`, `complete`, `share` (of images answered)
        and `paper`, the paper's two numbers or None.
    """
    budget = mean_score(results, "epnet", beta)["mean_cost"]
    rows = []
    for policy, of_betas in results.items():
        if policy == "hindsight" or beta not in of_betas:
            continue
        score = mean_score(results, policy, beta)
        share, within = within_budget(budget, score, num_classes)
        rows.append(
            {
                "policy": policy,
                "accuracy": 100.0 * score["accuracy"],
                "budget_accuracy": within,
                "complete": share == 1.0,
                "share": share,
                "paper": paper.TABLE_1.get(name, {}).get(policy),
            }
        )
    rows.sort(key=lambda r: -r["budget_accuracy"])
    return [{**r, "rank": rank} for rank, r in enumerate(rows, start=1)]


def within_budget(budget: float, score: dict, num_classes: int) -> tuple[float, float]:
    """What a policy gets right within a budget; images beyond it are guessed.

    Args:
        budget: Mean cost that an image may have.
        score: The policy's row, see `reports.row`.
        num_classes: Number of classes.

    Returns:
        The share of images that are answered, and the accuracy in per cent.
    """
    share = min(1.0, budget / score["mean_cost"])
    accuracy = 100.0 * score["accuracy"]
    return share, share * accuracy + (1 - share) * 100.0 / num_classes


def way_to_hindsight(results: Outcomes) -> list[dict]:
    """How far each policy gets from the best static exit to the bound.

    Returns:
        For each β a dict `beta`, and of each policy the per cent of the way; none for
        a β where the best static exit is the bound.
    """
    rows = []
    for beta in results["static"]:
        low, high = (
            mean_score(results, name, beta)["benefit"]
            for name in ("static", "hindsight")
        )
        if low == high:
            continue
        ways = {
            name: 100.0
            * (mean_score(results, name, beta)["benefit"] - low)
            / (high - low)
            for name in results
            if beta in results[name] and name not in ("static", "hindsight")
        }
        rows.append({"beta": beta, **ways})
    return rows


def exit_profile(states: ExitStates, exits: np.ndarray) -> list[dict]:
    """Figure 9: of each exit its accuracy on all, on those that left, and their share.

    Args:
        states: States of n images.
        exits: int [n], where each left, counted from 1.

    Returns:
        For each exit `accuracy_all`, `accuracy_left` (None if nobody did), `rate`, all
        0 to 1.
    """
    rows: list[dict] = []
    for i in range(states.correct.shape[1]):
        left, right = exits == i + 1, states.correct[:, i]
        rows.append(
            {
                "accuracy_all": float(right.mean()),
                "accuracy_left": float(right[left].mean()) if left.any() else None,
                "rate": float(left.mean()),
            }
        )
    return rows


def calibration(states: ExitStates, bins: int = 15) -> list[dict]:
    """How far each exit's confidence is from its accuracy.

    Args:
        states: States of n images.
        bins: Number of bins, with as many images in each, one at least.

    Returns:
        For each exit `confidence` and `accuracy` of each bin, and `error`, the mean
        over images of the bins' distance (expected calibration error), all 0 to 1.
    """
    rows = []
    for i in range(states.correct.shape[1]):
        sureness = states.probabilities[:, i].max(axis=-1)
        parts = np.array_split(sureness.argsort(), min(bins, len(states)))
        confidence = np.array([sureness[p].mean() for p in parts])
        accuracy = np.array([states.correct[p, i].mean() for p in parts])
        sizes = np.array([len(p) for p in parts]) / len(states)
        rows.append(
            {
                "confidence": confidence.tolist(),
                "accuracy": accuracy.tolist(),
                "error": float((sizes * np.abs(confidence - accuracy)).sum()),
            }
        )
    return rows
