"""A β from a budget, from a loss allowed, from a network's size; and what it means."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from small_models import costing, small_epnet, small_images
from test_pretrained_experiment import config_for, inputs  # noqa: F401

import epnet_tf
from epnet_tf import data, objective, policies
from epnet_tf.data import vary_photos
from epnet_tf.evaluation import reports
from epnet_tf.experiments import config, experiment, promised
from epnet_tf.model import compute_states
from epnet_tf.policies import budget
from epnet_tf.training import ControllerSweep


@pytest.mark.parametrize(
    "text, macs",
    [("30M", 30e6), ("1.5G", 1.5e9), ("200k", 2e5), ("45%", 90.0), (" 10e6 ", 10e6)],
)
def test_budgets_as_people_write_them(text, macs):
    assert budget.parse(text, costing(200)) == pytest.approx(macs)


@pytest.mark.parametrize("text", ["M", "-3M", "30 apples", "", "0%", "30m"])
def test_what_is_no_budget(text):
    with pytest.raises(ValueError, match=r"30M.*Received: "):
        budget.parse(text, costing(200))


@pytest.mark.parametrize(
    "full, betas", [(10_000_000, (3e-7, 1e-6)), (65_320_000, (5e-8, 2e-7))]
)
def test_betas_for_a_network_of_a_size(full, betas):
    assert promised.betas_for_size(full) == betas


@pytest.mark.parametrize(
    "beta, warned",
    [(1e-9, "next to nothing"), (1e-4, "more than"), (1e-7, ""), (0, "")],
)
def test_absurd_betas_are_warned_of(beta, warned, caplog):
    objective.warn_of_beta(beta, 10_000_000)
    assert warned in caplog.text and bool(warned) == bool(caplog.records)
    if warned:
        assert "10 M multiply-adds" in caplog.text
        assert "From 1e-07 to 3e-06 it costs 1 to 30" in caplog.text


def test_trainers_warn(caplog):
    model = small_epnet()
    full = model.exit_costs.full
    epnet_tf.ControllerTrainer(model, beta=10 / full)
    ControllerSweep(model, [10 / full])
    assert not caplog.records
    epnet_tf.ControllerTrainer(model, beta=1e3 / full)
    ControllerSweep(model, [1e3 / full])
    assert len(caplog.records) == 2


def test_controllers_are_assigned_by_their_beta():
    model = small_epnet()
    sweep = ControllerSweep(model, [1e-4, 2e-4])
    for place in range(2):
        sweep.assign(place)
        expected = model.get_weights()
        sweep.assign(1 - place)
        sweep.assign(beta=sweep.betas[place])
        assert model.beta == sweep.betas[place]
        for a, b in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"0.0002.*Received: beta=0.0003"):
        sweep.assign(beta=3e-4)


def test_betas_that_keep_promises(inputs):  # noqa: F811
    images, labels = small_images(900)
    model = small_epnet()
    trainer = epnet_tf.ClassifierTrainer(model)
    trainer.compile(keras.optimizers.Adam(0.01))
    trainer.fit(images[:300], labels[:300], epochs=3, verbose=0)
    train, validation = (
        compute_states(model, images[part], labels[part], verbose=0)
        for part in (slice(300), slice(300, None))
    )
    chosen = dataclasses.replace(
        config_for(inputs, controller_epochs=60),
        budgets=("95%",),
        accuracy_drops=(20.0,),
    )
    limit, drop = promised.betas_that_keep(chosen, model, train, validation, verbose=0)
    assert limit["unit"] == "MACs" and drop["unit"] == "points"
    assert (
        limit["validation"]
        < limit["limit"]
        == pytest.approx(0.95 * model.exit_costs.full)
    )
    assert drop["validation"] < 20.0 == drop["limit"]
    text = promised.table([limit, drop])
    assert "at most 95% multiply-adds" in text and "at most 20 points lost" in text


def test_betas_between_policies_that_are_far_apart():
    # Two steps of 5% and a bit need two more β, one step none.
    between = promised.betas_between([8e-6, 1e-6, 9e-7], [0.2, 0.32, 0.37])
    np.testing.assert_allclose(between, [4e-6, 2e-6])
    assert not promised.betas_between([2.0, 1.0], [0.5, 0.5]).size


def test_candidates_are_tried_where_policies_jump(monkeypatch):
    images, labels = small_images(20)
    model = small_epnet()
    full = model.exit_costs.full
    train = compute_states(model, images, labels, verbose=0)
    monkeypatch.setattr(promised, "_COUNT", 2)
    taken = iter([0.30 * full, 0.44 * full])
    monkeypatch.setattr(promised, "_mean_cost", lambda policy, states: next(taken))
    sweeps, found = promised.candidates(model, train, epochs=1, verbose=0)
    # From 100 to 0.3 points; 14% apart is three steps of 5%.
    expected = [float(f"{p / full:.1e}") for p in np.geomspace(100, 0.3, 4)]
    assert list(found) == expected
    for beta in expected:
        sweeps[beta].assign(beta=beta)
        assert model.beta == beta
        np.testing.assert_array_equal(
            policies.epnet(model).decide(train), found[beta].decide(train)
        )


def test_what_an_image_takes(tmp_path):
    images, labels = small_images(20)
    model = small_epnet()
    train = compute_states(model, images, labels, verbose=0)
    stored = compute_states(model, images, labels, verbose=0, directory=tmp_path / "s")
    exits = np.array([1, 2] * 10)
    policy = policies.Policy("", lambda s: exits[: len(s)], np.array([10.0, 30.0]))
    assert promised._mean_cost(policy, train) == 20.0
    assert promised._mean_cost(policy, stored) == 20.0


def test_without_a_beta_the_network_says(inputs, tmp_path):  # noqa: F811
    chosen = dataclasses.replace(config_for(inputs, epochs=1), betas=())
    metrics = experiment.run(chosen, tmp_path, verbose=0)
    betas = [row["beta"] for row in metrics["policies"]["epnet"]]
    assert betas == list(promised.betas_for_size(metrics["full_macs"]))
    kept = json.loads((tmp_path / "config.json").read_text())
    assert kept["betas"] == betas
    assert experiment.run(chosen, tmp_path, verbose=0) == metrics
    points = betas[0] * metrics["full_macs"]
    assert f"running all of the network costs {points:.3g}" in reports.table(metrics)


def test_a_range_and_a_budget(inputs):  # noqa: F811
    with pytest.raises(ValueError, match=r"without a range.*45%"):
        dataclasses.replace(
            config_for(inputs), betas=(), beta_range=(1e-6, 1e-4), budgets=("45%",)
        )


@pytest.mark.parametrize(
    "count, passes", [(50_000, 8), (30_000, 9), (12_000, 20), (2_000, 120), (100, 480)]
)
def test_few_images_are_passed_over_more_often(count, passes):
    assert config.passes_for(count) == passes


@pytest.mark.parametrize(
    "count, augment, draws",
    [
        (60, vary_photos, 4),
        (3_300, vary_photos, 3),
        (9_000, vary_photos, 1),
        (60_000, vary_photos, 1),
        (60, None, 1),
    ],
)
def test_controllers_see_few_photos_in_several_draws(count, augment, draws):
    split = data.Split(np.zeros([count, 1, 1, 3], np.uint8), np.zeros(count, int))
    dataset = data.Dataset("p", ("a", "b"), split, split, split, augment=augment)
    assert config.draws_for(dataset) == draws


def test_a_data_set_of_ones_own_gets_as_many_passes(inputs, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(config, "_CONTROLLER_STEPS", 10)
    chosen = config_for(inputs, epochs=1)
    chosen = dataclasses.replace(
        chosen, schedule=dataclasses.replace(chosen.schedule, controller_epochs=0)
    )
    metrics = experiment.run(chosen, tmp_path, verbose=0)
    assert metrics["settings"]["schedule"]["controller_epochs"] == 10
    assert experiment.run(chosen, tmp_path, verbose=0) == metrics


def test_exits_are_chosen_before_a_promise_has_its_beta(inputs):  # noqa: F811
    chosen = config_for(inputs, exits="auto:2")
    dataset, model = data.load_dataset(inputs[0]), small_epnet()
    kept = [
        experiment._chosen_exits(config, model, 2, dataset, verbose=0).exit_layers
        for config in (
            dataclasses.replace(chosen, betas=(), budgets=("45%",)),
            dataclasses.replace(
                chosen, betas=promised.betas_for_size(model.exit_costs.full)
            ),
        )
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 2


def test_promises_that_are_none_are_told_before_anything_is_trained(
    inputs,  # noqa: F811
    tmp_path,
):
    with pytest.raises(ValueError, match=r"drops above 0.*Received: \[0.5, -1.0\]"):
        dataclasses.replace(config_for(inputs), accuracy_drops=(0.5, -1.0))
    chosen = dataclasses.replace(config_for(inputs), budgets=("30 apples",))
    with pytest.raises(ValueError, match=r"30M.*Received: '30 apples'"):
        experiment.run(chosen, tmp_path, verbose=0)
    assert not list(tmp_path.iterdir())
