"""What is shipped for a β: never controllers that are behind thresholds."""

import numpy as np
import pytest
from small_models import small_epnet

from epnet_tf import policies
from epnet_tf.experiments import shipped
from epnet_tf.model import ExitStates
from epnet_tf.policies import Policy, rules

BETA = 1e-3


def made_states(model, count=200, seed=0) -> ExitStates:
    """Sure exits are right, and the first is sure of every other image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(model.num_classes, size=count)
    logits = rng.normal(size=(count, model.num_exits, model.num_classes))
    right = np.arange(model.num_classes) == labels[:, None, None]
    sure = (np.arange(count) % 2 == 0)[:, None, None] | (
        np.arange(model.num_exits) == model.num_exits - 1
    )[None, :, None]
    logits += 8.0 * (right & sure)
    pooled = tuple(
        np.zeros([count, model.get_layer(f"controller_{i:02d}").inputs[0].shape[-1]])
        for i in range(1, model.num_exits)
    )
    return ExitStates(pooled, logits.astype("float32"), labels)


def never_stopping(**kwargs):
    model = small_epnet(**kwargs)
    for i in range(1, model.num_exits):
        stop = model.get_layer(f"controller_{i:02d}").get_layer("stop")
        stop.set_weights([np.zeros(stop.kernel.shape), np.array([-5.0])])
    return model


@pytest.fixture(scope="module")
def model():
    return never_stopping(beta=BETA)


@pytest.fixture(scope="module")
def states(model):
    return made_states(model)


def test_every_image_is_decided_by_a_policy_that_has_not_seen_it(model, states):
    tuned_on = []

    def tune(some: ExitStates) -> Policy:
        seen = {row.tobytes() for row in some.logits}
        tuned_on.append(len(some))

        def decide(others: ExitStates) -> np.ndarray:
            assert not seen & {row.tobytes() for row in others.logits}
            return np.full(len(others), 2)

        return Policy("second", decide, np.array([1, 2, 3]))

    score = policies.score_folded(tune, states)
    assert tuned_on == [160] * 5
    assert score.mean_cost == 2 and score.exit_rates.tolist() == [0, 1, 0]
    assert score.accuracy == states.correct[:, 1].mean()


def test_what_is_tuned_on_few_images_scores_too_well_on_them(model):
    """Where confidence says nothing of being right, tuning finds something in it."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, model.num_exits, model.num_classes))
    pooled = made_states(model, 20).pooled
    states = ExitStates(pooled, logits.astype("float32"), rng.integers(3, size=20))

    def tune(some):
        return policies.softmax_per_exit(some, model.exit_costs, 1e-6)

    on_itself = policies.score(tune(states), states)
    assert policies.score_folded(tune, states).accuracy < on_itself.accuracy


def test_two_images_are_the_least(model, states):
    def tune(some):
        return policies.softmax_per_exit(some, model.exit_costs, BETA)

    policies.score_folded(tune, states.take(slice(2)))
    with pytest.raises(ValueError, match="at least 2 images"):
        policies.score_folded(tune, states.take(slice(1)))


def test_thresholds_are_shipped_where_controllers_are_behind(model, states):
    better, choice = shipped.choose(model, states, BETA)
    assert choice["policy"] == "softmax-per-exit" and not choice["promised"]
    worth = choice["validation"]
    # Never stopping costs all and gets all right.
    assert worth["epnet"] == pytest.approx(
        100.0 * states.correct[:, -1].mean()
        - BETA * model.exit_costs.with_controllers[-1]
    )
    assert worth["softmax-per-exit"] > worth["epnet"]
    expected = policies.tuned_confidence(states, model.exit_costs, BETA)
    np.testing.assert_allclose(better.confidence, expected, atol=1e-7)
    assert better.beta == BETA and model.confidence is None


def test_controllers_stay_where_they_are_better(model, states, monkeypatch):
    def all_knowing(model, beta=None):
        return rules.hindsight(model.exit_costs, BETA)

    monkeypatch.setattr(policies, "epnet", all_knowing)
    kept, choice = shipped.choose(model, states, BETA)
    assert kept is model and choice["policy"] == "epnet"
    assert shipped.behind(model, states, [BETA]) == []


def test_promised_controllers_stay(model, states):
    kept, choice = shipped.choose(model, states, BETA, promised=True)
    assert kept is model and choice["policy"] == "epnet" and choice["promised"]
    assert choice["validation"]["softmax-per-exit"] > choice["validation"]["epnet"]


def test_the_table_says_which_and_why(model, states):
    choices = [
        shipped.choose(model, states, BETA, promised)[1] for promised in (False, True)
    ]
    _, tuned, promised = shipped.table(choices).splitlines()
    worth = choices[0]["validation"]
    expected = (
        f"controllers {worth['epnet']:.2f}, "
        f"a threshold for each exit {worth['softmax-per-exit']:.2f}"
    )
    assert tuned.split() == f"1.0e-03 softmax-per-exit: {expected}".split()
    assert "epnet, for which there is a promise: controllers" in promised


def test_a_range_that_is_behind_is_warned_of(states, caplog):
    model = never_stopping(beta_range=(1e-4, 1e-2))
    found = shipped.behind(model, states, [1e-3, 2e-3])
    assert [row["beta"] for row in found] == [1e-3, 2e-3]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "ship the model of --beta=0.002" in caplog.text
