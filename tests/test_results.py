"""The committed results follow from the committed models, without the data sets."""

import hashlib
import json
import pathlib

import numpy as np
import pytest

from epnet_tf.experiments import sample
from epnet_tf.model.loading import load_model

ROOT = pathlib.Path(__file__).parent.parent
DATASETS = ("maxmin", "multiscale", "cifar10")


@pytest.mark.parametrize("dataset", DATASETS)
def test_scores_on_the_sample_come_out_again(dataset):
    models, results = ROOT / "models" / dataset, ROOT / "results" / dataset
    found = sample.recompute(
        load_model(str(models / "classifiers.keras")),
        models / "controllers",
        results / "sample.npz",
    )
    report = json.loads((results / "report.json").read_text())
    said = report["sample"]
    betas = [row["beta"] for row in report["policies"]["epnet"]]
    assert {f"epnet at {beta:g}" for beta in betas} < said.keys() == found.keys()
    for name in said:
        # On another processor an image whose stop logit is nearly 0 may go on.
        np.testing.assert_allclose(found[name], said[name], rtol=0.01, err_msg=name)


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_report_is_of_the_committed_model(dataset):
    report = json.loads((ROOT / "results" / dataset / "report.json").read_text())
    file = ROOT / "models" / dataset / "classifiers.keras"
    assert report["classifiers"] == digest(file)
    papers = file.parent / "paper" / "classifiers.keras"
    if papers.exists():
        assert report["paper_network"]["classifiers"] == digest(papers)
    model = load_model(str(file))
    assert report["full_macs"] == model.exit_costs.full
    costs = [e["cumulative_macs"] for e in report["exits"]]
    np.testing.assert_array_equal(costs, model.exit_costs.with_controllers)
    for rows in report["policies"].values():
        for row in rows:
            # Reports of before costs had units called it so.
            spent = row.get("mean_cost", row.get("mean_macs"))
            paid = 100 * row["accuracy"] - row["beta"] * spent
            assert row["benefit"] == pytest.approx(paid)
