"""Refit: states of the quantized model, and heads that are fitted to them."""

import keras
import numpy as np
import pytest
from conftest import BETA_RANGE, residual_backbone

import epnet_tf
from epnet_tf import policies
from epnet_tf.conversion import convert
from epnet_tf.model import compute_states
from epnet_tf.quantization import refit
from epnet_tf.runtime import bundle
from epnet_tf.tflite import export, flatbuffer, outputs


@pytest.fixture(scope="module")
def int8_tflite(epnet, images):
    return convert.to_tflite(epnet, images, "int8")


@pytest.fixture(scope="module")
def fitted(epnet, int8_tflite, images, labels):
    return refit.refit(epnet, int8_tflite, images, labels)


@pytest.fixture(scope="module")
def refitted_bundle(epnet, images, labels, tmp_path_factory):
    return epnet_tf.convert(
        epnet,
        images,
        tmp_path_factory.mktemp("refit") / "bundle",
        training_data=(images, labels),
        evaluation_data=(images[:40], labels[:40]),
        test_data=(images[40:], labels[40:]),
    )


def test_states_of_the_float_model_are_those_of_keras(
    epnet, float_tflite, images, labels
):
    found = refit.compute_states(float_tflite, images, labels)
    expected = compute_states(epnet, images, labels, verbose=0)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    for a, b in zip(found.pooled, expected.pooled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.labels, labels)


@pytest.mark.parametrize("mode", ["int8", "int8-full"])
def test_states_are_what_the_quantized_heads_see(epnet, images, labels, mode):
    whole = convert.to_tflite(epnet, images, mode)
    states = refit.compute_states(whole, images, labels)
    said = outputs.of_tflite(whole, images)
    np.testing.assert_array_equal(states.logits, said.logits)
    stops = policies.stop_logits(epnet, states)
    # Kernels of controllers have 11 bits in int8, and in int8-full 8, as all they read.
    tolerance = {"int8": 2**-10, "int8-full": 0.1}[mode] * np.ptp(said.stops)
    np.testing.assert_allclose(stops, said.stops, atol=tolerance)


def test_what_a_classifier_scales_is_found_folded_or_not(epnet, images, labels):
    """Conversion folds scaling into dense layers that have a bias."""
    biased = epnet_tf.EPNet.from_config(epnet.get_config())
    biased.set_weights(epnet.get_weights())
    biased.get_layer("logits_01").bias.assign([1.0, 2.0, 3.0, 4.0])
    wanted = keras.Model(epnet.input, epnet.get_layer("scaling_01").input)
    for model in (epnet, biased):
        whole = export.to_tflite(model)
        _, statistics = refit._states_and_statistics(whole, images, labels)
        np.testing.assert_allclose(
            statistics[0], wanted.predict(images, verbose=0), rtol=1e-4, atol=1e-5
        )


def test_controllers_that_read_no_features_are_refitted(images, labels):
    model = epnet_tf.EPNet(
        residual_backbone(),
        4,
        exits=["relu1a"],
        controller=epnet_tf.PaperController(f_in=(), f_cat=(5, 1)),
        beta=1e-5,
    )
    whole = convert.to_tflite(model, images, "int8")
    assert refit.compute_states(whole, images, labels).pooled[0].shape == (60, 0)
    fitted = refit.refit(model, whole, images, labels)
    before, after = (
        m.get_layer("controller_01").get_layer("stop").get_weights()[0]
        for m in (model, fitted)
    )
    assert 0 < np.abs(before - after).max() < 0.1


def test_correction_finds_the_layer_that_gives_what_is_wanted():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 3))
    kernel = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    bias = np.array([0.5, -0.5])
    found, offset = refit.corrected(
        np.zeros([3, 2]), np.zeros(2), features, features @ kernel + bias
    )
    np.testing.assert_allclose(found, kernel, atol=5e-3)
    np.testing.assert_allclose(offset, bias, atol=5e-3)


def test_correction_of_features_that_never_change_is_in_the_bias():
    features = np.tile([[1.0, 2.0]], [4, 1])
    kernel, bias = np.array([[1.0], [1.0]]), np.array([0.0])
    wanted = np.array([[4.0], [6.0], [5.0], [5.0]])
    found, offset = refit.corrected(kernel, bias, features, wanted)
    np.testing.assert_array_equal(found, kernel)
    np.testing.assert_allclose(offset, [2.0])


def test_classifiers_are_nearer_to_those_before_quantization(
    epnet, fitted, int8_tflite, images, labels
):
    wanted = compute_states(epnet, images, labels, verbose=0).logits
    before, statistics = refit._states_and_statistics(int8_tflite, images, labels)
    after = before.logits.copy()
    for i, read in enumerate(statistics):
        scaled = fitted.get_layer(f"scaling_{i + 1:02d}")(read)
        after[:, i] = fitted.get_layer(f"logits_{i + 1:02d}")(scaled)
    far, near = (np.abs(x - wanted).mean(axis=(0, 2)) for x in (before.logits, after))
    assert (near[:-1] < far[:-1]).all()
    assert near[-1] == far[-1]


def test_heads_alone_change_and_the_given_model_does_not(
    epnet, int8_tflite, images, labels
):
    given = epnet.get_weights()
    fitted = refit.refit(epnet, int8_tflite, images, labels)
    for old, new in zip(given, epnet.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    last = f"logits_{epnet.num_exits:02d}"
    for old, new in zip(epnet.layers, fitted.layers, strict=True):
        changed = any(
            not np.array_equal(a, b)
            for a, b in zip(old.get_weights(), new.get_weights(), strict=True)
        )
        is_head = old.name.startswith(("controller_", "logits_"))
        assert changed == (is_head and old.name != last)
    assert fitted.beta == epnet.beta


def test_controllers_scale_states_as_before(epnet, fitted):
    for i in range(1, epnet.num_exits):
        before, after = (
            m.get_layer(f"controller_{i:02d}").get_layer("scaling").get_weights()
            for m in (epnet, fitted)
        )
        assert len(before) == len(after) == 2
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)


def test_main_branch_is_the_same_byte_for_byte(fitted, int8_tflite, images):
    again = convert.to_tflite(fitted, images, "int8")
    assert again.content != int8_tflite.content
    content = refit.main_branch(int8_tflite)
    assert content == refit.main_branch(again)
    # Five kernels and as many biases at least, and a scale of each tensor.
    assert sum(len(c) > 0 for c in content) > 20
    refit.check_same_main_branch(int8_tflite, again)


def test_a_changed_main_branch_or_range_is_noticed(epnet, int8_tflite, images):
    other = epnet_tf.EPNet.from_config(epnet.get_config())
    other.set_weights(epnet.get_weights())
    layer = other.get_layer("conv1a")
    layer.set_weights([w * 1.01 for w in layer.get_weights()])
    for model, calibration in ((other, images), (epnet, images // 2)):
        changed = convert.to_tflite(model, calibration, "int8")
        with pytest.raises(ValueError, match="changed the main branch"):
            refit.check_same_main_branch(int8_tflite, changed)


def test_refit_is_the_same_each_time(epnet, fitted, int8_tflite, images, labels):
    again = refit.refit(epnet, int8_tflite, images, labels)
    for a, b in zip(fitted.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bundle_with_a_refit_tells_of_before_and_after(refitted_bundle, int8_bundle):
    metrics = refitted_bundle.manifest.metrics
    assert metrics.images == 40
    assert metrics.test.images == 20
    for found in (metrics, metrics.test):
        assert found.before_refit is not None
        assert 0 <= found.same_answer <= min(found.same_exit, found.same_label)
    assert metrics.cost is not None
    assert metrics.test.cost is None
    assert bundle.read_manifest(refitted_bundle.path) == refitted_bundle.manifest
    assert int8_bundle.manifest.metrics.before_refit is None


def test_segment_without_a_changed_head_has_the_same_constants(
    refitted_bundle, int8_bundle
):
    """Nothing in the last segment is fitted again; names of its tensors may differ."""
    old, new = (
        flatbuffer.read(bundle.read_tflite(b.path, b.manifest.segments[-1])).model
        for b in (int8_bundle, refitted_bundle)
    )
    constants = [
        [bytes(b.data) for b in m.buffers if b.data is not None] for m in (old, new)
    ]
    assert constants[0] == constants[1]
    assert sum(map(len, constants[0])) > 500


def test_refit_for_a_range_of_beta(
    epnet_with_beta, images, labels, beta_bundle, tmp_path
):
    conversion = epnet_tf.convert(
        epnet_with_beta,
        images,
        tmp_path / "bundle",
        training_data=(images, labels),
        evaluation_data=(images, labels),
    )
    assert conversion.manifest.policy.beta_range == BETA_RANGE
    metrics = conversion.manifest.metrics
    before = beta_bundle.manifest.metrics
    assert metrics.before_refit.bundle == before.bundle
    assert metrics.before_refit.same_exit == before.same_exit


@pytest.mark.parametrize(
    "change, message",
    [
        ({"refit": True}, "to refit the controllers on"),
        ({"refit": True, "quantization": "none"}, "refit with quantization none"),
        ({"refit": True, "quantization": "float16"}, "quantization float16"),
        (
            {"training_data": "short"},
            "training_data, one for each of 60 .* Received: 5",
        ),
    ],
)
def test_what_cannot_be_refitted_is_refused(
    epnet, images, labels, tmp_path, change, message
):
    if "training_data" in change:
        change = {"training_data": (images, labels[:5])}
    with pytest.raises(ValueError, match=message):
        epnet_tf.convert(epnet, images, tmp_path / "b", **change)
    assert not any(tmp_path.iterdir())


def test_one_exit_needs_no_refit(images, labels, tmp_path):
    backbone = keras.Sequential(
        [keras.Input((16, 16, 1)), keras.layers.Conv2D(4, 3, activation="relu")]
    )
    model = epnet_tf.EPNet(backbone, 4, exits=[], beta=1e-6)
    given = {"training_data": (images, labels)}
    with pytest.raises(ValueError, match="Received: 1 exit"):
        epnet_tf.convert(model, images, tmp_path / "b", refit=True, **given)
    epnet_tf.convert(model, images, tmp_path / "b", **given)
