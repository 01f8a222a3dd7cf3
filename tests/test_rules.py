"""Threshold rules and the bound, against brute force and hand-made states."""

import itertools

import numpy as np
import pytest

from epnet_tf import policies
from epnet_tf.model import ExitCosts, ExitStates
from epnet_tf.policies import rules

COSTS = ExitCosts(
    with_controllers=np.array([12, 24, 35]),
    with_classifiers=np.array([11, 22, 33]),
    alone=np.array([11, 21, 31]),
)


def random_states(count=60, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 3, 4)) * np.array([1, 2, 4])[:, None]
    labels = logits[:, -1].argmax(axis=1)
    return ExitStates((), logits.astype("float32"), labels)


def test_entropy_is_in_nats():
    logits = np.array([[[0.0, 0.0], [200.0, 0.0], [np.log(3.0), 0.0]]], "float32")
    expected = [np.log(2), 0.0, -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))]
    found = rules.entropy(ExitStates((), logits, np.array([0])))
    np.testing.assert_allclose(found, [expected], rtol=1e-6, atol=1e-12)


def test_branchynet_leaves_at_low_entropy_and_pays_classifiers():
    states = random_states()
    policy = policies.branchynet(0.3, COSTS)
    assert policy.name == "branchynet-0.3"
    p = states.probabilities
    low = -(p * np.log(p)).sum(axis=-1) < 0.3
    expected = [next((i for i in (1, 2) if x[i - 1]), 3) for x in low]
    assert policy.decide(states).tolist() == expected
    assert np.array_equal(policy.costs, COSTS.with_classifiers)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0, 50.0])
def test_a_threshold_per_exit_is_the_best_of_all(beta):
    states = random_states(30)
    lack = rules.lack_of_confidence(states)
    rewards = 100.0 * states.correct - beta * COSTS.with_classifiers
    best = -np.inf
    cuts = [[*np.unique(lack[:, i]), np.inf] for i in (0, 1)]
    for limits in itertools.product(*cuts):
        exits = rules.first_below(lack, np.array([*limits, 0.0])) - 1
        best = max(best, rewards[np.arange(30), exits].mean())
    policy = policies.softmax_per_exit(states, COSTS, beta)
    found = policies.score(policy, states).benefit(beta)
    tuned = policies.softmax_gate_tuned(states, COSTS, beta)
    assert policy.name == "softmax-per-exit"
    assert found >= policies.score(tuned, states).benefit(beta) - 1e-9
    # Coordinate ascent may end beside the best of all, but not far from it.
    assert best - 1.0 <= found <= best + 1e-9


@pytest.mark.parametrize("spent", [11, 18.5, 25, 33])
def test_oracles_spend_what_they_are_told(spent):
    states = random_states(400)
    for make in (policies.softmax_gate_oracle, policies.branchynet_oracle):
        policy = make(states, COSTS, spent)
        assert policies.score(policy, states).mean_cost == pytest.approx(spent, abs=0.1)


def test_equal_values_are_not_parted():
    gains = np.array([-1.0, 5.0, -3.0, 2.0])
    values = np.array([0.1, 0.1, 0.2, 0.3])
    limit = rules._best_cut(values, gains)
    assert (values < limit).tolist() == [True, True, False, False]


@pytest.mark.parametrize("beta", [0.0, 0.3, 2.0, 100.0])
def test_no_policy_is_above_hindsight(beta):
    states = random_states()
    bound = policies.score(policies.hindsight(COSTS, beta), states).benefit(beta)
    rewards = 100.0 * states.correct - beta * COSTS.alone
    assert bound == pytest.approx(rewards.max(axis=1).mean())
    for policy in (
        policies.resnet(COSTS),
        policies.static(states, COSTS, beta),
        policies.softmax_gate_tuned(states, COSTS, beta),
        policies.branchynet_tuned(states, COSTS, beta),
        policies.softmax_per_exit(states, COSTS, beta),
    ):
        assert policies.score(policy, states).benefit(beta) <= bound
