"""Budgets: p-values against enumeration, promises against many simulated splits."""

import math

import numpy as np
import pytest
from small_models import costing, small_epnet, small_images

import epnet_tf
from epnet_tf import policies
from epnet_tf.model import ExitStates
from epnet_tf.model.cost import ExitCosts
from epnet_tf.policies import budget

MACS = np.array([1e6, 3e6, 10e6])
COSTS = ExitCosts(MACS, MACS, MACS)


def binomial_cdf(k, n, p):
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


def population(count, seed=0):
    """Images of three exits: the surer an exit, the likelier it is right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    ease = rng.normal(1.0, 2.0, count)
    margins = ease[:, None] + np.array([0.0, 1.5, 4.0]) + rng.normal(0, 2, (count, 3))
    logits = np.zeros((count, 3, 2), "float32")
    logits[np.arange(count), :, labels] = margins
    number = np.arange(count)[:, None]
    return ExitStates((number, number), logits, labels)


EVERYONE = population(40_000)
# From γ = 1 (all leave at once) to γ = 0 (all stay to the end).
GATES = {
    float(gamma): policies.softmax_gate(gamma, COSTS)
    for gamma in [*np.geomspace(1.0, 1e-9, 39), 0.0]
}


def test_p_value_by_hand():
    # No loss in 10 images: Hoeffding (1 − α)^10 is below e · (1 − α)^10, Bentkus.
    assert budget.p_value(np.zeros(10), 0.3) == pytest.approx(0.7**10)
    # 2 losses of 20 at α = 0.25: n · KL(0.1, 0.25) = 20 · 0.07246.
    losses = np.repeat([1.0, 0.0], [2, 18])
    divergence = 0.1 * math.log(0.1 / 0.25) + 0.9 * math.log(0.9 / 0.75)
    hoeffding, bentkus = math.exp(-20 * divergence), math.e * binomial_cdf(2, 20, 0.25)
    assert hoeffding == pytest.approx(0.2348, abs=1e-4)
    assert bentkus == pytest.approx(0.2481, abs=1e-4)
    assert budget.p_value(losses, 0.25) == pytest.approx(hoeffding)
    # Far below the limit it is Bentkus that is the smaller.
    losses = np.repeat([1.0, 0.0], [100, 900])
    expected = math.e * binomial_cdf(100, 1000, 0.15)
    assert budget.p_value(losses, 0.15) == pytest.approx(expected)


def test_p_value_of_losses_between_0_and_1():
    losses = np.full(50, 0.1)  # Adds up to 5.
    divergence = 0.1 * math.log(0.1 / 0.3) + 0.9 * math.log(0.9 / 0.7)
    expected = min(math.exp(-50 * divergence), math.e * binomial_cdf(5, 50, 0.3))
    assert budget.p_value(losses, 0.3) == pytest.approx(expected)


def test_p_value_at_the_ends():
    assert budget.p_value(np.full(10, 0.4), 0.4) == 1.0
    assert budget.p_value(np.ones(10), 0.4) == 1.0
    assert budget.p_value(np.ones(10), 1.0) == 0.0


@pytest.mark.parametrize("n", [1, 7, 60])
@pytest.mark.parametrize("limit", [0.02, 0.3, 0.9])
def test_p_value_is_valid_for_every_n(n, limit):
    """At a risk of just the limit, P(p ≤ u) ≤ u: by enumeration of the losses."""
    chance = [math.comb(n, k) * limit**k * (1 - limit) ** (n - k) for k in range(n + 1)]
    p = np.array([budget.p_value(np.arange(n) < k, limit) for k in range(n + 1)])
    for u in p:
        assert np.sum(chance, where=p <= u) <= u + 1e-12


def test_p_value_is_monotone():
    by_losses = [budget.p_value(np.arange(200) < k, 0.2) for k in range(60)]
    by_limit = [budget.p_value(np.arange(200) < 20, a) for a in np.linspace(0.1, 1, 50)]
    by_images = [budget.p_value(np.arange(10 * k) < k, 0.2) for k in range(1, 60)]
    assert (np.diff(by_losses) >= 0).all()
    assert (np.diff(by_limit) <= 0).all()
    assert by_images[-1] < 0.01 < by_images[0]


def test_upper_bound_is_where_the_p_value_is_5_percent():
    for losses in (np.zeros(30), np.arange(500) < 20, np.full(80, 0.5)):
        bound = budget.upper_bound(losses)
        assert losses.mean() < bound < 1
        assert budget.p_value(losses, bound - 1e-6) > 0.05
        assert budget.p_value(losses, bound + 1e-6) < 0.05


def looking_up(policy):
    """The same policy on images of `EVERYONE`, decided once: for many splits."""
    exits = policy.decide(EVERYONE)
    return policies.Policy(
        policy.name, lambda states: exits[states.pooled[0][:, 0]], policy.costs
    )


def limited(name, policy, states):
    """What each image has of that which is limited: MACs, or points lost."""
    if name == "meet_cost":
        return policy.costs[policy.decide(states) - 1]
    return 100.0 * budget.lost(policy, states)


@pytest.mark.parametrize("name, wanted", [("meet_cost", 14), ("meet_accuracy_drop", 5)])
def test_promises_are_broken_in_at_most_5_percent_of_splits(name, wanted):
    meet, splits, rng = getattr(budget, name), 400, np.random.default_rng(1)
    gates = {gamma: looking_up(policy) for gamma, policy in GATES.items()}
    values = np.stack([limited(name, policy, EVERYONE) for policy in gates.values()])
    true = dict(zip(gates, values.mean(axis=1), strict=True))
    # The hardest limit: just below what one of the candidates truly has.
    limit = true[list(gates)[wanted]] * (1 - 1e-9)
    broken, naive, reached = [], [], []
    for _ in range(splits):
        images = rng.integers(0, len(EVERYONE), 500)
        choice = meet(gates, EVERYONE.take(images), limit)
        assert choice.p_value <= 0.05 and choice.measured < choice.limit
        broken.append(true[choice.parameter] > limit)
        reached.append(true[choice.parameter])
        # What one would do without a bound: the mean of the split is enough.
        fit = np.flatnonzero(values[:, images].mean(axis=1) <= limit)
        naive.append(values[fit[-1 if name == "meet_cost" else 0]].mean() > limit)
    assert np.mean(broken) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / splits)
    assert np.mean(naive) > 0.25
    # It is no empty promise: what is chosen goes a good part of the way.
    assert np.mean(reached) > 0.5 * limit


def test_a_larger_budget_buys_a_dearer_policy():
    split = EVERYONE.take(slice(1000))
    choices = [budget.meet_cost(GATES, split, m) for m in (2e6, 4e6, 8e6, 10e6, 2e7)]
    spent = [choice.measured for choice in choices]
    assert spent == sorted(spent) and spent[0] < spent[-1]
    assert all(c.measured < c.limit for c in choices[:3])
    assert choices[-1].parameter == choices[-2].parameter == 0.0  # The full network.
    assert choices[0].limit == pytest.approx(2e6)


def test_more_loss_allowed_buys_a_cheaper_policy():
    split = EVERYONE.take(slice(1000))
    choices = [budget.meet_accuracy_drop(GATES, split, p) for p in (0.5, 2, 5, 50)]
    spent = [policies.score(choice.policy, split).mean_cost for choice in choices]
    assert spent == sorted(spent, reverse=True) and spent[0] > spent[-1]
    full = split.correct[:, -1].mean()
    for choice in choices:
        score = policies.score(choice.policy, split)
        assert 100 * (full - score.accuracy) <= choice.measured < choice.limit


def test_more_images_get_nearer_to_the_budget():
    measured = [
        budget.meet_cost(GATES, EVERYONE.take(slice(n)), 5e6).measured
        for n in (100, 1000, 40_000)
    ]
    assert measured == sorted(measured)
    assert 0.9 * 5e6 < measured[-1] < 5e6


def test_lost_counts_what_only_the_full_network_gets_right():
    logits = np.zeros((4, 2, 2), "float32")
    logits[[0, 1], 0, 0] = logits[[0, 2], 1, 0] = 1.0  # Exits right: 11, 10, 01, 00.
    logits[[2, 3], 0, 1] = logits[[1, 3], 1, 1] = 1.0
    states = ExitStates((np.zeros((4, 1)),), logits, np.zeros(4, int))
    first = policies.Policy("first", lambda s: np.ones(4, int), np.array([1.0, 2.0]))
    assert budget.lost(first, states).tolist() == [False, False, True, False]


def test_the_error_names_the_nearest():
    split = EVERYONE.take(slice(200))
    with pytest.raises(ValueError) as raised:
        budget.meet_cost(GATES, split, 1e6)
    message = str(raised.value)
    assert "200 images" in message and "1e+06 mean cost" in message
    assert "'softmax-gate-1' at 1" in message and "which has 1e+06" in message
    nearest = float(message.split("can be promised is ")[1].split(",")[0])
    assert budget.meet_cost(GATES, split, nearest).measured == 1e6
    with pytest.raises(ValueError, match="nearest"):
        budget.meet_cost(GATES, split, 0.99 * nearest)
    fewer = {g: GATES[g] for g in list(GATES)[:5]}
    with pytest.raises(ValueError, match="points lost; the nearest"):
        budget.meet_accuracy_drop(fewer, split, 0.1)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((GATES, EVERYONE, 0), "mean_cost=0"),
        ((GATES, EVERYONE, math.nan), "mean_cost=nan"),
        ((GATES, EVERYONE, 1e6, 1.0), "confidence=1.0"),
        (({}, EVERYONE, 1e6), "0 candidates"),
        ((GATES, EVERYONE.take(slice(0)), 1e6), "0 images"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        budget.meet_cost(*arguments)


@pytest.mark.parametrize(
    "text, macs", [("10e6", 10e6), ("45%", 9e6), (" 0.5 % ", 1e5), ("2000000", 2e6)]
)
def test_budgets_as_people_write_them(text, macs):
    assert budget.parse(text, costing(20_000_000)) == pytest.approx(macs)


@pytest.mark.parametrize("text", ["", "%", "much", "-1", "0", "nan", "inf", "45%%"])
def test_wrong_budgets(text):
    with pytest.raises(ValueError, match=r"such as 45%\. Received"):
        budget.parse(text, costing(20_000_000))


def test_candidates_of_a_model_for_a_range():
    model = small_epnet(beta_range=(1e-6, 1e-4))
    found = budget.epnet_candidates(model, count=5)
    assert list(found) == pytest.approx([1e-4, 10**-4.5, 1e-5, 10**-5.5, 1e-6])
    images, labels = small_images(30)
    states = epnet_tf.compute_states(model, images, labels, verbose=0)
    for beta, policy in found.items():
        expected = model.classify(images, beta=beta).exit  # So it is within the range.
        np.testing.assert_array_equal(policy.decide(states), expected)


def test_candidates_need_a_range():
    with pytest.raises(ValueError, match="controllers take beta"):
        budget.epnet_candidates(small_epnet(beta=1e-6))
