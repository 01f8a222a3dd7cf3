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
    full = model.exit_costs.full
    rows = []
    candidates = budget.epnet_candidates(model)
    for promise, choice in choose(
        candidates, validation, full, budgets, accuracy_drops
    ):
        score = policies.score(choice.policy, test)
        found = score.mean_macs
        if promise["unit"] == "points":
            found = 100.0 * float(budget.lost(choice.policy, test).mean())
        rows.append(
            promise
            | {
                "test": found,
                "kept": found <= choice.limit,
                "accuracy": score.accuracy,
                "mean_macs": score.mean_macs,
                "share": score.mean_macs / full,
            }
        )
    return rows


def choose(
    candidates: budget.Candidates,
    validation: ExitStates,
    full: int,
    budgets: Sequence[str] = (),
    accuracy_drops: Sequence[float] = (),
) -> list[tuple[dict, budget.Choice]]:
    """Finds the β that keeps each promise with confidence 95%.

    Args:
        candidates: Policies by β, the dearest first (see `policies.budget`).
        validation: States of images that no policy was trained on.
        full: Multiply-adds of the plain network.
        budgets: As in `keep`.
        accuracy_drops: As in `keep`.

    Returns:
        For each promise a dict `promise` (as given), `unit` ("MACs" or "points"),
        `limit`, `beta` and `validation` (what was limited, in its unit); and the
        choice itself.

    Raises:
        ValueError: If a promise is no number, or none of the β can keep it.
    """
    found = []
    for text in budgets:
        choice = budget.meet_macs(candidates, validation, budget.parse_macs(text, full))
        found.append((f"at most {text} multiply-adds", "MACs", choice))
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
            },
            choice,
        )
        for promise, unit, choice in found
    ]
