"""Policies without learning: fixed exits, thresholds on confidence, and the bound.

Thresholds are tuned on validation states, by the function that makes the policy.
"""

from collections.abc import Callable

import numpy as np

from epnet_tf.model.cost import ExitCosts
from epnet_tf.model.states import ExitStates
from epnet_tf.policies.policy import Policy, score_exits

# States to a value for each exit, [n, N]: the smaller, the surer its classifier.
Measure = Callable[[ExitStates], np.ndarray]


def resnet(costs: ExitCosts) -> Policy:
    """The plain network: everyone leaves through the last exit."""
    return _always(len(costs.alone), costs, "resnet")


def static(validation: ExitStates, costs: ExitCosts, beta: float) -> Policy:
    """The one exit that is best for everyone, chosen on validation states.

    Args:
        validation: States of held-out images.
        costs: The model's costs.
        beta: Cost sensitivity, points per unit of cost.
    """
    accuracy = validation.correct.mean(axis=0)
    best = (100.0 * accuracy - beta * costs.alone).argmax()
    return _always(int(best) + 1, costs, "static")


def hindsight(costs: ExitCosts, beta: float) -> Policy:
    """The bound: knows the label, and where stopping pays most.

    It pays for one classifier only, so no policy on these exits is above it.

    Args:
        costs: The model's costs.
        beta: Cost sensitivity, points per unit of cost.
    """

    def decide(states: ExitStates) -> np.ndarray:
        return (100.0 * states.correct - beta * costs.alone).argmax(axis=1) + 1

    return Policy("hindsight", decide, costs.alone)


def softmax_gate(gamma: float, costs: ExitCosts, name: str | None = None) -> Policy:
    """Leaves where the largest softmax probability is above 1 − γ (paper, 5.2).

    Args:
        gamma: What the largest probability may lack to 1.
        costs: The model's costs.
        name: Name of the policy; by default it says γ.
    """
    return threshold(
        name or f"softmax-gate-{gamma:g}", lack_of_confidence, gamma, costs
    )


def branchynet(limit: float, costs: ExitCosts, name: str | None = None) -> Policy:
    """Leaves where the entropy of the softmax is below a limit (paper, 5.2).

    Args:
        limit: Entropy in nats, as BranchyNet has it.
        costs: The model's costs.
        name: Name of the policy; by default it says the limit.
    """
    return threshold(name or f"branchynet-{limit:g}", entropy, limit, costs)


def softmax_gate_tuned(validation: ExitStates, costs: ExitCosts, beta: float) -> Policy:
    """The softmax gate whose γ has the highest benefit on validation states."""
    gamma = best_threshold(lack_of_confidence, validation, costs, beta)
    return softmax_gate(gamma, costs, "softmax-gate-tuned")


def branchynet_tuned(validation: ExitStates, costs: ExitCosts, beta: float) -> Policy:
    """BranchyNet with the limit of highest benefit on validation states."""
    limit = best_threshold(entropy, validation, costs, beta)
    return branchynet(limit, costs, "branchynet-tuned")


def softmax_gate_oracle(
    validation: ExitStates, costs: ExitCosts, mean_cost: float
) -> Policy:
    """The softmax gate guided by EPNet (paper, 5.2).

    Args:
        validation: States of held-out images.
        costs: The model's costs.
        mean_cost: What EPNet spends on a validation image; the threshold is the one
            that comes nearest to it.
    """
    gamma = matching_threshold(lack_of_confidence, validation, costs, mean_cost)
    return softmax_gate(gamma, costs, "softmax-gate-oracle")


def branchynet_oracle(
    validation: ExitStates, costs: ExitCosts, mean_cost: float
) -> Policy:
    """BranchyNet guided by EPNet; see `softmax_gate_oracle`."""
    limit = matching_threshold(entropy, validation, costs, mean_cost)
    return branchynet(limit, costs, "branchynet-oracle")


def softmax_per_exit(validation: ExitStates, costs: ExitCosts, beta: float) -> Policy:
    """A softmax threshold for each exit, by coordinate ascent on the benefit.

    Each step is exact: given the other thresholds, of all places where an exit's
    threshold could lie the best is taken. The ascent starts once from the best common
    threshold and once from never stopping early, and the better end counts.

    Args:
        validation: States of held-out images.
        costs: The model's costs.
        beta: Cost sensitivity, points per unit of cost.
    """
    best = _best_limits(validation, costs, beta)
    return threshold("softmax-per-exit", lack_of_confidence, best, costs)


def tuned_confidence(
    validation: ExitStates, costs: ExitCosts, beta: float
) -> np.ndarray:
    """The thresholds of `softmax_per_exit`, for `EPNet.with_thresholds`.

    They lie halfway between the images that they part, whose probabilities come out a
    little differently on each device.

    Args:
        validation: States of held-out images.
        costs: The model's costs.
        beta: Cost sensitivity, points per unit of cost.

    Returns:
        float64 [N − 1]; leave where the largest softmax probability is above.
    """
    values = lack_of_confidence(validation)
    limits = _best_limits(validation, costs, beta)
    leaving = np.where(values < limits, values, 0.0).max(axis=0)
    halfway = np.where(limits > 0, (leaving + np.minimum(limits, 1.0)) / 2, 0.0)
    return 1.0 - halfway[:-1]


def _best_limits(validation: ExitStates, costs: ExitCosts, beta: float) -> np.ndarray:
    """Limits [N] of the lack of confidence."""
    values = lack_of_confidence(validation)
    rewards = 100.0 * validation.correct - beta * costs.with_classifiers
    common = best_threshold(lack_of_confidence, validation, costs, beta)
    ends = [
        ascend(values, rewards, np.full(values.shape[1], start))
        for start in (common, 0.0)
    ]
    return max(ends, key=lambda limits: mean_reward(values, rewards, limits))


def threshold(name: str, measure: Measure, limits, costs: ExitCosts) -> Policy:
    """Leaves at the first exit where a measure is below its limit.

    Args:
        name: Name of the policy.
        measure: What is compared.
        limits: A scalar, or one for each exit [N].
        costs: The model's costs: classifiers on the way are paid, no controllers.
    """
    return Policy(
        name,
        lambda states: first_below(measure(states), limits),
        costs.with_classifiers,
    )


def best_threshold(
    measure: Measure, validation: ExitStates, costs: ExitCosts, beta: float
) -> float:
    """The threshold, the same at every exit, of highest benefit on some states."""
    values = measure(validation)
    found = candidates(values)
    benefits = [
        score_exits(first_below(values, c), validation, costs.with_classifiers).benefit(
            beta
        )
        for c in found
    ]
    return float(found[int(np.argmax(benefits))])


def matching_threshold(
    measure: Measure, validation: ExitStates, costs: ExitCosts, mean_cost: float
) -> float:
    """The threshold, the same at every exit, that spends about so much."""
    values = measure(validation)
    found = candidates(values, count=2000)
    paid = costs.with_classifiers
    spent = np.array([paid[first_below(values, c) - 1].mean() for c in found])
    return float(found[np.abs(spent - mean_cost).argmin()])


def lack_of_confidence(states: ExitStates) -> np.ndarray:
    """One minus the largest softmax probability: float64 [n, N].

    Summed up from the other classes, so that 1e-9 differs from 1e-12.
    """
    p = _exponentials(states)
    total = p.sum(axis=-1)
    np.put_along_axis(p, p.argmax(axis=-1, keepdims=True), 0.0, axis=-1)
    return p.sum(axis=-1) / total


def entropy(states: ExitStates) -> np.ndarray:
    """Entropy of the softmax in nats: float64 [n, N]."""
    p = _exponentials(states)
    total = p.sum(axis=-1, keepdims=True)
    log_p = np.log(np.maximum(p, 1e-300)) - np.log(total)
    return -(p / total * log_p).sum(axis=-1)


def first_below(values: np.ndarray, thresholds) -> np.ndarray:
    """The first exit at which a value is below its threshold, else the last.

    Args:
        values: [n, N].
        thresholds: A scalar, or [N].

    Returns:
        int [n], counted from 1.
    """
    below = values < thresholds
    below[:, -1] = True
    return below.argmax(axis=1) + 1


def candidates(values: np.ndarray, count: int = 500) -> np.ndarray:
    """Thresholds worth trying: quantiles of the values, and beyond both ends."""
    quantiles = np.quantile(values, np.linspace(0, 1, count))
    return np.unique(np.concatenate([[0.0], quantiles, [np.inf]]))


def _exponentials(states: ExitStates) -> np.ndarray:
    """Softmax up to a factor, in float64; the largest of each exit is 1."""
    logits = states.logits.astype("float64")
    return np.exp(logits - logits.max(axis=-1, keepdims=True))


def mean_reward(
    values: np.ndarray, rewards: np.ndarray, thresholds: np.ndarray
) -> float:
    """What leaving at the first value below its threshold is worth on average.

    Args:
        values: [n, N].
        rewards: [n, N]; of leaving through each exit.
        thresholds: [N].
    """
    exits = first_below(values, thresholds) - 1
    return float(rewards[np.arange(len(exits)), exits].mean())


def ascend(
    values: np.ndarray, rewards: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Coordinate ascent over the exits' thresholds, until nothing changes.

    Args:
        values: [n, N].
        rewards: [n, N]; of leaving through each exit.
        thresholds: [N]; to start from.

    Returns:
        Thresholds [N] whose mean reward no change of a single one raises.
    """
    thresholds = thresholds.copy()
    for _ in range(100):
        before = thresholds.copy()
        for i in reversed(range(values.shape[1] - 1)):
            reached = (values[:, :i] >= thresholds[:i]).all(axis=1)
            here, later = values[reached], rewards[reached]
            going_on = i + first_below(here[:, i + 1 :], thresholds[i + 1 :])
            gains = later[:, i] - later[np.arange(len(later)), going_on]
            thresholds[i] = _best_cut(here[:, i], gains)
        if np.array_equal(before, thresholds):
            break
    return thresholds


def _best_cut(values: np.ndarray, gains: np.ndarray) -> float:
    """The threshold below which the gains add up to most."""
    order = values.argsort()
    values = np.append(values[order], np.inf)
    sums = np.concatenate([[0.0], gains[order].cumsum()])
    # Equal values cannot be parted: a cut lies before the first of them.
    sums[1:][values[1:] == values[:-1]] = -np.inf
    return float(values[sums.argmax()])


def _always(exit_number: int, costs: ExitCosts, name: str) -> Policy:
    return Policy(name, lambda states: np.full(len(states), exit_number), costs.alone)
