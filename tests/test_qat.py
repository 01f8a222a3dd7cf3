"""Fine-tuning for int8: what is rebuilt, what is trained, what is refused."""

import importlib.util
import os

import keras
import numpy as np
import pytest
import test_quantization_modes
from keras import layers
from small_models import feeds, small_epnet, small_images

import epnet_tf
from epnet_tf.quantization import modes, qat
from epnet_tf.tflite import export, slicer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None,
    reason="the extra qat is not installed",
)


def mean_loss(model, images, labels):
    """Mean over images of the sum of the exits' cross-entropies."""
    outputs = model.predict(images, verbose=0)
    logits = [v for k, v in outputs.items() if k.startswith("logits")]
    losses = [
        keras.losses.sparse_categorical_crossentropy(labels, z, from_logits=True)
        for z in logits
    ]
    return float(np.mean(sum(losses)))


@pytest.fixture(scope="module")
def data():
    return small_images(64)


@pytest.fixture(scope="module")
def tuned(data):
    """A model, its weights before, and the fine-tuned one."""
    model = small_epnet(beta=1e-5)
    model.get_layer("controller_01").get_layer("hidden").trainable = False
    before = [w.numpy() for w in model.weights]
    result = qat.fine_tune(
        model, *data, epochs=3, batch_size=16, learning_rate=1e-3, verbose=0
    )
    return model, before, result


def test_kernels_and_biases_of_main_branch_and_classifiers_are_trained(tuned):
    model, before, result = tuned
    assert isinstance(result, epnet_tf.EPNet)
    assert (result.beta, result.exit_layers) == (model.beta, model.exit_layers)
    for each in (model, result):
        assert not each.get_layer("controller_01").get_layer("hidden").trainable
        assert each.get_layer("controller_02").get_layer("hidden").trainable
    main = {w.path for w in model.weights if w.path.startswith(("block", "logits"))}
    for old, new in zip(model.weights, result.weights, strict=True):
        moved = np.abs(old.numpy() - new.numpy()).max()
        if old.path in main and old.name in ("kernel", "bias"):
            assert 0 < moved < 0.1, old.path
        else:
            assert moved == 0, old.path
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())


def test_loss_falls(tuned, data):
    model, _, result = tuned
    assert mean_loss(result, *data) < mean_loss(model, *data)


def test_the_result_is_converted_as_int8_is(tuned, data):
    calibration = feeds(data[0][:16])
    content = modes.quantize(export.to_tflite(tuned[2]), "qat", calibration)
    assert len(slicer.slice_model(content)) == 3


def test_rounding_in_the_graph_is_that_of_int8(data):
    """Before any step, the wrapped model computes what int8 will, nearly."""
    model = small_epnet(beta=1e-5)
    tfmot, tf_keras = qat._import()
    scaling, main_branch = qat._split(model)
    inputs = scaling.predict(data[0], verbose=0)
    rebuilt = qat._rebuild(main_branch, tf_keras)
    wrapped = qat._quantize(rebuilt, qat._heads(main_branch), tfmot, tf_keras)
    qat._set_ranges(wrapped, rebuilt, inputs, tf_keras)
    wrapped(inputs, training=True)  # Takes the kernels' ranges and the input's.
    content = modes.quantize(export.to_tflite(model), "int8", feeds(data[0]))
    found = test_quantization_modes.answers(content, data[0])
    rows = [model.predict(inputs, verbose=0) for model in (wrapped, rebuilt)]
    for i, (rounded, exact) in enumerate(zip(*rows, strict=True), start=1):
        int8 = found[f"logits_{i:02d}"]
        assert np.abs(rounded - exact).max() > 1e-5
        assert np.abs(rounded - exact).max() < 0.1 * np.ptp(exact)
        assert np.abs(rounded - int8).max() < 0.1 * np.ptp(exact)


def test_statistics_are_rebuilt_and_what_follows_stays_float32(epnet, images, labels):
    scaling, main_branch = qat._split(epnet)
    heads = {f"{kind}_{i:02d}" for kind in ("statistics", "scaling") for i in (1, 2, 3)}
    assert qat._heads(main_branch) == heads | {f"logits_{i:02d}" for i in range(1, 5)}
    tfmot, tf_keras = qat._import()
    rebuilt = qat._rebuild(main_branch, tf_keras)
    qat._check_equal(main_branch, rebuilt, scaling.predict(images, verbose=0))
    wrapped = qat._quantize(rebuilt, qat._heads(main_branch), tfmot, tf_keras)
    names = {layer.name for layer in wrapped.layers}
    assert heads < names and {"quant_grid_01", "quant_max_01"} < names


def test_keras_stays_the_same_for_child_processes(tuned):
    assert "TF_USE_LEGACY_KERAS" not in os.environ


def test_pixels_are_scaled_outside_the_fine_tuned_graph():
    image = keras.Input((12, 12, 1))
    x = layers.Rescaling(1 / 255, name="first")(image)
    x = layers.Normalization(mean=0.5, variance=0.1, name="second")(x)
    x = layers.Conv2D(4, 3, name="conv")(x)
    model = epnet_tf.EPNet(
        keras.Model(image, x), 3, preprocessing=layers.Rescaling(1.0, name="own")
    )
    scaling, main_branch = qat._split(model)
    assert [layer.name for layer in scaling.layers[1:]] == ["own", "first", "second"]
    assert main_branch.layers[1].name == "conv"


@pytest.mark.parametrize("network", ["densenet", "mobilenet"])
def test_networks_are_rebuilt_with_equal_outputs(network):
    backbone, shape, exits = test_quantization_modes.CASES[network]
    model = epnet_tf.EPNet(backbone(shape), 4, exits=exits, beta=1e-6)
    _, main_branch = qat._split(model)
    rebuilt = qat._rebuild(main_branch, qat._import()[1])
    inputs = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    qat._check_equal(main_branch, rebuilt, inputs)
    layer = next(n for n in rebuilt.layers if n.weights)
    layer.set_weights([w + 0.1 for w in layer.get_weights()])
    with pytest.raises(ValueError, match="relative error of"):
        qat._check_equal(main_branch, rebuilt, inputs + 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("network", test_quantization_modes.CASES)
def test_networks_are_fine_tuned(network):
    backbone, shape, exits = test_quantization_modes.CASES[network]
    keras.utils.set_random_seed(0)
    model = epnet_tf.EPNet(
        backbone(shape),
        4,
        exits=exits,
        beta=1e-6,
        preprocessing=layers.Rescaling(1 / 127.5, -1.0),
    )
    images = np.random.default_rng(0).integers(0, 256, (32, *shape), np.uint8)
    labels = np.arange(32) % 4
    result = qat.fine_tune(model, images, labels, batch_size=8, verbose=0)
    kernel = next(w.path for w in model.weights if w.name == "kernel")
    old, new = (
        next(w.numpy() for w in m.weights if w.path == kernel) for m in (model, result)
    )
    assert 0 < np.abs(old - new).max() < 0.1


def with_layer(layer):
    image = keras.Input((12, 12, 1))
    x = layers.Conv2D(4, 3, padding="same")(image)
    return epnet_tf.EPNet(keras.Model(image, layers.Conv2D(4, 3)(layer(x))), 3)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Activation("elu", name="odd"),
        layers.PReLU(name="odd"),
        layers.UnitNormalization(name="odd"),
    ],
)
def test_layers_that_cannot_be_wrapped_are_named(layer, data):
    with pytest.raises(ValueError, match=r"use quantization int8.*layer 'odd', which"):
        qat.fine_tune(with_layer(layer), *data)


def test_layers_that_are_applied_twice_are_named(data):
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    image = keras.Input((12, 12, 4))
    model = epnet_tf.EPNet(keras.Model(image, shared(shared(image))), 3, exits=[])
    with pytest.raises(ValueError, match="'shared', which is applied more than once"):
        qat.fine_tune(model, np.zeros([2, 12, 12, 4], np.uint8), [0, 1])


@pytest.mark.parametrize(("images", "labels"), [(0, 0), (5, 4)])
def test_data_that_does_not_fit_is_refused(images, labels, data):
    with pytest.raises(ValueError, match=f"{images} images and {labels} labels"):
        qat.fine_tune(small_epnet(), data[0][:images], data[1][:labels])
