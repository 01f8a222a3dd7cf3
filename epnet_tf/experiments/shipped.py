"""What is shipped for a β: controllers, or, where those are better, tuned thresholds.

Controllers learn from training images, and from few of them they learn by heart. A
threshold for each exit is the last resort: no experiment ships controllers that are
behind it on validation images.
"""

from collections.abc import Sequence

from absl import logging

from epnet_tf import policies
from epnet_tf.model import EPNet
from epnet_tf.model.states import ExitStates

# Names of policies, as in reports.
CONTROLLERS, THRESHOLDS = "epnet", "softmax-per-exit"


def choose(
    model: EPNet, validation: ExitStates, beta: float, promised: bool = False
) -> tuple[EPNet, dict]:
    """Takes the better of a model's controllers and tuned thresholds.

    Thresholds are tuned on validation images, which controllers have not seen; so they
    are compared as tuned on others (`policies.score_folded`).

    Args:
        model: The `EPNet`, its controllers trained for one β.
        validation: States of images that it was not trained on.
        beta: The cost sensitivity, points per unit of cost.
        promised: Whether a promise was made for the controllers, which then stay.

    Returns:
        What is to be shipped: the model, or one with thresholds; and a dict of `beta`,
        the name of the `policy`, whether it was `promised`, and what either is worth
        on `validation` images, by their names.
    """
    worth = {
        CONTROLLERS: policies.score(policies.epnet(model), validation).benefit(beta),
        THRESHOLDS: _thresholds(model, validation, beta),
    }
    better = not promised and worth[THRESHOLDS] > worth[CONTROLLERS]
    choice = {
        "beta": beta,
        "policy": THRESHOLDS if better else CONTROLLERS,
        "promised": promised,
        "validation": worth,
    }
    if not better:
        return model, choice
    confidence = policies.tuned_confidence(validation, model.exit_costs, beta)
    return model.with_thresholds(confidence, beta), choice


def behind(model: EPNet, validation: ExitStates, betas: Sequence[float]) -> list[dict]:
    """Where a model for a range of β is behind thresholds, of which it has none.

    Such β are warned of.

    Args:
        model: The `EPNet`, its controllers trained for the range.
        validation: States of images that it was not trained on.
        betas: Cost sensitivities within the range.

    Returns:
        A dict of `beta` and `validation`, as of `choose`, for each of them.
    """
    found = []
    for beta in betas:
        score = policies.score(policies.epnet(model, beta), validation)
        worth = {
            CONTROLLERS: score.benefit(beta),
            THRESHOLDS: _thresholds(model, validation, beta),
        }
        if worth[THRESHOLDS] > worth[CONTROLLERS]:
            found.append({"beta": beta, "validation": worth})
            logging.warning(
                "At beta=%g the one model for the range is behind a threshold for each "
                "exit on validation images: %.2f against %.2f. For this beta alone, "
                "ship the model of --beta=%g.",
                *(beta, worth[CONTROLLERS], worth[THRESHOLDS], beta),
            )
    return found


def table(choices: Sequence[dict]) -> str:
    """What is shipped for each β, and why.

    Args:
        choices: As from `choose`.

    Returns:
        Lines for a terminal.
    """
    lines = [
        f"{'beta':>8}  shipped policy, and what is worth what on validation images"
    ]
    for choice in choices:
        controllers, thresholds = (
            choice["validation"][name] for name in (CONTROLLERS, THRESHOLDS)
        )
        why = ", for which there is a promise" if choice["promised"] else ""
        lines.append(
            f"{choice['beta']:8.1e}  {choice['policy']}{why}: controllers "
            f"{controllers:.2f}, a threshold for each exit {thresholds:.2f}"
        )
    return "\n".join(lines) + "\n"


def _thresholds(model: EPNet, validation: ExitStates, beta: float) -> float:
    def tune(states: ExitStates) -> policies.Policy:
        return policies.softmax_per_exit(states, model.exit_costs, beta)

    return policies.score_folded(tune, validation).benefit(beta)
