"""A confidence threshold for each exit instead of controllers, end to end."""

import json
import shutil

import keras
import numpy as np
import pytest
from conftest import BETA

import epnet_tf
from epnet_tf import policies
from epnet_tf.conversion import convert
from epnet_tf.model import ConfidenceThreshold, ExitStates, compute_states
from epnet_tf.policies import rules
from epnet_tf.quantization import modes, refit
from epnet_tf.runtime import bundle
from epnet_tf.tflite import outputs

MODES = [mode for mode in modes.MODES if mode != "qat"]


def stops(logits, confidence):
    """What one exit's head says of logits [n, classes]."""
    logits = np.asarray(logits, "float32")
    head = ConfidenceThreshold().build("controller_01", 3, logits.shape[-1])
    head.get_layer("stop").limit.assign([1.0 - confidence])
    return np.asarray(head([np.zeros([len(logits), 3], "float32"), logits]))[:, 0]


@pytest.fixture(scope="module")
def states(epnet, images, labels) -> ExitStates:
    return compute_states(epnet, images, labels, verbose=0)


@pytest.fixture(scope="module")
def thresholded(epnet, states) -> epnet_tf.EPNet:
    """Of the images that get to an exit, about half leave."""
    confidence, reached = [], np.ones(len(states), bool)
    for lack in rules.lack_of_confidence(states)[:, :-1].T:
        confidence.append(1.0 - np.median(lack[reached]))
        reached &= lack >= np.median(lack[reached])
    return epnet.with_thresholds(confidence, BETA)


@pytest.fixture(scope="module")
def made(thresholded, images, labels, tmp_path_factory):
    return epnet_tf.convert(
        thresholded,
        images,
        tmp_path_factory.mktemp("thresholds") / "bundle",
        training_data=(images, labels),
        evaluation_data=(images, labels),
    )


def test_stop_value_is_the_largest_probability_less_the_threshold():
    # Softmax of [log 3, 0] is [0.75, 0.25], of [0, 0, 0] thirds.
    logits = [[np.log(3.0), 0.0], [0.0, np.log(4.0)], [0.0, 0.0]]
    np.testing.assert_allclose(stops(logits, 0.7), [0.05, 0.1, -0.2], atol=1e-6)
    np.testing.assert_allclose(stops([[0.0, 0.0, 0.0]], 0.3), [1 / 30], atol=1e-6)


def test_with_zero_all_leave_and_with_one_none():
    logits = [[90.0, 0.0], [0.0, 0.0], [-5.0, 7.0]]
    assert (stops(logits, 0.0) > 0).all()
    assert not (stops(logits, 1.0) > 0).any()


def test_confidences_beside_one_are_told_apart():
    """Of a lead by 23 and by 24, one lacks 1.0e-10 and one 3.8e-11 of 1."""
    found = stops([[23.0, 0.0], [24.0, 0.0]], 1.0 - 7e-11)
    assert found[0] < 0 < found[1]


def test_thresholds_cost_no_multiply_adds(epnet, thresholded):
    np.testing.assert_array_equal(
        thresholded.exit_costs.with_controllers, epnet.exit_costs.with_classifiers
    )


@pytest.mark.parametrize("beta", [1e-5, 1e-4, 3e-4])
def test_the_model_decides_as_softmax_per_exit(epnet, beta):
    """On states with ties, with equal confidences and with very sure exits."""
    rng = np.random.default_rng(0)
    scale = rng.choice([0.5, 3.0, 30.0], [1000, 1, 1])
    logits = (rng.normal(size=(1000, 4, 4)) * scale).astype("float32")
    logits[:100, :, 1] = logits[:100, :, 0]
    logits = np.concatenate([logits, logits])
    pooled = tuple(np.zeros([2000, 8], "float32") for _ in range(3))
    labels = np.where(
        rng.random(2000) < 0.6, logits.mean(axis=1).argmax(axis=1), rng.integers(4)
    )
    states = ExitStates(pooled, logits, labels)
    confidence = policies.tuned_confidence(states, epnet.exit_costs, beta)
    rule = policies.softmax_per_exit(states, epnet.exit_costs, beta)
    model = epnet.with_thresholds(confidence, beta)
    exits = policies.epnet(model).decide(states)
    np.testing.assert_array_equal(exits, rule.decide(states))
    np.testing.assert_array_equal(policies.epnet(model).costs, rule.costs)
    assert 1 < len(set(exits))


def test_thresholds_lie_halfway_between_what_they_part():
    """At exit 1 the sure image is right and the unsure one wrong; exit 2 is right."""
    logits = np.array([[[4.0, 0.0], [4.0, 0.0]], [[0.0, 2.0], [4.0, 0.0]]], "float32")
    states = ExitStates((np.zeros([2, 1], "float32"),), logits, np.array([0, 0]))
    costs = epnet_tf.model.ExitCosts(*[np.array([1, 2])] * 3)
    found = policies.tuned_confidence(states, costs, beta=1.0)
    sure, unsure = (1.0 / (1.0 + np.exp(-lead)) for lead in (4.0, 2.0))
    np.testing.assert_allclose(found, [(sure + unsure) / 2])


def test_thresholds_are_saved_copied_and_kept_with_their_exits(thresholded, tmp_path):
    thresholded.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for model in (loaded, thresholded.copy()):
        assert model.confidence == thresholded.confidence
        assert model.beta == BETA
    fewer = thresholded.with_exits(thresholded.exit_layers[1:2])
    assert fewer.confidence == thresholded.confidence[1:2]


def test_a_model_with_controllers_has_no_thresholds(epnet):
    assert epnet.confidence is None


@pytest.mark.parametrize(
    "confidence",
    [[0.5] * 2, [0.5] * 4, [0.5, -0.1, 0.5], [0.5, np.nan, 1.0], [1.1] * 3],
)
def test_bad_thresholds_are_refused(epnet, confidence):
    with pytest.raises(ValueError, match="Expected 3 confidences from 0 to 1"):
        epnet.with_thresholds(confidence, BETA)


def test_thresholds_know_nothing_of_a_range_of_beta(epnet):
    with pytest.raises(ValueError, match="Expected thresholds for one beta"):
        epnet.with_new_controllers(ConfidenceThreshold(), beta_range=(1e-6, 1e-5))


@pytest.mark.parametrize(
    "train",
    [
        lambda model, states: epnet_tf.ControllerTrainer(model, beta=BETA),
        lambda model, states: epnet_tf.train_controllers(model, states, [BETA]),
    ],
)
def test_there_is_nothing_to_train(thresholded, states, train):
    with pytest.raises(ValueError, match="Expected a model with controllers"):
        train(thresholded, states)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_decides_in_float32(thresholded, images, labels, mode):
    """With the logits that a quantized model gives, it stops as the rule says."""
    whole = convert.to_tflite(thresholded, images, mode)
    said = outputs.of_tflite(whole, images)
    lack = rules.lack_of_confidence(
        ExitStates((), said.logits, np.zeros(len(images), int))
    )
    expected = (1.0 - np.array(thresholded.confidence)) - lack[:, :-1]
    np.testing.assert_allclose(said.stops, expected, atol=2e-6)


def test_refit_leaves_thresholds_alone(thresholded, images, labels):
    whole = convert.to_tflite(thresholded, images, "int8")
    fitted = refit.refit(thresholded, whole, images, labels)
    assert fitted.confidence == thresholded.confidence
    assert not np.array_equal(
        *(m.get_layer("logits_01").kernel.numpy() for m in (fitted, thresholded))
    )


def test_bundle_says_its_thresholds(made, thresholded):
    policy = made.manifest.policy
    assert policy == bundle.Policy("threshold", 0.0, BETA, None, thresholded.confidence)
    assert bundle.read_manifest(made.path) == made.manifest
    np.testing.assert_array_equal(
        made.manifest.cumulative_macs, thresholded.exit_costs.with_classifiers
    )


def test_the_report_says_its_thresholds(made, thresholded):
    text = (made.path / "report.md").read_text()
    assert ", ".join(f"{c:.4f}" for c in thresholded.confidence) in text


def test_runner_and_one_file_stop_where_keras_does(thresholded, made, images):
    assert made.manifest.metrics.same_exit > 0.9
    answers = epnet_tf.SegmentRunner(made.path).predict(images)
    one = epnet_tf.SegmentRunner(made.path / made.manifest.model.file).predict(images)
    np.testing.assert_array_equal(answers.exit, one.exit)
    np.testing.assert_array_equal(answers.label, one.label)
    assert set(answers.exit) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"confidence": None}, "has not 3 confidences"),
        ({"confidence": [0.5, 0.5]}, "has not 3 confidences"),
        ({"confidence": [0.5, 0.5, 1.5]}, "has not 3 confidences"),
        ({"confidence": [0.5, 0.5, float("nan")]}, "has not 3 confidences"),
        ({"confidence": [0.5, "high", 0.5]}, "is not as expected"),
        ({"type": "controller"}, "both controllers and confidences"),
        ({"beta": None, "beta_range": [1e-6, 1e-5]}, "thresholds for a range of beta"),
        ({"type": "entropy"}, "unknown type 'entropy'"),
    ],
)
def test_bundles_with_other_thresholds_are_refused(made, tmp_path, change, problem):
    path = shutil.copytree(made.path, tmp_path / "bundle")
    manifest = json.loads((path / "epnet.json").read_text())
    manifest["policy"] |= change
    (path / "epnet.json").write_text(json.dumps(manifest))
    bundle.write_checksum(path)
    with pytest.raises(ValueError, match=problem):
        epnet_tf.SegmentRunner(path)
