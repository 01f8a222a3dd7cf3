"""Experiments in milliseconds, and measuring them: train, evaluate, measure_costs."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from test_experiment import BETAS, config_for, inputs  # noqa: F401

from epnet_tf.experiments import case, experiment, promised
from epnet_tf.runtime import bundle, latency
from epnet_tf.runtime.cost_table import CostTable, read_costs
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.runner import SegmentRunner
from epnet_tf.tflite import joining

ROOT = pathlib.Path(__file__).parents[1]
BUNDLE = ROOT / "android_demo/app/src/main/assets/bundles/maxmin-1e-06"
# A power of two, so that β per millisecond times milliseconds rounds as in MACs.
MACS_PER_MS = 1024.0


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT
    )


@pytest.fixture(scope="module")
def in_macs(inputs, tmp_path_factory):  # noqa: F811
    workdir = tmp_path_factory.mktemp("runs") / "workdir"
    return workdir, experiment.run(config_for(inputs), workdir, verbose=0)


@pytest.fixture(scope="module")
def table(in_macs):
    """Milliseconds in proportion to multiply-adds."""
    exits = in_macs[1]["exits"]
    return CostTable(
        "ms",
        tuple(exit["layer"] for exit in exits),
        tuple(exit["cumulative_macs"] / MACS_PER_MS for exit in exits),
        in_macs[1]["full_macs"] / MACS_PER_MS,
    )


@pytest.fixture(scope="module")
def in_ms(in_macs, table, inputs, tmp_path_factory):  # noqa: F811
    """The same folder, gone on with for milliseconds."""
    workdir = tmp_path_factory.mktemp("runs") / "workdir"
    shutil.copytree(in_macs[0], workdir)
    config = config_for(inputs, tuple(MACS_PER_MS * beta for beta in BETAS))
    config = dataclasses.replace(config, costs=table)
    return workdir, experiment.run(config, workdir, verbose=0)


def test_milliseconds_in_proportion_to_macs_give_the_same_policy(in_macs, in_ms):
    macs, ms = in_macs[1], in_ms[1]
    assert (macs["cost_unit"], ms["cost_unit"]) == ("macs", "ms")
    assert ms["full_macs"] == macs["full_macs"] == MACS_PER_MS * ms["full_cost"]
    for one, other in zip(
        macs["policies"]["epnet"], ms["policies"]["epnet"], strict=True
    ):
        assert other["exit_rates"] == one["exit_rates"]
        assert other["benefit"] == pytest.approx(one["benefit"])
        assert MACS_PER_MS * other["mean_cost"] == pytest.approx(one["mean_cost"])


def test_stage_one_is_kept_and_models_have_their_costs(in_macs, in_ms, table):
    file = "classifiers.keras"
    assert (in_ms[0] / file).read_bytes() == (in_macs[0] / file).read_bytes()
    beta = MACS_PER_MS * BETAS[0]
    model = keras.saving.load_model(experiment.model_file(in_ms[0], beta))
    assert model.costs == table and model.beta == beta


def test_costs_of_another_network_change_nothing(in_ms, table, inputs):  # noqa: F811
    workdir, metrics = in_ms
    other = dataclasses.replace(table, layers=tuple("abcd"[: len(table.layers)]))
    config = dataclasses.replace(config_for(inputs), costs=other)
    with pytest.raises(ValueError, match="costs of this network's exits"):
        experiment.run(config, workdir, verbose=0)
    assert json.loads((workdir / "metrics.json").read_text()) == metrics


def test_a_folder_of_before_costs_had_units(in_macs, inputs, tmp_path):  # noqa: F811
    workdir = tmp_path / "workdir"
    shutil.copytree(in_macs[0], workdir)
    old = {k: v for k, v in in_macs[1].items() if k != "cost_unit"}
    (workdir / "metrics.json").write_text(json.dumps(old))
    assert experiment.run(config_for(inputs), workdir, verbose=0) == in_macs[1]


def test_betas_are_found_in_the_unit(in_macs, table, inputs, tmp_path):  # noqa: F811
    shutil.copytree(in_macs[0], tmp_path / "workdir")
    config = dataclasses.replace(config_for(inputs, ()), costs=table)
    metrics = experiment.run(config, tmp_path / "workdir", verbose=0)
    betas = [row["beta"] for row in metrics["policies"]["epnet"]]
    assert betas == list(promised.betas_for_size(table.full))


def test_a_case_is_in_the_unit_that_was_trained_for(in_ms, in_macs, table):
    found = case.load_case(in_ms[0], verbose=0)
    assert found.model.costs == table and found.folder.name == "controllers-costs"
    assert found.plan.betas == tuple(MACS_PER_MS * beta for beta in BETAS)
    assert found.recipe["costs"]["unit"] == "ms"
    # Betas of a folder that was trained for MACs mean nothing in milliseconds.
    with pytest.raises(ValueError, match=r"points per ms, .*Received: none"):
        case.load_case(in_macs[0], verbose=0, costs=table)


@pytest.mark.slow
def test_evaluate_in_milliseconds(in_ms, tmp_path):
    workdir = f"--workdir={in_ms[0]}"
    done = run("evaluate.py", workdir, f"--results={tmp_path}", "--seeds=1")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "bright" / "report.json").read_text())
    assert report["cost_unit"] == "ms"
    text = (tmp_path / "bright" / "report.md").read_text()
    assert "accuracy-against-ms.png" in text and "| exit | after | ms |" in text


def measured(folder, *arguments):
    file = folder / "costs.json"
    return file, run("-m", "epnet_tf.measure_costs", f"--output={file}", *arguments)


def test_measuring_a_bundle(tmp_path):
    file, done = measured(tmp_path, f"--bundle={BUNDLE}", "--rounds=3")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((BUNDLE / "epnet.json").read_text())
    found = read_costs(file)
    layers = tuple(segment["layer"] for segment in manifest["segments"])
    assert found.unit == "ms" and found.layers == layers and found.full > 0
    assert f"{layers[-1]} " in done.stdout and "3 repetitions" in done.stdout
    exits = json.loads(file.read_text())["exits"]
    medians = np.cumsum([exit["segment"]["median_ms"] for exit in exits])
    np.testing.assert_allclose(found.costs, medians)


def test_segments_joined_again_answer_as_they_did():
    runner = SegmentRunner(BUNDLE)
    runner.threshold = np.inf
    entries = runner.manifest.segments
    contents = [bundle.read_tflite(BUNDLE, entry) for entry in entries]
    last = f"logits_{len(entries):02d}"
    network = LiteRTModel(joining.cut(joining.join(contents), [last]))
    assert list(network.inputs) == ["image"]
    image = np.random.default_rng(0).uniform(0, 255, (50, 50, 1)).astype("float32")
    image = image.astype(runner.manifest.input.dtype)
    exit_index, logits = runner.run_image(image)
    assert exit_index == len(entries) - 1
    np.testing.assert_array_equal(network.run(image=image)[last][0], logits)


def test_the_report_of_a_measurement():
    manifest = bundle.read_manifest(BUNDLE)
    count = len(manifest.segments)
    # Segment k takes k milliseconds, in the third round ten times as long.
    reaching = np.cumsum([np.arange(1, count + 1)] * 3, axis=1) * [[1], [1], [10]]
    report = latency._report(manifest, reaching / 1e3, np.array([0.05] * 3), None)
    assert [exit["segment"]["median_ms"] for exit in report["exits"]] == pytest.approx(
        range(1, count + 1)
    )
    assert report["exits"][1]["reaching"] == pytest.approx(
        {"mean_ms": 12.0, "median_ms": 3.0, "p90_ms": 24.6}
    )
    assert report["network"]["median_ms"] == pytest.approx(50.0)


def test_measuring_what_cannot_be(tmp_path):
    for folder, said in ((tmp_path, "Expected a bundle"), (BUNDLE, "Expected no beta")):
        _, done = measured(tmp_path, f"--bundle={folder}", "--beta=1", "--rounds=1")
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"error: {said}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["folder", "file/costs.json"])
def test_where_nothing_can_be_written_nothing_is_measured(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "epnet_tf.measure_costs", f"--bundle={BUNDLE}"]
    command += [f"--output={tmp_path / name}", "--rounds=1000000000"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and str(tmp_path / name) in done.stderr
    assert not any((tmp_path / "folder").iterdir())
