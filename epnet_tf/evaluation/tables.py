"""The paper's tables, and what goes beyond them, as lists of dicts for JSON."""

import numpy as np

from epnet_tf import policies
from epnet_tf.evaluation import paper
from epnet_tf.evaluation.case import Case, trained_controllers
from epnet_tf.evaluation.contest import Outcomes
from epnet_tf.evaluation.reports import row
from epnet_tf.model import PaperController
from epnet_tf.training import ExitStates


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
    budget = mean_score(results, "epnet", beta)["mean_macs"]
    rows = []
    for policy, of_betas in results.items():
        if policy == "hindsight" or beta not in of_betas:
            continue
        score = mean_score(results, policy, beta)
        share, within = _within(budget, score, num_classes)
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


def controller_table(case: Case) -> list[dict]:
    """Table 2: the paper's four controllers, and ours.

    Args:
        case: The case.

    Returns:
        A dict for each: `f_in`, `f_cat` (None for ours), benefit and its deviation,
        `accuracy` (0 to 1), `mean_macs`, `controller_macs` (mean over exits) and
        `paper`, the paper's row or None.
    """
    beta = case.plan.table_beta
    rows: list[dict] = []
    for i, (f_in, f_cat, *numbers) in enumerate(paper.TABLE_2, start=1):
        controller = PaperController(f_in, f_cat)
        model = case.model.with_new_controllers(controller)
        if controller == case.plan.paper_controller:
            found = _table_2_row(case, model, "epnet-paper", case.plan.all_betas)
        else:
            found = _table_2_row(case, model, f"table2-{i}", (beta,))
        rows.append({"f_in": f_in, "f_cat": f_cat, **found, "paper": numbers})
    ours = _table_2_row(case, case.model, "epnet", case.plan.all_betas)
    return [*rows, {"f_in": None, "f_cat": None, **ours, "paper": None}]


def way_to_hindsight(results: Outcomes) -> list[dict]:
    """How far each policy gets from the best static exit to the bound.

    Returns:
        For each β a dict `beta`, and of each policy the per cent of the way.
    """
    rows = []
    for beta in results["static"]:
        low, high = (
            mean_score(results, name, beta)["benefit"]
            for name in ("static", "hindsight")
        )
        ways = {
            name: 100.0
            * (mean_score(results, name, beta)["benefit"] - low)
            / (high - low)
            for name in results
            if beta in results[name] and name not in ("static", "hindsight")
        }
        rows.append({"beta": beta, **ways})
    return rows


def at_share(case: Case) -> dict | None:
    """EPNet within the paper's share of the full network's compute.

    For each β the threshold of the stop logit is set to meet the budget; the β with
    the highest accuracy then is taken. Both are chosen on validation images; where
    the test images take more, the last of them are guessed, as in Table 1.

    Args:
        case: The case.

    Returns:
        `share` allowed and `spent`, `beta`, `accuracy` and its deviation,
        `budget_accuracy`, `last_exit` (all accuracies in per cent), or None without a
        paper's share.
    """
    if case.plan.share is None:
        return None
    budget = case.plan.share * case.model.exit_costs.full
    weights, _ = trained_controllers(case, "epnet")
    matched = [
        [policies.epnet_matched(case.model, w, case.validation, budget) for w in seeds]
        for seeds in weights
    ]
    right = [
        np.mean([policies.score(p, case.validation).accuracy for p in seeds])
        for seeds in matched
    ]
    chosen = int(np.argmax(right))
    beta = case.plan.all_betas[chosen]
    scores = [policies.score(p, case.test) for p in matched[chosen]]
    score = row(beta, scores)
    _, within = _within(budget, score, case.dataset.num_classes)
    return {
        "share": case.plan.share,
        "spent": score["mean_macs"] / case.model.exit_costs.full,
        "beta": beta,
        "accuracy": 100.0 * score["accuracy"],
        "accuracy_std": float(np.std([100.0 * s.accuracy for s in scores])),
        "budget_accuracy": within,
        "last_exit": 100.0 * float(case.test.correct[:, -1].mean()),
        "paper": paper.TABLE_1[case.dataset.name]["epnet"][0],
    }


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
        bins: Number of bins, with as many images in each.

    Returns:
        For each exit `confidence` and `accuracy` of each bin, and `error`, the mean
        over images of the bins' distance (expected calibration error), all 0 to 1.
    """
    rows = []
    for i in range(states.correct.shape[1]):
        sureness = states.probabilities[:, i].max(axis=-1)
        parts = np.array_split(sureness.argsort(), bins)
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


def _within(budget: float, score: dict, num_classes: int) -> tuple[float, float]:
    """The share of images that a budget of mean MACs allows, and the accuracy then.

    The rest is guessed; in per cent.
    """
    share = min(1.0, budget / score["mean_macs"])
    accuracy = 100.0 * score["accuracy"]
    return share, share * accuracy + (1 - share) * 100.0 / num_classes


def _table_2_row(case: Case, model, name: str, betas: tuple[float, ...]) -> dict:
    beta = case.plan.table_beta
    weights, _ = trained_controllers(case, name, model, betas)
    of_beta = weights[betas.index(beta)]
    found = [policies.epnet(model, weights=w) for w in of_beta]
    result = row(beta, [policies.score(p, case.test) for p in found])
    costs = model.exit_costs
    controllers = costs.with_controllers[-1] - costs.with_classifiers[-1]
    return {
        "benefit": result["benefit"],
        "benefit_std": result["benefit_std"],
        "accuracy": result["accuracy"],
        "mean_macs": result["mean_macs"],
        "controller_macs": float(controllers / (model.num_exits - 1)),
    }
