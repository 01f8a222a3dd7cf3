"""Cost sensitivities for people: from a network's size, a budget or a loss allowed."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from epnet_tf import policies
from epnet_tf.evaluation import promises
from epnet_tf.experiments.config import Config
from epnet_tf.model import EPNet
from epnet_tf.model.states import ExitStates, StoredStates
from epnet_tf.policies import budget
from epnet_tf.training.sweep import ControllerSweep, train_controllers

# What running the whole network costs at the β of a network of which nothing is known.
_POINTS = (3.0, 10.0)
# And at those that are tried for a promise.
_LEAST, _MOST, _COUNT = 0.3, 100.0, 12
# How far apart, as a share of the plain network, what neighbours take should be.
_STEP = 0.05


def betas_for_size(full: float) -> tuple[float, ...]:
    """Cost sensitivities at which stopping early is worth a thought.

    Args:
        full: What the plain network costs.

    Returns:
        β, rounded to one digit, at which running all of it costs about 3 and 10 points.
    """
    return tuple(float(f"{points / full:.0e}") for points in _POINTS)


def candidates(
    model: EPNet,
    train: ExitStates | StoredStates,
    epochs: int,
    seed: int = 0,
    verbose="auto",
) -> tuple[dict[float, ControllerSweep], budget.Candidates]:
    """Trains controllers for a dozen β side by side, and then for β between them.

    Where no exits are worth their cost, policies jump: a little lower a β, and the mean
    image takes twice as much. So β are tried between those whose policies take amounts
    that are far apart on the training images; validation images have no say, else
    what is promised on them is void.

    Args:
        model: The `EPNet` with trained classifiers.
        train: States of the training images.
        epochs: Passes over them.
        seed: Of the training.
        verbose: As in `keras.Model.fit`.

    Returns:
        The sweep by β that can assign its controllers to the model, and the policies by
        β, the highest first.
    """
    full = model.exit_costs.full
    sweeps: dict[float, ControllerSweep] = {}
    found: dict[float, policies.Policy] = {}

    def train_for(wanted: np.ndarray) -> None:
        # Rounded, as folders are named after them.
        betas = sorted({float(f"{b:.1e}") for b in wanted} - found.keys(), reverse=True)
        if not betas:
            return
        sweep = train_controllers(
            model, train, betas, seed=seed, epochs=epochs, verbose=verbose
        )
        for beta in betas:
            sweep.assign(beta=beta)
            weights = policies.controller_weights(model)
            sweeps[beta] = sweep
            found[beta] = policies.epnet(model, weights=weights)

    train_for(np.geomspace(_MOST, _LEAST, _COUNT) / full)
    shares = [_mean_cost(policy, train) / full for policy in found.values()]
    train_for(betas_between(list(found), shares))
    return sweeps, dict(sorted(found.items(), reverse=True))


def betas_between(betas: Sequence[float], shares: Sequence[float]) -> np.ndarray:
    """β where policies of neighbouring β take amounts that are far apart.

    Args:
        betas: The β tried, the highest first.
        shares: What the policy of each takes, as a share of the plain network.

    Returns:
        As many more, evenly between two neighbours on a logarithmic scale, as make
        the steps 5% if what they take lies evenly too.
    """
    between = [np.empty(0)]
    pairs = zip(itertools.pairwise(betas), itertools.pairwise(shares), strict=True)
    for (high, low), (less, more) in pairs:
        steps = max(math.ceil(abs(more - less) / _STEP), 1)
        between.append(np.geomspace(high, low, steps + 1)[1:-1])
    return np.concatenate(between)


def _mean_cost(policy: policies.Policy, states: ExitStates | StoredStates) -> float:
    """What an image takes on average."""
    parts = states.parts() if isinstance(states, StoredStates) else [states]
    exits = np.concatenate([policy.decide(part) for part in parts])
    return float(policy.costs[exits - 1].mean())


def betas_that_keep(
    config: Config,
    model: EPNet,
    train: ExitStates,
    validation: ExitStates,
    verbose="auto",
) -> list[dict]:
    """Finds a β for each promise of a configuration.

    Controllers are trained for a dozen β and some between them (`candidates`), and
    those are taken that go furthest while the promise holds with confidence 95%
    (`policies.budget`).

    Args:
        config: The configuration.
        model: The `EPNet` with trained classifiers.
        train: States of the training images.
        validation: States of images that nothing was trained on.
        verbose: As in `keras.Model.fit`.

    Returns:
        For each promise a dict: `promise`, `beta`, `limit` and `validation` (what was
        limited, as measured), both in `unit` ("MACs", the unit of the model's costs, or
        "points"), and `p90` as in `promises.choose`.

    Raises:
        ValueError: If a promise is no number, or no β can keep it.
    """
    if not config.budgets and not config.accuracy_drops:
        return []
    epochs = config.schedule.controller_epochs
    _, tried = candidates(model, train, epochs, config.seed, verbose)
    found = promises.choose(
        model, tried, validation, config.budgets, config.accuracy_drops
    )
    return [promise for promise, _ in found]


def table(kept: list[dict]) -> str:
    """The promises, with the β that keep them.

    Args:
        kept: As from `betas_that_keep`.

    Returns:
        Lines for a terminal.
    """
    lines = [
        f"{p['beta']:8.1e}  keeps: {p['promise']} (on validation images "
        f"{p['validation']:.3g} {p['unit']}{_beside(p)})"
        for p in kept
    ]
    if any("p90" in p for p in kept):
        lines.append("What is promised is about images; the clock's noise is not.")
    return "\n".join(lines)


def _beside(promise: dict) -> str:
    """The 90th percentile beside a mean that a clock measured."""
    return f", p90 {promise['p90']:.3g}" if "p90" in promise else ""
