"""Tables for which controllers are trained: Table 2, and the paper's share of compute.

Lists of dicts for JSON, as in `epnet_tf.evaluation.tables`.
"""

import numpy as np

from epnet_tf import policies
from epnet_tf.evaluation import paper
from epnet_tf.evaluation.reports import row
from epnet_tf.evaluation.tables import within_budget
from epnet_tf.experiments.case import Case
from epnet_tf.experiments.case_controllers import trained_controllers
from epnet_tf.model import PaperController


def controller_table(case: Case) -> list[dict]:
    """Table 2: the paper's four controllers, on their own exits, and ours.

    Args:
        case: The case.

    Returns:
        A dict for each: `f_in`, `f_cat` (None for ours), benefit and its deviation,
        `accuracy` (0 to 1), `mean_cost`, `controller_macs` (mean over exits) and
        `paper`, the paper's row or None.
    """
    beta, theirs = case.plan.table_beta, case.paper
    rows: list[dict] = []
    for i, (f_in, f_cat, *numbers) in enumerate(paper.TABLE_2, start=1):
        controller = PaperController(f_in, f_cat)
        model = theirs.model.with_new_controllers(controller)
        if controller == case.plan.paper_controller:
            found = _table_2_row(theirs, model, "epnet-paper", case.plan.all_betas)
        else:
            found = _table_2_row(theirs, model, f"table2-{i}", (beta,))
        rows.append({"f_in": f_in, "f_cat": f_cat, **found, "paper": numbers})
    ours = _table_2_row(case, case.model, "epnet", case.plan.all_betas)
    return [*rows, {"f_in": None, "f_cat": None, **ours, "paper": None}]


def at_share(case: Case) -> dict | None:
    """EPNet within the paper's share of the full network's compute, see `within`.

    Args:
        case: The case.

    Returns:
        `share` allowed and `spent`, `beta`, `accuracy` and its deviation,
        `budget_accuracy`, `last_exit` (all accuracies in per cent), or None without a
        paper's share.
    """
    if case.plan.share is None:
        return None
    full = case.model.exit_costs.full
    found = within(case, case.plan.share * full)
    return {
        "share": case.plan.share,
        "spent": found.pop("mean_cost") / full,
        **found,
        "last_exit": 100.0 * float(case.test.correct[:, -1].mean()),
        "paper": paper.TABLE_1[case.dataset.name]["epnet"][0],
    }


def within(case: Case, budget: float) -> dict:
    """EPNet with a mean cost of an image that may be spent.

    For each β the threshold of the stop logit is set to meet the budget; the β with
    the highest accuracy then is taken. Both are chosen on validation images; where
    the test images take more, the last of them are guessed, as in Table 1.

    Args:
        case: The case.
        budget: Mean cost of an image, in the unit of the case's costs.

    Returns:
        `beta`, and on the test images `mean_cost`, `accuracy` and its deviation, and
        `budget_accuracy`, all in per cent.
    """
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
    _, budget_accuracy = within_budget(budget, score, case.dataset.num_classes)
    return {
        "beta": beta,
        "mean_cost": score["mean_cost"],
        "accuracy": 100.0 * score["accuracy"],
        "accuracy_std": float(np.std([100.0 * s.accuracy for s in scores])),
        "budget_accuracy": budget_accuracy,
    }


def _table_2_row(case: Case, model, name: str, betas: tuple[float, ...]) -> dict:
    beta = case.plan.table_beta
    weights, _ = trained_controllers(case, name, model, betas)
    of_beta = weights[betas.index(beta)]
    found = [policies.epnet(model, weights=w) for w in of_beta]
    result = row(beta, [policies.score(p, case.test) for p in found])
    costs = model.exit_macs
    controllers = costs.with_controllers[-1] - costs.with_classifiers[-1]
    return {
        "benefit": result["benefit"],
        "benefit_std": result["benefit_std"],
        "accuracy": result["accuracy"],
        "mean_cost": result["mean_cost"],
        "controller_macs": float(controllers / (model.num_exits - 1)),
    }
