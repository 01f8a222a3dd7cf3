"""Costs in another unit than multiply-adds: files, models, policies, bundles."""

import dataclasses
import json
import re
import shutil

import keras
import numpy as np
import pytest
from small_models import costing, small_epnet, small_images
from test_android_device_report import REPORT

import epnet_tf
from epnet_tf import policies
from epnet_tf.evaluation import promises, reports
from epnet_tf.model.cost import given_costs
from epnet_tf.policies import budget
from epnet_tf.runtime import bundle, units
from epnet_tf.runtime.cost_table import CostTable, read_costs

LAYERS = ("block1_relu1", "block2_relu1", "block3_relu2")
OWN = {
    "format": "epnet-costs",
    "version": 1,
    "unit": "mJ",
    "layers": list(LAYERS),
    "costs": [1.0, 2.5, 4],
    "full": 3.5,
}
TABLE = CostTable("ms", LAYERS, (1.0, 2.5, 4.0), 3.0, p90=(1.5, 3.0, 5.0))
IMAGES, LABELS = small_images(60)


def write(folder, content):
    path = folder / "costs.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_file_of_ones_own(tmp_path):
    table = read_costs(write(tmp_path, OWN))
    assert table == CostTable("mJ", LAYERS, (1.0, 2.5, 4.0), 3.5)


def test_a_device_report_gives_medians_and_p90(tmp_path):
    table = read_costs(write(tmp_path, REPORT))
    assert table.unit == "ms" and table.full == 0.5
    np.testing.assert_allclose(table.costs, [0.2, 0.4, 0.6])
    np.testing.assert_allclose(table.p90, [0.3, 0.5, 0.7])
    # Where the plain network was not timed, the last exit stands for it.
    alone = read_costs(write(tmp_path, REPORT | {"network": None}))
    assert alone.full == table.costs[-1]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"costs": [1.0, 2.5]}, "2 costs for 3 exits"),
        ({"costs": [0, 2.5, 4]}, "a cost of 0 mJ for exit 1"),
        ({"costs": [1.0, -2, 4]}, "a cost of -2 mJ for exit 2"),
        ({"costs": [1.0, 2.5, float("nan")]}, "a cost of nan mJ for exit 3"),
        ({"costs": [1.0, 2.5, 2.4]}, "2.4 mJ for exit 3 after 2.5 mJ"),
        ({"full": 0.0}, "a cost of 0 mJ for the plain network"),
        ({"full": None}, "costs: full is not as expected"),
        ({"costs": "much"}, "costs: costs is not as expected"),
        ({"unit": "macs"}, "the unit 'macs'"),
        ({"unit": ""}, "the unit ''"),
        ({"unit": " "}, "the unit ' '"),
        ({"layers": [], "costs": []}, "0 costs for 0 exits"),
        ({"p90": [1.0]}, "1 values in p90 for 3 exits"),
        ({"format": "epnet-bundle"}, "Received: epnet-bundle in"),
        ({"version": 2}, "version 1"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, change, said):
    path = write(tmp_path, OWN | change)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        read_costs(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "epnet-device-report"}'])
def test_files_of_something_else(tmp_path, content):
    with pytest.raises(ValueError, match=r"costs\.json"):
        read_costs(write(tmp_path, content))


def test_what_exits_take_is_shared_among_them():
    # Two exits take 4 - 3 = 1 ms together: half a millisecond each.
    costs = given_costs(TABLE)([1, 2, 3])
    assert costs.unit == "ms" and costs.full == 3.0
    assert costs.with_controllers.tolist() == [1.0, 2.5, 4.0]
    assert costs.with_classifiers.tolist() == [1.0, 2.5, 4.0]
    assert costs.alone.tolist() == [1.0, 2.0, 3.0]
    fewer = given_costs(TABLE)([2, 3])
    assert fewer.with_controllers.tolist() == [2.0, 3.5]
    assert fewer.alone.tolist() == [2.0, 3.0]


def test_no_exit_is_cheaper_than_one_before_it():
    # The second exit's own segment takes less than the exits' mean.
    table = CostTable("ms", LAYERS, (1.0, 1.25, 4.0), 3.0)
    costs = given_costs(table)([1, 2, 3])
    assert costs.with_controllers.tolist() == [1.0, 1.25, 4.0]
    assert costs.alone.tolist() == [1.0, 1.0, 3.0]
    # A clock's noise: the whole network is slower than its parts.
    slower = given_costs(dataclasses.replace(table, full=5.0))([1, 2, 3])
    assert slower.alone.tolist() == [1.0, 1.25, 5.0] and slower.full == 5.0


@pytest.fixture(scope="module")
def model():
    made = small_epnet(costs=TABLE)
    epnet_tf.train_controllers(
        made, states_of(made), [5.0], epochs=1, verbose=0
    ).assign()
    return made


def states_of(model):
    return epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)


def test_a_model_keeps_the_costs_that_its_controllers_were_trained_for(model, tmp_path):
    assert model.exit_costs.with_controllers.tolist() == list(TABLE.costs)
    assert model.exit_macs.unit == units.MACS
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.costs == model.copy().costs == TABLE and loaded.beta == 5.0
    # What was executed is still told in MACs.
    macs = model.exit_macs.with_controllers
    prediction = model.classify(IMAGES)
    np.testing.assert_array_equal(prediction.macs, macs[prediction.exit - 1])


def test_a_model_with_some_exits_has_estimated_costs(model):
    chosen = model.with_exits(["block2_relu1"])
    assert chosen.costs == CostTable("ms", LAYERS[1:], (2.0, 3.5), 3.0)
    assert chosen.beta == model.beta


def test_costs_of_another_network_or_unit(model):
    twin = model.copy()
    other = dataclasses.replace(TABLE, layers=("a", "b", "c"))
    with pytest.raises(ValueError, match=r"block3_relu2\. Received: .* a, b, c\."):
        twin.costs = other
    assert twin.costs == TABLE and twin.beta == 5.0
    twin.costs = dataclasses.replace(TABLE, unit="mJ")
    assert twin.beta is None  # Trained for points per ms: that is nothing per mJ.
    for_range = model.with_new_controllers(beta_range=(1.0, 10.0))
    with pytest.raises(ValueError, match=r"costs in ms, .* Received: in MACs\."):
        for_range.costs = None
    assert for_range.costs == TABLE


def test_the_trainers_pay_in_the_unit(model):
    states = states_of(model)
    trainer = epnet_tf.ControllerTrainer(model.copy(), beta=5.0)
    trainer.compile("adam")
    found = trainer.evaluate(
        states.inputs, states.labels, batch_size=60, verbose=0, return_dict=True
    )
    exits = policies.epnet(trainer.model).decide(states)
    spent = np.array(TABLE.costs)[exits - 1].mean()
    assert found["mean_cost"] == pytest.approx(spent, rel=1e-5)
    right = states.correct[np.arange(60), exits - 1].mean()
    assert found["benefit"] == pytest.approx(100 * right - 5 * spent, rel=1e-4)


def test_static_and_bound_pay_for_one_exit(model):
    states, costs = states_of(model), model.exit_costs
    assert policies.score(policies.resnet(costs), states).mean_cost == 3.0
    # So dear that nobody goes on.
    first = policies.static(states, costs, beta=1e3)
    assert policies.score(first, states).mean_cost == 1.0


def test_exits_are_selected_by_their_cost(model):
    # The second exit is right where the last is, and the first never.
    states = states_of(model)
    logits = np.zeros([60, 3, 3], "float32")
    for index, answers in enumerate((states.labels + 1, states.labels, states.labels)):
        logits[np.arange(60), index, answers % 3] = 9
    knowing = dataclasses.replace(states, logits=logits)
    assert policies.select_exits(model, knowing, [5.0]) == ["block2_relu1"]


@pytest.mark.parametrize("text, limit", [("1.5ms", 1.5), (" 2 ms", 2.0), ("50%", 2.0)])
def test_budgets_in_milliseconds(text, limit):
    assert budget.parse(text, costing(4.0, "ms")) == limit


@pytest.mark.parametrize("text", ["30M", "1.5mJ", "1.5", "ms", "0ms", "-1ms", "nanms"])
def test_budgets_in_another_unit(text):
    with pytest.raises(ValueError, match=r"number of ms, such as 1\.5ms, .*Received"):
        budget.parse(text, costing(4.0, "ms"))
    with pytest.raises(
        ValueError, match=r"number of multiply-adds.*Received: '1\.5ms'"
    ):
        budget.parse("1.5ms", costing(4))


def test_promises_in_milliseconds_tell_of_the_noise():
    model = small_epnet(costs=TABLE, beta_range=(1.0, 10.0))
    states = epnet_tf.compute_states(model, *small_images(700), verbose=0)
    (row,) = promises.keep(model, states, states, budgets=["4.5ms"])
    assert row["promise"] == "at most 4.5 ms" and row["unit"] == "ms"
    exits = policies.epnet(model, row["beta"]).decide(states)
    assert row["test"] == np.array(TABLE.costs)[exits - 1].mean() == row["mean_cost"]
    assert row["p90"] == np.array(TABLE.p90)[exits - 1].mean()
    assert row["share"] == row["test"] / 3.0


def test_reports_are_in_the_unit(model):
    states = states_of(model)
    scores = {
        "epnet": [[policies.score(policies.epnet(model), states)]],
        "resnet": [[policies.score(policies.resnet(model.exit_costs), states)]],
    }
    metrics = reports.metrics(model, "mine", states, [5.0], scores)
    assert (metrics["cost_unit"], metrics["full_cost"]) == ("ms", 3.0)
    assert metrics["full_macs"] == model.exit_macs.full
    assert [exit["cost"] for exit in metrics["exits"]] == list(TABLE.costs)
    text = reports.table(metrics)
    assert "multiply-adds, 3 ms" in text and "mean ms" in text
    assert "costs 15 points" in text and "3 ms   100.0%" in text


@pytest.fixture(scope="module")
def converted(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "ms"
    return epnet_tf.convert(
        model,
        IMAGES[:8],
        folder,
        quantization="none",
        evaluation_data=(IMAGES, LABELS),
        formats="segments",
    )


def test_a_bundle_says_what_was_paid(converted, model):
    content = json.loads((converted.path / "epnet.json").read_text())
    assert content["cost_unit"] == "ms" and content["costs"] == list(TABLE.costs)
    assert content["full_cost"] == 3.0
    assert content["full_macs"] == model.exit_macs.full
    found = content["metrics"]["float"]
    answers = model.classify(IMAGES)
    spent = np.array(TABLE.costs)[answers.exit - 1].mean()
    assert found["mean_cost"] == spent and found["mean_macs"] == answers.macs.mean()
    right = np.mean(answers.label == LABELS)
    assert found["benefit"] == pytest.approx(100 * right - 5 * spent)
    assert "mean ms" in (converted.path / "report.md").read_text()
    manifest = epnet_tf.SegmentRunner(converted.path).manifest
    assert manifest.paid_unit == "ms" and manifest.paid.tolist() == list(TABLE.costs)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"costs": [1.0, 2.0]}, "2 costs for 3 exits"),
        ({"costs": [1.0, 0.5, 2.0]}, "0.5 ms for exit 2 after 1 ms"),
        ({"costs": [0, 0.5, 2.0]}, "a cost of 0 ms"),
        ({"full_cost": -1}, "-1 ms for the plain network"),
        ({"full_cost": None}, "costs or full_cost are missing beside cost_unit 'ms'"),
        ({"cost_unit": None}, "their cost_unit is missing"),
        ({"cost_unit": "macs"}, "their cost_unit is missing"),
    ],
)
def test_bundles_with_costs_that_cannot_be(converted, tmp_path, change, said):
    folder = tmp_path / "bundle"
    shutil.copytree(converted.path, folder)
    file = folder / "epnet.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    (folder / bundle.CHECKSUM).unlink()
    with pytest.raises(ValueError, match=re.escape(said)):
        bundle.read_manifest(folder)
