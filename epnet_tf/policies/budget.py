"""Budgets: the policy that keeps a promise about cost or accuracy on new images.

A mean over validation images that just meets a budget breaks it on new ones about
every other time. Learn-then-Test (Angelopoulos, Bates, Candès, Jordan and Lei, 2021,
https://arxiv.org/abs/2110.01052) takes "this policy breaks the promise" as a
hypothesis for each candidate and rejects it only on evidence: with confidence 95%,
over the draw of the validation images, the promise holds for new data of the same
kind. Candidates are tested from the safest on and the first failure ends it
(fixed-sequence testing), so that their number costs nothing.

Usage:

```python
candidates = budget.epnet_candidates(model)  # a model with `beta_range`
limit = budget.parse("45%", model.exit_costs)
choice = budget.meet_cost(candidates, validation_states, limit)
model.classify(images, beta=choice.parameter)
```
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import binom

from epnet_tf.model.cost import ExitCosts
from epnet_tf.model.states import ExitStates
from epnet_tf.policies.learned import epnet
from epnet_tf.policies.policy import Policy
from epnet_tf.runtime import units

# Policies by their parameter, ordered from the cheapest to the dearest. Order and
# parameters must not depend on the validation images, else the promise is void. For
# models that were trained for one β each: `{m.beta: policies.epnet(m) for m in …}`,
# the highest β first.
Candidates = Mapping[float, Policy]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The candidate that goes furthest while it keeps the promise.

    Attributes:
        parameter: The candidate's, such as β.
        policy: The candidate.
        measured: What was limited, as measured on the validation images: mean cost, or
            percentage points.
        limit: What it will not exceed on new data, in the same unit.
        p_value: Of "the limit does not hold" for this candidate.
    """

    parameter: float
    policy: Policy
    measured: float
    limit: float
    p_value: float


def epnet_candidates(model: keras.Model, count: int = 100) -> Candidates:
    """EPNet at β over its range, on a logarithmic scale.

    Args:
        model: An `EPNet` with `beta_range`, its controllers trained.
        count: Number of candidates.

    Raises:
        ValueError: If the model's controllers do not take β.
    """
    if model.beta_range is None:
        raise ValueError(
            "Expected a model whose controllers take beta (beta_range=(low, high)). "
            f"Received: '{model.name}' for beta={model.beta}."
        )
    low, high = model.beta_range
    # Rounding must not lead out of the range.
    betas = np.clip(np.geomspace(high, low, count), low, high)
    return {float(beta): epnet(model, float(beta)) for beta in betas}


def parse(budget: str, costs: ExitCosts) -> float:
    """A budget as people write it, in the unit of the model's costs.

    Args:
        budget: Mean cost of an image: multiply-adds, such as "30M" or "10e6"; with
            costs in another unit a number of those, such as "1.5ms"; or a share of the
            full network, such as "45%".
        costs: The model's costs.

    Raises:
        ValueError: If it is none of these, in another unit, or not above 0.
    """
    scales = {"%": costs.full / 100.0}
    if costs.unit == units.MACS:
        scales |= {"k": 1e3, "M": 1e6, "G": 1e9, "": 1.0}
        example = "30M or 10e6"
    else:
        scales[costs.unit] = 1.0
        example = f"1.5{costs.unit}"
    text = budget.strip()
    ending = max((e for e in scales if text.endswith(e)), key=len, default="")
    try:
        limit = float(text.removesuffix(ending)) * scales[ending]
    except (KeyError, ValueError):
        limit = math.nan
    if not 0 < limit < math.inf:
        raise ValueError(
            f"Expected as budget a number of {units.words(costs.unit)[1]}, such as "
            f"{example}, or a share of the full network, such as 45%. "
            f"Received: {budget!r}."
        )
    return limit


def check_drops(accuracy_drops: Sequence[float]) -> None:
    """Checks what may be lost of the full network's accuracy, in percentage points.

    Raises:
        ValueError: If one of them is no number above 0.
    """
    if not all(points > 0 for points in accuracy_drops):  # NaN compares as False.
        raise ValueError(
            "Expected accuracy drops above 0, in points. "
            f"Received: {list(accuracy_drops)}."
        )


def meet_cost(
    candidates: Candidates,
    validation: ExitStates,
    mean_cost: float,
    confidence: float = 0.95,
) -> Choice:
    """The dearest candidate whose mean cost is promised to be within a budget.

    What is promised is about images: which exits new ones will leave through. That a
    clock is slower on another day is not covered.

    Args:
        candidates: From the cheapest to the dearest.
        validation: States of images that neither network nor policies were trained on.
        mean_cost: The budget for an image, all that the policy executes included, in
            the unit of the candidates' costs.
        confidence: Probability, over the draw of the validation images, with which the
            budget holds on new data of the same kind.

    Returns:
        The `Choice`; `measured` and `limit` are in that unit.

    Raises:
        ValueError: If no candidate meets the budget, with the nearest.
    """
    _check("mean_cost", mean_cost, candidates, validation, confidence)
    most = float(max(policy.costs.max() for policy in candidates.values()))
    return _last_that_keeps(
        candidates.items(),
        lambda policy: policy.costs[policy.decide(validation) - 1] / most,
        mean_cost / most,
        confidence,
        most,
        "mean cost",
    )


def meet_accuracy_drop(
    candidates: Candidates,
    validation: ExitStates,
    points: float,
    confidence: float = 0.95,
) -> Choice:
    """The cheapest candidate that is promised to lose no more than some points.

    What is limited is the share of images that the full network gets right and the
    policy wrong: the accuracy lost is no more than that.

    Args:
        candidates: From the cheapest to the dearest.
        validation: States of images that neither network nor policies were trained on.
        points: What may be lost, in percentage points of accuracy.
        confidence: Probability, over the draw of the validation images, with which the
            limit holds on new data of the same kind.

    Returns:
        The `Choice`; `measured` and `limit` are in percentage points.

    Raises:
        ValueError: If no candidate meets the limit, with the nearest.
    """
    _check("points", points, candidates, validation, confidence)
    return _last_that_keeps(
        reversed(list(candidates.items())),
        lambda policy: lost(policy, validation),
        points / 100.0,
        confidence,
        100.0,
        "points lost",
    )


def lost(policy: Policy, states: ExitStates) -> np.ndarray:
    """Which images the full network gets right and a policy wrong: bool [n]."""
    right = states.correct[np.arange(len(states)), policy.decide(states) - 1]
    return states.correct[:, -1] & ~right


def p_value(losses: np.ndarray, limit: float) -> float:
    """Hoeffding-Bentkus p-value of "the mean loss of all such images is above a limit".

    Args:
        losses: [n]; independent losses, each from 0 to 1.
        limit: For the mean loss, above 0.

    Returns:
        The p-value (Learn-then-Test, section 3.1.1): valid for every n, not only for
        many images.
    """
    if limit >= 1.0:
        return 0.0
    n, total = len(losses), np.sum(losses, dtype="float64")
    mean = min(total / n, limit)
    divergence = rel_entr(mean, limit) + rel_entr(1.0 - mean, 1.0 - limit)
    hoeffding = np.exp(-n * divergence)
    bentkus = np.e * binom.cdf(np.ceil(total), n, limit)
    return float(min(hoeffding, bentkus, 1.0))


def upper_bound(losses: np.ndarray, confidence: float = 0.95) -> float:
    """The lowest limit for the mean loss that holds with a confidence.

    Args:
        losses: [n]; independent losses, each from 0 to 1.
        confidence: Probability with which it holds.
    """
    low = 1e-9

    def excess(limit):
        return p_value(losses, limit) - (1.0 - confidence)

    return low if excess(low) <= 0 else float(brentq(excess, low, 1.0, xtol=1e-9))


def _last_that_keeps(
    candidates: Iterable[tuple[float, Policy]],
    losses,
    limit: float,
    confidence: float,
    unit: float,
    what: str,
) -> Choice:
    """Fixed-sequence testing: the last candidate before the first that fails.

    Args:
        candidates: From the safest on.
        losses: A candidate to its losses [n], each from 0 to 1.
        limit: For the mean loss.
        confidence: Probability with which the limit holds.
        unit: What a loss of 1 is, in the user's unit.
        what: What is limited, for the error.
    """
    choice = None
    for parameter, policy in candidates:
        found = losses(policy)
        p = p_value(found, limit)
        if p > 1.0 - confidence:
            break
        measured = unit * float(found.mean())
        choice = Choice(parameter, policy, measured, unit * limit, p)
    if choice is None:
        promised = unit * upper_bound(found, confidence)
        raise ValueError(
            f"Expected a limit that can be promised with confidence {confidence:.0%} "
            f"on the evidence of {len(found)} images. Received: {unit * limit:g} "
            f"{what}; the nearest that can be promised is {_rounded_up(promised)}, by "
            f"'{policy.name}' at {parameter:g}, which has {unit * found.mean():g} on "
            "these images."
        )
    return choice


def _rounded_up(value: float) -> str:
    """Three digits, and no less than the value, so that what is said can be kept."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / step) * step:g}"


def _check(name, limit, candidates, validation, confidence):
    if not limit > 0:
        raise ValueError(f"Expected {name} above 0. Received: {name}={limit}.")
    if not 0 < confidence < 1:
        raise ValueError(
            f"Expected a confidence between 0 and 1. Received: confidence={confidence}."
        )
    if not candidates or not len(validation):
        raise ValueError(
            "Expected candidates and validation states. Received: "
            f"{len(candidates)} candidates, states of {len(validation)} images."
        )
