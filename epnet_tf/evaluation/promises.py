"""Budgets, kept: what was promised on validation images, and what test images took."""

from collections.abc import Sequence

import numpy as np

from epnet_tf import policies
from epnet_tf.model import EPNet, ExitStates
from epnet_tf.model.cost import ExitCosts
from epnet_tf.policies import budget
from epnet_tf.runtime import units


def check(
    costs: ExitCosts,
    budgets: Sequence[str] = (),
    accuracy_drops: Sequence[float] = (),
) -> None:
    """Checks promises, before the work that finds out whether they can be kept.

    Args:
        costs: The model's costs.
        budgets: As in `keep`.
        accuracy_drops: As in `keep`.

    Raises:
        ValueError: If one of them is no number.
    """
    for text in budgets:
        budget.parse(text, costs)
    budget.check_drops(accuracy_drops)


def keep(
    model: EPNet,
    validation: ExitStates,
    test: ExitStates,
    budgets: Sequence[str] = (),
    accuracy_drops: Sequence[float] = (),
) -> list[dict]:
    """Finds the β that keeps each promise, and measures on test images what came of it.

    Args:
        model: An `EPNet` with `beta_range`, trained on neither of the states.
        validation: States to find β on.
        test: States to measure on.
        budgets: Mean costs, as `budget.parse` takes them.
        accuracy_drops: Percentage points that may be lost against the full network.

    Returns:
        For each promise a dict: `promise` (as given), `unit` ("MACs", the unit of the
        model's costs, or "points"), `limit`, `beta`, `validation` and `test` (what was
        limited, in its unit), `kept` on the test images, and there `accuracy` (0 to
        1), `mean_cost` and `share` of the full network; and `p90` as in `choose`.

    Raises:
        ValueError: If a promise is no number, or none of the β can keep it.
    """
    rows = []
    candidates = budget.epnet_candidates(model)
    for promise, choice in choose(
        model, candidates, validation, budgets, accuracy_drops
    ):
        score = policies.score(choice.policy, test)
        found = score.mean_cost
        if promise["unit"] == "points":
            found = 100.0 * float(budget.lost(choice.policy, test).mean())
        rows.append(
            promise
            | {
                "test": found,
                "kept": found <= choice.limit,
                "accuracy": score.accuracy,
                "mean_cost": score.mean_cost,
                "share": score.mean_cost / model.exit_costs.full,
            }
        )
    return rows


def choose(
    model: EPNet,
    candidates: budget.Candidates,
    validation: ExitStates,
    budgets: Sequence[str] = (),
    accuracy_drops: Sequence[float] = (),
) -> list[tuple[dict, budget.Choice]]:
    """Finds the β that keeps each promise with confidence 95%.

    Args:
        model: The `EPNet`.
        candidates: Policies by β, the dearest first (see `policies.budget`).
        validation: States of images that no policy was trained on.
        budgets: As in `keep`.
        accuracy_drops: As in `keep`.

    Returns:
        For each promise a dict `promise` (as given), `unit` ("MACs", the unit of the
        model's costs, or "points"), `limit`, `beta` and `validation` (what was
        limited, in its unit), and, where costs were measured by a clock, `p90`: the
        mean on the validation images if each took what nine of ten that leave through
        its exit take at most, as the clock's noise is not covered; and the choice
        itself.

    Raises:
        ValueError: If a promise is no number, or none of the β can keep it.
    """
    found = []
    costs = model.exit_costs
    for text in budgets:
        limit = budget.parse(text, costs)
        choice = budget.meet_cost(candidates, validation, limit)
        many = units.words(costs.unit)[1]
        promise = f"at most {text.strip().removesuffix(costs.unit).strip()} {many}"
        found.append((promise, units.name(costs.unit), choice))
    for points in accuracy_drops:
        choice = budget.meet_accuracy_drop(candidates, validation, points)
        found.append((f"at most {points:g} points lost", "points", choice))
    return [
        (
            {
                "promise": promise,
                "unit": unit,
                "limit": choice.limit,
                "beta": choice.parameter,
                "validation": choice.measured,
            }
            | _noise(model, choice, validation),
            choice,
        )
        for promise, unit, choice in found
    ]


def _noise(model: EPNet, choice: budget.Choice, states: ExitStates) -> dict:
    """How far the clock's own noise may go, where a clock measured the costs."""
    if model.costs is None or model.costs.p90 is None:
        return {}
    exits = choice.policy.decide(states)
    return {"p90": float(np.array(model.costs.p90)[exits - 1].mean())}
