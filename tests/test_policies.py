"""Policies and their scores against hand-made states and brute force."""

import numpy as np
import pytest
from small_models import small_epnet, small_images

import epnet_tf
from epnet_tf import policies
from epnet_tf.model import ExitCosts, ExitStates
from epnet_tf.policies import rules

COSTS = ExitCosts(
    with_controllers=np.array([12, 24, 35]),
    with_classifiers=np.array([11, 22, 33]),
    alone=np.array([11, 21, 31]),
)


def made_states(probabilities, labels):
    logits = np.log(np.asarray(probabilities)).astype("float32")
    pooled = tuple(np.zeros([len(logits), 2], "float32") for _ in logits[0, 1:])
    return ExitStates(pooled, logits, np.asarray(labels))


def random_states(count=60, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 3, 4)) * np.array([1, 2, 4])[:, None]
    labels = logits[:, -1].argmax(axis=1)
    return made_states(
        np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True), labels
    )


TWO = made_states(
    [
        [[0.95, 0.05], [0.6, 0.4], [0.2, 0.8]],  # right at exits 1 and 2
        [[0.6, 0.4], [0.15, 0.85], [0.1, 0.9]],  # right at exits 2 and 3
    ],
    [0, 1],
)


def test_resnet_and_its_score():
    policy = policies.resnet(COSTS)
    score = policies.score(policy, TWO)
    assert policy.decide(TWO).tolist() == [3, 3]
    assert (policy.name, score.accuracy, score.mean_cost) == ("resnet", 0.5, 31.0)
    assert score.exit_rates.tolist() == [0, 0, 1]
    assert score.benefit(0.5) == pytest.approx(50 - 15.5)


@pytest.mark.parametrize(
    "gamma, exits, macs",
    [(0.1, [1, 3], [11, 33]), (0.2, [1, 2], [11, 22]), (0.01, [3, 3], [33, 33])],
)
def test_softmax_gate(gamma, exits, macs):
    policy = policies.softmax_gate(gamma, COSTS)
    assert policy.name == f"softmax-gate-{gamma}"
    assert policy.decide(TWO).tolist() == exits
    score = policies.score(policy, TWO)
    assert score.mean_cost == np.mean(macs)
    right = [TWO.correct[i, e - 1] for i, e in enumerate(exits)]
    assert score.accuracy == np.mean(right)


def test_static_is_the_best_exit_and_pays_one_classifier():
    for beta, best in ((0.0, 2), (1.0, 2), (9.0, 1)):
        policy = policies.static(TWO, COSTS, beta)
        assert policy.name == "static" and policy.decide(TWO).tolist() == [best] * 2
        assert np.array_equal(policy.costs, COSTS.alone)


def test_confidence_differs_where_float32_probabilities_do_not():
    logits = np.array([[[30.0, 0.0], [40.0, 0.0]]], "float32")
    states = ExitStates((), logits, np.array([0]))
    np.testing.assert_allclose(
        rules.lack_of_confidence(states), np.exp([[-30.0, -40.0]]), rtol=1e-3
    )


def test_confidence_is_one_less_the_largest_probability():
    states = random_states()
    np.testing.assert_allclose(
        rules.lack_of_confidence(states),
        1 - states.probabilities.max(axis=-1),
        atol=1e-6,
    )


def test_first_below():
    values = np.array([[0.5, 0.1, 0.9], [0.1, 0.5, 0.9], [0.7, 0.7, 0.7]])
    assert rules.first_below(values, 0.5).tolist() == [2, 1, 3]
    assert rules.first_below(values, np.array([0.6, 0, 0])).tolist() == [1, 1, 3]
    assert values[0, 2] == 0.9  # left as it was


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 5.0, 100.0])
def test_the_tuned_gate_is_the_best_of_all(beta):
    states = random_states()
    lack = 1 - states.probabilities.max(axis=-1)
    best = -np.inf
    for gamma in [0.0, *np.nextafter(np.unique(lack), 2), 2.0]:
        total = 0.0
        for image in range(len(states)):
            exits = [i for i in range(2) if lack[image, i] < gamma]
            i = exits[0] if exits else 2
            total += 100 * states.correct[image, i] - beta * COSTS.with_classifiers[i]
        best = max(best, total / len(states))
    policy = policies.softmax_gate_tuned(states, COSTS, beta)
    found = policies.score(policy, states).benefit(beta)
    assert policy.name == "softmax-gate-tuned"
    assert found == pytest.approx(best, abs=0.2)


def test_epnet_decides_as_the_model_classifies():
    model = small_epnet()
    images, labels = small_images()
    states = epnet_tf.compute_states(model, images, labels, verbose=0)
    for i in (1, 2):  # Let about a half of the images stop.
        said = policies.stop_logits(model, states)[:, i - 1]
        stop = model.get_layer(f"controller_{i:02d}").get_layer("stop")
        stop.bias.assign(stop.bias - np.median(said))
    prediction = model.classify(images)
    policy = policies.epnet(model)
    assert policy.name == "epnet" and len(set(prediction.exit)) == 3
    assert policy.decide(states).tolist() == prediction.exit.tolist()
    score = policies.score(policy, states)
    assert score.accuracy == (prediction.label == labels).mean()
    assert score.mean_cost == prediction.macs.mean()
    assert score.exit_rates.sum() == 1


def test_epnet_for_a_range_of_beta():
    model = small_epnet(beta_range=(1e-6, 1e-4))
    images, labels = small_images()
    states = epnet_tf.compute_states(model, images, labels, verbose=0)
    exits = policies.epnet(model, beta=1e-5).decide(states)
    assert exits.tolist() == model.classify(images, beta=1e-5).exit.tolist()
