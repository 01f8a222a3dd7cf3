"""Controllers with given weights, budgets, REINFORCE, backward induction."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import small_epnet, small_images

import epnet_tf
from epnet_tf import objective, policies
from epnet_tf.model import ExitCosts, ExitStates
from epnet_tf.training import ControllerSweep
from epnet_tf.training.reinforce import ReinforceSweep

COSTS = ExitCosts(
    with_controllers=np.array([10, 20, 30]),
    with_classifiers=np.array([10, 20, 30]),
    alone=np.array([10, 20, 30]),
)


@pytest.fixture(scope="module")
def model():
    return small_epnet()


@pytest.fixture(scope="module")
def states(model):
    return epnet_tf.compute_states(model, *small_images(200), verbose=0)


def move_stops(model, states):
    """Lets about a half of the images that get there stop at each exit."""
    for i in (1, 2):
        said = policies.stop_logits(model, states)[:, i - 1]
        stop = model.get_layer(f"controller_{i:02d}").get_layer("stop")
        stop.bias.assign(stop.bias - np.median(said))


def test_weights_that_were_taken_decide_as_then(model, states):
    move_stops(model, states)
    expected = policies.epnet(model).decide(states)
    weights = policies.controller_weights(model)
    for i in (1, 2):
        stop = model.get_layer(f"controller_{i:02d}").get_layer("stop")
        stop.bias.assign(stop.bias + 100.0)
    assert (policies.epnet(model).decide(states) == 1).all()
    kept = policies.epnet(model, weights=weights, name="kept")
    assert kept.name == "kept" and len(set(expected)) == 3
    assert kept.decide(states).tolist() == expected.tolist()


def test_states_of_other_exits_are_refused(model, states):
    fewer = model.with_exits(["block1_relu1"])
    with pytest.raises(ValueError, match=r"model's 2 exits\. Received: states of 3"):
        policies.epnet(fewer).decide(states)


def test_a_matched_threshold_keeps_to_the_budget(model, states):
    move_stops(model, states)
    weights = policies.controller_weights(model)
    low, _, high = model.exit_costs.with_controllers
    for budget in (low * 0.7 + high * 0.3, low * 0.3 + high * 0.7):
        policy = policies.epnet_matched(model, weights, states, budget)
        spent = policies.score(policy, states).mean_cost
        assert 0.95 * budget <= spent <= budget


def test_reinforce_is_right_on_average():
    rng = np.random.default_rng(0)
    repeats, beta, macs = 4000, 5.0, np.array([1.0, 2.0, 3.0])
    stops = np.tile(rng.normal(size=(1, 4, 2)), (repeats, 1, 1)).astype("float32")
    correct = rng.integers(0, 2, (1, 4, 3)).astype("float32")

    def gradient(function, *seed):
        variable = tf.Variable(stops)
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(function(variable, correct, macs, beta, *seed))
        return tape.gradient(value, variable).numpy()

    exact = gradient(objective.expected_benefit)[0]
    sampled = gradient(objective.reinforce_surrogate, 0)
    error = sampled.std(axis=0) / np.sqrt(repeats)
    assert error.min() > 0
    assert (np.abs(sampled.mean(axis=0) - exact) < 4 * error).all()


@pytest.mark.parametrize("kind", [ControllerSweep, ReinforceSweep])
def test_both_gradients_learn(kind, model, states):
    """Right at every exit and dear: what pays is to stop at once."""
    always = ExitStates(
        states.pooled, states.logits, states.predictions[:, 0].astype(int)
    )
    beta = 50.0 / model.exit_costs.full
    sweep = kind(model, [beta], 0)
    sweep.compile(keras.optimizers.Adam(0.1))
    right = np.ones_like(always.correct, "float32")
    sweep.fit(always.inputs, right, batch_size=50, epochs=20, verbose=0)
    sweep.assign(0)
    left = policies.epnet(model).decide(always)
    assert (left == 1).mean() > 0.9


def test_backward_induction_goes_on_where_that_pays():
    """The first number of m_1 says whether exit 3 will be right; exit 1 never is."""
    rng = np.random.default_rng(0)
    count = 600
    hint = rng.integers(0, 2, count)
    labels = np.ones(count, int)
    logits = np.zeros((count, 3, 2), "float32")
    logits[:, :2, 0] = 1.0
    logits[np.arange(count), 2, hint] = 1.0
    pooled = tuple(
        np.stack([hint, rng.normal(size=count)], axis=1).astype("float32")
        for _ in range(2)
    )
    states = ExitStates(pooled, logits, labels)
    train, test = states.take(slice(400)), states.take(slice(400, None))
    policy = policies.backward_induction(train, COSTS, beta=1.0)
    assert policy.name == "backward-induction"
    best = np.where(hint[400:], 3, 1)
    assert (policy.decide(test) == best).mean() > 0.9
