"""Budgets, kept: what was promised on validation images, and what test images took."""

from collections.abc import Sequence

from epnet_tf import policies
from epnet_tf.model import EPNet, ExitStates
from epnet_tf.policies import budget


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
        budgets: Mean multiply-adds, such as "10e6" or "45%" of the full network.
        accuracy_drops: Percentage points that may be lost against the full network.

    Returns:
        For each promise a dict: `promise` (as given), `unit` ("MACs" or "points"),
        `limit`, `beta`, `validation` and `test` (what was limited, in its unit),
        `kept` on the test images, and there `accuracy` (0 to 1), `mean_macs` and
        `share` of the full network.

    Raises:
        ValueError: If a promise is no number, or none of the β can keep it.
    """
    candidates = budget.epnet_candidates(model)
    full = model.exit_costs.full
    rows = []
    for text in budgets:
        choice = budget.meet_macs(candidates, validation, budget.parse_macs(text, full))
        score = policies.score(choice.policy, test)
        promise = f"at most {text} multiply-adds"
        rows.append(_row(promise, "MACs", choice, score, score.mean_macs, full))
    for points in accuracy_drops:
        choice = budget.meet_accuracy_drop(candidates, validation, points)
        score = policies.score(choice.policy, test)
        lost = 100.0 * float(budget.lost(choice.policy, test).mean())
        promise = f"at most {points:g} points lost"
        rows.append(_row(promise, "points", choice, score, lost, full))
    return rows


def _row(promise, unit, choice: budget.Choice, score, found: float, full) -> dict:
    return {
        "promise": promise,
        "unit": unit,
        "limit": choice.limit,
        "beta": choice.parameter,
        "validation": choice.measured,
        "test": found,
        "kept": found <= choice.limit,
        "accuracy": score.accuracy,
        "mean_macs": score.mean_macs,
        "share": score.mean_macs / full,
    }
