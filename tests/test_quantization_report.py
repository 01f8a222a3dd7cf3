"""The report of a conversion: figures worked out by hand, and what is written."""

import dataclasses
import json
import re

import numpy as np
import pytest

import epnet_tf
from epnet_tf.conversion import convert, measure, report, report_figure
from epnet_tf.runtime import bundle
from epnet_tf.runtime.metrics import BeforeRefit, Cost, PolicyMetrics, Time
from epnet_tf.runtime.prediction import ExitOutputs
from epnet_tf.tflite import outputs

MACS = np.array([10, 20, 40])
COSTS = measure.Costs(MACS, MACS)
BETA = 1.0
LABELS = np.array([0, 1, 0, 1])
GO, STOP = -1.0, 1.0


def exit_outputs(classes, stops, odds=(3, 3, 3)):
    """Outputs of two classes, with the odds of the class that each exit names."""
    logits = np.zeros([*np.shape(classes), 2], np.float32)
    for place in np.ndindex(np.shape(classes)):
        logits[(*place, classes[place[0]][place[1]])] = np.log(odds[place[1]])
    return ExitOutputs(logits, np.array(stops, np.float32))


# Images leave through exits 1, 2, 3 and 2, all with the right label: accuracy 1,
# 22.5 MACs on average, benefit 77.5.
FLOAT = exit_outputs(
    [[0, 0, 0], [0, 1, 1], [0, 1, 0], [0, 1, 1]],
    [[STOP, GO], [GO, STOP], [GO, GO], [GO, STOP]],
)
# The second leaves too early, the fourth is mistaken: accuracy ½, 20 MACs, benefit 30.
QUANTIZED = exit_outputs(
    [[0, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 1]],
    [[STOP, GO], [STOP, GO], [GO, GO], [GO, STOP]],
    odds=(3, 9, 3),
)


@pytest.fixture
def metrics():
    return measure.compare(FLOAT, QUANTIZED, LABELS, COSTS, BETA)


@pytest.fixture
def manifest(int8_bundle, metrics):
    """A manifest of three exits with these metrics."""
    given = int8_bundle.manifest
    return dataclasses.replace(given, segments=given.segments[:3], metrics=metrics)


def test_policy_with_float_and_quantized_model(metrics):
    assert metrics.float == PolicyMetrics(
        accuracy=1.0,
        benefit=77.5,
        mean_macs=22.5,
        exit_rates=(0.25, 0.5, 0.25),
        exit_accuracy=(0.5, 0.75, 1.0),
    )
    assert metrics.bundle == PolicyMetrics(
        accuracy=0.5,
        benefit=30.0,
        mean_macs=20.0,
        exit_rates=(0.5, 0.25, 0.25),
        exit_accuracy=(0.5, 0.5, 1.0),
    )


def test_agreement(metrics):
    assert metrics.same_exit == 0.75
    assert metrics.same_label == 0.5
    assert metrics.same_answer == 0.5
    assert metrics.before_refit is None
    twin = measure.compare(FLOAT, FLOAT, LABELS, COSTS, BETA, before_refit=QUANTIZED)
    assert twin.same_exit == twin.same_label == twin.same_answer == 1.0
    assert twin.before_refit == BeforeRefit(metrics.bundle, 0.75, 0.5, 0.5)


def test_confidence_shift(metrics):
    # Odds of 3 to 1 are 0.75, odds of 9 to 1 are 0.9.
    np.testing.assert_allclose(metrics.confidence_shift, [0, 0.15, 0], atol=1e-6)


def test_benefit_lost_is_told_apart_by_exit(metrics):
    # The second image paid 100 - 20 and pays -10 now, the fourth 80 and -20.
    assert metrics.lost == (90 / 4, 100 / 4, 0)
    assert sum(metrics.lost) == metrics.float.benefit - metrics.bundle.benefit


def test_loss_is_warned_of_with_its_worst_exit(metrics):
    (warning,) = report.warnings(metrics)
    assert warning == (
        "The bundle's benefit on the validation images is 47.50 points below the Keras "
        "model's (30.00 after 77.50); 25.00 of them are lost by images that leave "
        "through exit 2."
    )
    fine = measure.compare(FLOAT, FLOAT, LABELS, COSTS, BETA)
    assert report.warnings(fine) == []
    (warning,) = report.warnings(dataclasses.replace(fine, test=metrics))
    assert "on the test images" in warning
    assert report.warnings(None) == []


@pytest.mark.parametrize("drop, warned", [(0.49, False), (0.51, True)])
def test_half_a_point_is_tolerated(metrics, drop, warned):
    less = dataclasses.replace(metrics.float, benefit=metrics.float.benefit - drop)
    found = dataclasses.replace(metrics, bundle=less)
    assert bool(report.warnings(found)) == warned


def cells(text, first):
    """The cells of the row of a Markdown table that begins so."""
    line = re.search(rf"^\| {re.escape(first)} \|.*$", text, re.MULTILINE)
    assert line, text
    return [cell.strip() for cell in line[0].strip("|").split("|")]


def test_report_says_what_was_measured(manifest, metrics):
    text = report.text(dataclasses.replace(manifest, full_macs=40))
    text = text.partition("## Words")[0]
    full = ["100.00%", "77.50", "0.00 M", "56.2%", "", "", ""]
    assert cells(text, "Keras model, float32")[1:] == full
    ours = ["50.00%", "30.00", "0.00 M", "50.0%", "75.0%", "50.0%", "50.0%"]
    assert cells(text, "bundle")[1:] == ours
    shares = ["75.00%", "50.00%", "50.00%", "25.00%"]
    assert cells(text, "2")[2:] == [*shares, "+15.00", "+25.000"]
    assert "## 4 validation images" in text
    assert "**The bundle's benefit" in text
    assert "before refit" not in text
    assert "test images" not in text
    both = dataclasses.replace(
        metrics, test=measure.compare(FLOAT, QUANTIZED, LABELS, COSTS, BETA, QUANTIZED)
    )
    text = report.text(dataclasses.replace(manifest, metrics=both))
    assert "## 4 test images" in text
    assert cells(text, "bundle before refit")[1:3] == ["50.00%", "30.00"]


def test_size_and_time(manifest, metrics):
    times = (Time("whole", 2.0, 1.0), Time("segments", 0.5, 0.25))
    cost = Cost(float_bytes=4_000_000, bundle_bytes=1_000_000, times=times)
    metrics = dataclasses.replace(metrics, cost=cost)
    text = report.text(dataclasses.replace(manifest, metrics=metrics))
    assert "1.00 MB, 0.25 of the same segments in float32" in text
    assert cells(text, "segments")[1:] == ["0.500 ms", "0.25"]


def test_bundle_stands_beside_the_plain_network(manifest, metrics):
    whole = measure.whole_name(manifest)
    names = (measure.PLAIN, whole, measure.EARLY, measure.ONE_FILE)
    cost = Cost(
        float_bytes=4_000_000,
        bundle_bytes=1_000_000,
        times=tuple(
            Time(n, 9.0, 1.0, m) for n, m in zip(names, (1, 2, 3, 4), strict=True)
        ),
        plain_bytes=900_000,
        whole_bytes=950_000,
    )
    metrics = dataclasses.replace(metrics, cost=cost)
    segments = tuple(
        dataclasses.replace(entry, bytes=1_000, cumulative_macs=macs)
        for entry, macs in zip(manifest.segments, (1e6, 2e6, 4e6), strict=True)
    )
    model = dataclasses.replace(manifest.model, bytes=3_500)
    manifest = dataclasses.replace(
        manifest, segments=segments, model=model, full_macs=3_900_000, metrics=metrics
    )
    text = report.text(manifest)
    plain = cells(text, "plain network, int8")
    assert plain[1:] == ["100.00%", "3.90 M", "900,000", "1.000 ms"]
    # Images that go through all exits: the last one's answers.
    none_taken = cells(text, "with all exits, none taken")
    assert none_taken[1:] == ["100.00%", "4.00 M", "950,000", "2.000 ms"]
    early = cells(text, "bundle: segments")
    assert early[1:] == ["50.00%", "0.00 M", "3,000", "3.000 ms"]
    assert cells(text, f"bundle: {model.file}")[3:] == ["3,500", "4.000 ms"]
    assert "accuracy, validation images" in text


def test_the_plain_network_is_the_last_exit_alone(epnet_with_beta, images):
    whole = convert.to_tflite(epnet_with_beta, images, "int8", beta=1e-5)
    plain = measure.plain_network(whole)
    assert list(plain.inputs) == ["image"] and list(plain.outputs) == ["logits_04"]
    assert len(plain.content) < len(whole.content)
    wanted = outputs.of_tflite(whole, images, 1e-5).logits[:, -1]
    found = outputs.run(outputs.opened(plain), images)["logits_04"]
    np.testing.assert_array_equal(found, wanted)


def test_every_column_of_the_report_is_defined(manifest):
    text, words = report.text(manifest).split("## Words")
    for word in ("accuracy", "benefit", "MACs", "exit rate", "same exit", "both"):
        assert word in text and f"**{word}**" in words


def test_figure_has_a_row_of_panels_for_each_set(manifest, metrics):
    assert len(report_figure.draw(manifest).axes) == 3
    both = dataclasses.replace(metrics, test=metrics)
    figure = report_figure.draw(dataclasses.replace(manifest, metrics=both))
    assert len(figure.axes) == 6
    bars = [bar.get_height() for bar in figure.axes[2].patches]
    np.testing.assert_allclose(bars, [0, 15, 0], atol=1e-4)


@pytest.mark.parametrize("mode", ["none", "int8"])
def test_answers_from_all_exits_are_those_of_the_segments(
    epnet, float_bundle, int8_bundle, images, mode
):
    path = {"none": float_bundle, "int8": int8_bundle}[mode].path
    whole = convert.to_tflite(epnet, images, mode)
    macs = epnet.exit_costs.with_controllers
    found = outputs.of_tflite(whole, images).answers(macs)
    for ours, theirs in zip(
        found, epnet_tf.SegmentRunner(path).predict(images), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("ranged, beta", [(True, None), (False, 1e-5)])
def test_beta_is_for_models_that_take_it(epnet, epnet_with_beta, images, ranged, beta):
    whole = convert.to_tflite(epnet_with_beta if ranged else epnet, images, "none")
    with pytest.raises(ValueError, match=f"Expected beta .* Received: beta={beta}"):
        outputs.of_tflite(whole, images, beta)


def test_answers_from_all_exits_are_those_of_keras(epnet_with_beta, images):
    found = outputs.of_keras(epnet_with_beta, images, 1e-5).answers(
        epnet_with_beta.exit_costs.with_controllers
    )
    for ours, theirs in zip(
        found, epnet_with_beta.classify(images, beta=1e-5), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_bundle_holds_its_report(int8_bundle, float_bundle):
    text = (int8_bundle.path / "report.md").read_text()
    assert text == report.text(int8_bundle.manifest)
    assert (int8_bundle.path / "report.png").read_bytes().startswith(b"\x89PNG")
    cost = int8_bundle.manifest.metrics.cost
    segments = int8_bundle.manifest.segments
    assert cost.bundle_bytes == sum(s.bytes for s in segments)
    of_float = float_bundle.manifest.segments
    assert cost.float_bytes == sum(s.bytes for s in of_float)
    assert next(t.ratio for t in cost.times) == 1.0
    assert all(t.milliseconds > 0 and t.mean_milliseconds > 0 for t in cost.times)
    assert "## Beside the plain network" in text


def test_bundles_of_earlier_versions_are_read(int8_bundle, tmp_path):
    content = json.loads((int8_bundle.path / "epnet.json").read_text())
    old = ("float", "bundle", "same_exit", "same_label", "beta", "images")
    content["metrics"] = {key: content["metrics"][key] for key in old}
    for key in ("float", "bundle"):
        del content["metrics"][key]["exit_accuracy"]
    (tmp_path / "epnet.json").write_text(json.dumps(content))
    metrics = bundle.read_manifest(tmp_path).metrics
    assert metrics.float.accuracy == int8_bundle.manifest.metrics.float.accuracy
    assert metrics.cost is metrics.test is metrics.before_refit is None
    assert report.warnings(metrics) == []
