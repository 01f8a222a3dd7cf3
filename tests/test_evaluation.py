"""Tables, plans, kept controllers and reports, against hand-computed values."""

import json

import numpy as np
import pytest
from small_models import small_epnet, small_images

import epnet_tf
from epnet_tf import policies
from epnet_tf.data import Split
from epnet_tf.evaluation import (
    exit_figures,
    figures,
    markdown,
    paper,
    policy_figures,
    tables,
)
from epnet_tf.evaluation.contest import Outcome
from epnet_tf.experiments import case, case_controllers, plans, recipes
from epnet_tf.model import ExitStates
from epnet_tf.policies import Score

BETA = 1e-6


def outcome(accuracy, macs):
    return Outcome(np.ones(1, int), Score(accuracy, macs, np.ones(1)))


RESULTS = {
    "epnet": {BETA: [outcome(0.9, 9e6), outcome(0.8, 11e6)]},
    "resnet": {BETA: [outcome(0.95, 25e6)]},
    "static": {BETA: [outcome(0.7, 5e6)]},
    "hindsight": {BETA: [outcome(0.95, 5e6)]},
}


def test_who_runs_out_of_budget_guesses_the_rest():
    rows = tables.budget_table(RESULTS, BETA, num_classes=10, name="maxmin")
    assert [r["policy"] for r in rows] == ["epnet", "static", "resnet"]
    assert [r["rank"] for r in rows] == [1, 2, 3]
    epnet, static, resnet = rows
    assert epnet["budget_accuracy"] == epnet["accuracy"] == pytest.approx(85.0)
    assert epnet["complete"] and static["complete"] and not resnet["complete"]
    assert resnet["share"] == pytest.approx(0.4)
    assert resnet["budget_accuracy"] == pytest.approx(0.4 * 95 + 0.6 * 10)
    assert resnet["paper"] == (46.86, 95.69) and static["paper"] is None


def test_the_papers_budget_rows_follow_from_its_shares():
    for name, rows in paper.TABLE_1.items():
        within, without = rows["resnet"]
        share = paper.SHARES[name]
        assert share * without + (1 - share) * 10 == pytest.approx(within, abs=0.1)


def test_the_papers_second_table_follows_from_equation_1():
    for *_, benefit, accuracy, macs, _ in paper.TABLE_2:
        assert accuracy - 5e-7 * macs == pytest.approx(benefit, abs=0.02)


def test_way_to_hindsight():
    (row,) = tables.way_to_hindsight(RESULTS)
    # static 65, epnet 85 - 10 = 75, hindsight 90, resnet 95 - 25 = 70.
    assert row == {
        "beta": BETA,
        "epnet": pytest.approx(40.0),
        "resnet": pytest.approx(20.0),
    }


def test_no_way_where_the_best_static_exit_is_hindsight():
    results = RESULTS | {"hindsight": RESULTS["static"]}
    assert tables.way_to_hindsight(results) == []
    report = {"dataset": "mine", "betas": [BETA], "way_to_hindsight": []}
    report["cost_unit"] = "macs"
    report["policies"] = {name: [] for name in results}
    assert policy_figures.way_to_hindsight(report).axes


def hand_states(right, sureness=0.9):
    """States of two classes, label 0, with these exits right: bool [n, N]."""
    right = np.asarray(right)
    odds = np.log(sureness / (1 - sureness))
    logits = np.zeros((*right.shape, 2), "float32")
    logits[..., 0] = np.where(right, odds, -odds)
    return ExitStates((), logits, np.zeros(len(right), int))


def test_exit_profile():
    states = hand_states([[1, 1], [0, 1], [0, 0], [0, 1]])
    first, last = tables.exit_profile(states, np.array([1, 1, 2, 2]))
    assert first == {"accuracy_all": 0.25, "accuracy_left": 0.5, "rate": 0.5}
    assert last == {"accuracy_all": 0.75, "accuracy_left": 0.5, "rate": 0.5}
    _, nobody = tables.exit_profile(states, np.ones(4, int))
    assert nobody["accuracy_left"] is None


def test_calibration_is_the_distance_of_confidence_and_accuracy():
    states = hand_states(np.array([[1, 0]] * 6 + [[0, 1]] * 4), sureness=0.9)
    first, last = tables.calibration(states, bins=1)
    assert first["error"] == pytest.approx(0.9 - 0.6)
    assert last["error"] == pytest.approx(0.9 - 0.4)
    # With fewer images than bins, each is one of its own: six right, four wrong.
    first, _ = tables.calibration(states)
    assert len(first["accuracy"]) == 10
    assert first["error"] == pytest.approx(0.6 * 0.1 + 0.4 * 0.9)


def test_plans():
    for name, plan in plans.PLANS.items():
        assert plans.plan_for(name) is plan
        aims = {*plan.leads, *plan.benefits}
        assert aims <= set(plan.betas) <= set(plan.all_betas)
        assert list(plan.all_betas) == sorted(plan.all_betas)
    mine = plans.plan_for("mine", (2e-6, 1e-6))
    assert mine.betas == (1e-6, 2e-6) and mine.table_beta == 1e-6
    with pytest.raises(ValueError, match=r"mine.*Received: none"):
        plans.plan_for("mine")
    with pytest.raises(ValueError, match="Received: beta=-1"):
        plans.plan_for("digits", (-1,))


def test_mixed_states_are_those_of_all_parts():
    states = hand_states([[1, 1], [0, 1], [0, 0], [0, 1]])
    found = case.mixed([states, *[states.take(slice(1))] * 3])
    assert len(found) == 7
    assert (found.correct.all(axis=1)).sum() == 4


@pytest.fixture(scope="module")
def model():
    return small_epnet()


def test_controllers_are_kept_for_one_recipe(model, tmp_path):
    images, labels = small_images(20)
    states = epnet_tf.compute_states(model, images, labels, verbose=0)
    weights = policies.controller_weights(model)
    file = tmp_path / "kept" / "epnet-0.npz"
    assert recipes.recipe_of(file) == ""
    case_controllers._write(file, "these", [weights, weights], 1.5)
    (one, other), seconds = case_controllers._read(file)
    assert seconds == 1.5 and recipes.recipe_of(file) == "these"
    for kept in (one, other):
        np.testing.assert_allclose(
            policies.stop_logits(model, states, weights=kept),
            policies.stop_logits(model, states, weights=weights),
            atol=0.05,
        )


def test_a_model_with_the_controllers_that_were_kept(model, tmp_path):
    model.save(tmp_path / "classifiers.keras")
    weights = policies.controller_weights(model)
    doubled = [([2 * w for w in trained], rest) for trained, rest in weights]
    recipe = json.dumps({"betas": [1e-6, 4e-6]})
    file = tmp_path / "controllers" / "epnet-0.npz"
    case_controllers._write(file, recipe, [weights, doubled], 1.5)
    found = case_controllers.kept_model(tmp_path, 4e-6)
    assert found.beta == 4e-6
    kept = policies.controller_weights(found)
    for (trained, _), (own, _) in zip(kept, weights, strict=True):
        for value, before in zip(trained, own, strict=True):
            np.testing.assert_allclose(value, 2 * before, rtol=2e-3, atol=1e-6)
    with pytest.raises(ValueError, match=r"1e-06, 4e-06\. Received: beta=2e-06"):
        case_controllers.kept_model(tmp_path, 2e-6)


def test_other_controllers_on_the_same_exits(model):
    twin = model.with_new_controllers(epnet_tf.PaperController((5,), (4, 1)))
    images, labels = small_images(20)
    one, other = (
        epnet_tf.compute_states(m, images, labels, verbose=0) for m in (model, twin)
    )
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)
    costs, others = model.exit_costs, twin.exit_costs
    assert np.array_equal(costs.with_classifiers, others.with_classifiers)
    assert costs.with_controllers[0] != others.with_controllers[0]


def test_markdown_table():
    found = markdown.table(["a", "b"], [["1", "2"]])
    assert found == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_a_sheet_has_a_row_for_each_exit_that_was_used(tmp_path):
    images, labels = small_images(30)
    exits = np.repeat([1, 3], 15)
    figure = exit_figures.example_sheet(
        Split(images, labels), ["a", "b", "c"], exits, labels, 3, columns=4
    )
    assert len(figure.axes) == 8
    assert figure.axes[4].get_ylabel() == "exit 3\n50.0%"
    figures.save(figure, tmp_path / "sheet.svg")
    assert (tmp_path / "sheet.svg").read_text().startswith("<?xml")


def test_benefits_of_several_data_sets_are_side_by_side():
    row = {"benefit_std": 0.1, "accuracy": 0.9, "mean_cost": 5.0}
    rows = [{"beta": b, "benefit": 90 - b, **row} for b in (1.0, 2.0)]
    names = ("epnet", "softmax-per-exit", "static", "hindsight", "resnet")
    report = {
        "dataset": "one",
        "betas": [1.0, 2.0],
        "policies": {name: rows for name in names},
    }
    both = [report, report | {"dataset": "two"}]
    figure = policy_figures.benefit_against_beta(json.loads(json.dumps(both)))
    assert [a.get_title() for a in figure.axes] == ["one", "two", "", ""]
