"""evaluate.py from a trained folder to report and figures."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from small_models import small_epnet, small_images

from epnet_tf import ClassifierTrainer, PaperClassifier
from epnet_tf.experiments import case, sample, study
from epnet_tf.experiments.config import SCHEDULES
from epnet_tf.experiments.contestants import paper_contestants

ROOT = pathlib.Path(__file__).parent.parent
POLICIES = {
    *("epnet", "epnet-paper", "resnet", "static", "branchynet-0.2", "branchynet-0.3"),
    *("branchynet-tuned", "branchynet-oracle", "softmax-gate-0.2", "softmax-gate-0.1"),
    *("softmax-gate-0.01", "softmax-gate-tuned", "softmax-gate-oracle"),
    *("softmax-per-exit", "backward-induction", "reinforce", "hindsight"),
}


def run(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "evaluate.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


@pytest.fixture
def workdir(tmp_path):
    """What train.py leaves: a network, barely trained, on a user's own data."""
    x_train, y_train = small_images(240)
    x_test, y_test = small_images(60, seed=1)
    data = tmp_path / "mine.npz"
    np.savez(data, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    folder = tmp_path / "run"
    folder.mkdir()
    config = {
        "dataset": str(data),
        "seed": 0,
        "betas": [1e-5, 1e-4],
        "schedule": dataclasses.asdict(
            dataclasses.replace(SCHEDULES["npz"], controller_epochs=2)
        ),
    }
    (folder / "config.json").write_text(json.dumps(config))
    model = small_epnet()
    trainer = ClassifierTrainer(model)
    trainer.compile("adam")
    trainer.fit(x_train, y_train, epochs=1, verbose=0)
    model.save(folder / "classifiers.keras")
    small_epnet(beta_range=(1e-6, 1e-4)).save(folder / "model.keras")
    return folder


@pytest.mark.slow
def test_from_a_trained_folder_to_report_and_figures(workdir, tmp_path):
    with_papers_network(workdir)
    results = tmp_path / "results"
    arguments = (f"--workdir={workdir}", f"--results={results}", "--seeds=2")
    arguments += ("--budget=1e9", "--budget=300%")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads((results / "mine" / "report.json").read_text())
    assert set(report["policies"]) == POLICIES
    assert report["dataset"] == "mine" and len(report["exits"]) == 3
    assert report["command"].startswith("python ")
    assert {"versions", "settings", "full_macs", "table1"} <= report.keys()
    for name, rows in report["policies"].items():
        betas = [1e-5] if name == "reinforce" else [1e-5, 1e-4]
        assert [row["beta"] for row in rows] == betas
        bound = {r["beta"]: r["benefit"] for r in report["policies"]["hindsight"]}
        for row in rows:
            assert sum(row["exit_rates"]) == pytest.approx(1)
            assert row["benefit"] == pytest.approx(
                100 * row["accuracy"] - row["beta"] * row["mean_cost"]
            )
            assert row["benefit"] <= bound[row["beta"]] + 1e-9
    macs, share = report["promises"]
    assert macs["limit"] == 1e9 and share["limit"] == 3 * report["full_macs"]
    assert macs["kept"] and macs["test"] < 1e9
    assert "--budget=1e9" in report["command"]
    text = (results / "mine" / "report.md").read_text()
    assert "at most 300% multiply-adds" in text
    for figure in (results / "mine").glob("*.png"):
        assert f"({figure.name})" in text and figure.with_suffix(".svg").exists()
    assert (results / "benefit.png").exists()
    said = report["sample"]
    found = sample.recompute(
        keras.saving.load_model(workdir / "classifiers.keras"),
        workdir / "controllers",
        results / "mine" / "sample.npz",
    )
    assert {"epnet at 1e-05", "resnet"} <= said.keys() == found.keys()
    for name, score in said.items():
        np.testing.assert_allclose(found[name], score, rtol=0.02)
    learning, sweep = report["learning"], report["sweep"]
    assert learning["reinforce_test"] == pytest.approx(
        report["policies"]["reinforce"][0]["benefit"]
    )
    assert 0 < sweep["times_faster_with_states"] < sweep["times_faster"]
    assert report["paper_network"]["classifiers"] != report["classifiers"]
    assert "`epnet-paper`, and the paper's rows of Table 2: these" in text
    # The controllers were kept: the same numbers come out again, whatever β were
    # evaluated in between.
    for more in (["--beta=2e-5"], []):
        assert run(*arguments, *more).returncode == 0
    again = json.loads((results / "mine" / "report.json").read_text())
    assert again["policies"]["epnet"] == report["policies"]["epnet"]
    assert again["sweep"]["seconds"] == sweep["seconds"]


def with_papers_network(workdir):
    """Puts a network with the paper's branch classifiers beside the folder's own."""
    folder = workdir / "paper"
    folder.mkdir()
    shutil.copy(workdir / "config.json", folder)
    model = small_epnet(classifier=PaperClassifier())
    model.save(folder / "classifiers.keras")
    return folder, model.with_new_controllers(case.plan_for("", [1]).paper_controller)


def test_the_papers_controllers_are_on_a_network_of_their_own(workdir):
    def load():
        return case.load_case(workdir, seeds=1, verbose=0)

    alone = load()
    assert alone.paper is alone
    folder, model = with_papers_network(workdir)
    found = load()
    assert not np.allclose(found.paper.test.logits, found.test.logits)
    rows = paper_contestants(found.paper)["epnet-paper"]
    assert list(rows) == [1e-5, 1e-4]
    for (policy,) in rows.values():
        np.testing.assert_array_equal(policy.costs, model.exit_costs.with_controllers)
    assert [file.name for file in folder.glob("*/*")] == ["epnet-paper-0.npz"]
    assert not (workdir / "controllers").exists()
    # What is kept needs no states of training images.
    again = load()
    (policy,) = paper_contestants(again.paper)["epnet-paper"][1e-4]
    (before,) = rows[1e-4]
    states = again.paper.test
    np.testing.assert_array_equal(policy.decide(states), before.decide(states))
    assert "_training" not in vars(again.paper)


def test_a_network_of_the_papers_controllers_for_other_data(workdir):
    folder, _ = with_papers_network(workdir)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"seed": 1}))
    with pytest.raises(ValueError, match=r"seed \('.*mine.npz', 0\) in .*paper'"):
        case.load_case(workdir)


def test_a_folder_without_a_network(tmp_path):
    done = run(f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: Expected a folder with")


@pytest.mark.parametrize(
    "given, said",
    [
        ({"budgets": ["40%", "much"]}, "Expected as budget"),
        ({"accuracy_drops": [1.0, -1.0]}, "accuracy drops above 0"),
        ({"results_dir": "file"}, "file"),
    ],
)
def test_what_is_wrong_is_told_before_the_work(
    workdir, tmp_path, monkeypatch, given, said
):
    monkeypatch.setattr(case, "compute_states", None)
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=said):
        study.evaluate(workdir, **({"results_dir": "results"} | given))


def test_only_our_reports_are_drawn_together(tmp_path):
    ours = {"dataset": "mine", "betas": [], "policies": {}, "way_to_hindsight": []}
    ours["command"] = "python evaluate.py"
    contents = {
        "ours": json.dumps(ours),
        "theirs": '{"dataset": "mine"}',
        "list": "[]",
        "text": "passed",
    }
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(content)
    assert study.reports_in(tmp_path) == {tmp_path / "ours" / "report.json": ours}
