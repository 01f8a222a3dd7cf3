"""Promises: the β that keeps them, and what test images took, by hand."""

import numpy as np
import pytest
from small_models import small_epnet, small_images

from epnet_tf.evaluation import promises
from epnet_tf.experiments import case
from epnet_tf.model import compute_states

BETA_RANGE = (1e-6, 1e-4)


@pytest.fixture(scope="module")
def model():
    """A model whose controllers let everyone leave by the first exit."""
    model = small_epnet(beta_range=BETA_RANGE)
    stop = model.get_layer("controller_01").get_layer("stop")
    stop.set_weights([np.zeros_like(stop.kernel), np.array([1.0], "float32")])
    return model


@pytest.fixture(scope="module")
def states(model):
    images, labels = small_images(700)
    return compute_states(model, images, labels, verbose=0)


def with_first_exit(states, shift):
    """The last exit is always right; the first says its label, plus a shift."""
    logits, labels = states.logits.copy(), states.logits[:, -1].argmax(axis=-1)
    logits[:, 0] = np.roll(logits[:, -1], shift, axis=-1)
    return type(states)(states.pooled, logits, labels)


def test_a_budget_that_everyone_meets(model, states):
    (row,) = promises.keep(model, states, states, budgets=["90%"])
    macs = model.exit_costs.with_controllers[0]
    assert row["promise"] == "at most 90% multiply-adds" and row["unit"] == "MACs"
    assert row["limit"] == pytest.approx(0.9 * model.exit_costs.full)
    for key in ("validation", "test", "mean_cost"):
        assert row[key] == pytest.approx(macs)
    assert row["kept"] and row["share"] == pytest.approx(macs / model.exit_costs.full)
    # Where all β spend the same, the lowest one is the dearest candidate.
    assert row["beta"] == pytest.approx(BETA_RANGE[0])


def test_a_promise_that_other_images_break_is_called_broken(model, states):
    good, bad = with_first_exit(states, 0), with_first_exit(states, 1)
    (row,) = promises.keep(model, good, bad, accuracy_drops=[1.0])
    assert row["unit"] == "points" and row["limit"] == 1.0
    assert row["validation"] == 0 and row["test"] == 100 and row["accuracy"] == 0
    assert not row["kept"]
    # All β lose nothing: the highest is the cheapest candidate.
    assert row["beta"] == pytest.approx(BETA_RANGE[1])


def test_a_folder_without_a_model_for_a_range(tmp_path):
    with pytest.raises(ValueError, match=r"model\.keras, as train.py --beta_range"):
        case.load_range_model(tmp_path)
