"""Layers of one name, and of the names that an EPNet's own layers have."""

import keras
import numpy as np
import pytest
from keras import layers

import epnet_tf
from epnet_tf.conversion import convert
from epnet_tf.model import graph

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3)).astype("float32")
SMALL = epnet_tf.Controller(units=4)


def conv(name, width=4, **kwargs):
    kwargs = {"activation": "relu", "strides": 2, "padding": "same"} | kwargs
    return layers.Conv2D(width, 3, name=name, **kwargs)


def tower(name):
    image = keras.Input((12, 12, 3))
    return keras.Model(image, conv("conv2")(conv("conv1")(image)), name=name)


def two_towers():
    image = keras.Input((12, 12, 3))
    towers = [tower("left")(image), tower("right")(image)]
    return keras.Model(image, layers.Add(name="sum")(towers))


def logits(model):
    return model.predict(IMAGES, verbose=0)[f"logits_{model.num_exits:02d}"]


def saved(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def test_towers_of_the_same_names(tmp_path):
    backbone = two_towers()
    model = epnet_tf.EPNet(backbone, 3, ["conv1", "conv1_2"], controller=SMALL)
    assert model.exit_layers == ("conv1", "conv1_2", "sum")
    right = backbone.get_layer("right").get_layer("conv1")
    assert right.name == "conv1"  # The user's model is as it was.
    assert model.get_layer("conv1_2").layer is right
    features = backbone.predict(IMAGES, verbose=0).mean(axis=(1, 2))
    kernel, bias = model.get_layer("logits_03").get_weights()
    np.testing.assert_allclose(logits(model), features @ kernel + bias, rtol=1e-4)
    first, second = 36 * 27 * 4, 9 * 36 * 4
    assert model.exit_costs.alone.tolist() == [
        *(first + 12, first + 12),
        2 * (first + second) + 12,
    ]
    for copy in (saved(model, tmp_path), model.copy(), model.with_new_controllers()):
        assert copy.exit_layers == model.exit_layers
        assert copy.exit_costs.alone.tolist() == model.exit_costs.alone.tolist()
        np.testing.assert_array_equal(logits(copy), logits(model))


def test_exits_in_every_tower_by_default():
    model = epnet_tf.EPNet(
        two_towers(), 3, controller=epnet_tf.PaperController((), (1,))
    )
    assert model.exit_layers == ("conv1", "conv2", "conv1_2", "sum")


@pytest.mark.parametrize("beta_range", [None, (1e-6, 1e-4)])
def test_a_backbone_with_the_names_of_an_epnet(beta_range, tmp_path):
    names = [
        *("image", "pool_01", "logits_01", "controller_01", "stop_01", "beta"),
        *("logits_02", "pooled", "states", "backbone", "epnet", "confidence"),
    ]
    body = [conv(name, strides=1 + (i < 2)) for i, name in enumerate(names)]
    backbone = keras.Sequential([keras.Input((12, 12, 3)), *body])
    model = epnet_tf.EPNet(
        backbone, 3, exits=["pool_01_2"], controller=SMALL, beta_range=beta_range
    )
    assert model.exit_layers == ("pool_01_2", "confidence")
    assert model.get_layer("image_2").layer is body[0]
    assert model.get_layer("stop_01") is body[4]
    assert model.get_layer("logits_01").units == 3
    assert graph.is_graph(model.get_layer("controller_01"))
    beta = beta_range and 1e-5
    answer = model.classify(IMAGES, beta=beta)
    for copy in (saved(model, tmp_path), model.copy()):
        assert copy.exit_layers == model.exit_layers
        again = copy.classify(IMAGES, beta=beta)
        np.testing.assert_array_equal(again.probabilities, answer.probabilities)


def test_conversion_of_renamed_layers(tmp_path):
    image = keras.Input((12, 12, 3))
    x = layers.Rescaling(1 / 255, name="image")(image)
    x = keras.Model(image, two_towers()(x))(image)
    backbone = keras.Model(image, conv("logits_01")(x))
    model = epnet_tf.EPNet(backbone, 3, ["conv1_2"], controller=SMALL, beta=1e-5)
    convert.convert(model, IMAGES, tmp_path / "bundle", quantization="none")
    prediction = epnet_tf.SegmentRunner(tmp_path / "bundle").predict(IMAGES)
    expected = model.classify(IMAGES)
    np.testing.assert_array_equal(prediction.exit, expected.exit)
    np.testing.assert_allclose(
        prediction.probabilities, expected.probabilities, atol=1e-5
    )


def test_preprocessing_of_a_name_that_is_taken():
    scaling = layers.Rescaling(1 / 255, name="logits_01")
    backbone = keras.Sequential(
        [keras.Input((12, 12, 3)), layers.Rescaling(2.0, name="logits_01"), conv("a")]
    )
    model = epnet_tf.EPNet(backbone, 3, exits=[], preprocessing=scaling)
    assert model.preprocessing is scaling
    assert [model.get_layer(f"logits_01_{i}").layer.name for i in (2, 3)] == [
        "logits_01"
    ] * 2
    features = backbone(IMAGES / 255).numpy().mean(axis=(1, 2))
    kernel, bias = model.get_layer("logits_01").get_weights()
    np.testing.assert_allclose(logits(model), features @ kernel + bias, rtol=1e-4)


def test_a_new_name_is_no_other_layers():
    layers_ = [conv("a"), conv("a_2"), conv("b")]
    inner = keras.Sequential([keras.Input((6, 6, 4)), conv("a", strides=1)])
    backbone = keras.Sequential(
        [keras.Input((12, 12, 3)), layers_[0], inner, *layers_[1:]]
    )
    model = epnet_tf.EPNet(backbone, 3, ["a", "a_3", "a_2"], controller=SMALL)
    assert model.exit_layers == ("a", "a_3", "a_2", "b")


def test_costs_by_the_layers_own_name():
    odd = [layers.EinsumDense("abcd,de->abce", (12, 12, 3), name="odd") for _ in "ab"]
    image = keras.Input((12, 12, 3))
    inner = keras.Sequential([image, odd[1]])
    backbone = keras.Sequential([image, odd[0], inner, conv("end")])
    both = epnet_tf.EPNet(backbone, 3, [], layer_macs={"odd": 7})
    assert both.exit_costs.full == 2 * 7 + 36 * 27 * 4 + 12
    each = epnet_tf.EPNet(backbone, 3, [], layer_macs={"odd": 7, "odd_2": 9})
    assert each.exit_costs.full == 7 + 9 + 36 * 27 * 4 + 12


# A layer under another name


def test_a_renamed_layer_of_several_inputs_and_arguments():
    image = keras.Input((6, 4))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    inner = keras.Model(image, attention(image, image))
    other = layers.MultiHeadAttention(2, 3, name="attention")
    x = other(inner(image), image, training=False)
    model = keras.Model(image, layers.Add(name="sum")([x, image]))
    (output,) = graph.inline(model, image, taken={"sum"})
    flat = keras.Model(image, output)
    names = [layer.name for layer in flat.layers]
    assert names == [names[0], "attention", "attention_2", "sum_2"]
    assert isinstance(flat.get_layer("sum_2"), graph.Renamed)
    sample = np.random.default_rng(0).random((2, 6, 4))
    again = keras.Model.from_config(flat.get_config())
    again.set_weights(flat.get_weights())
    for found in (flat, again):
        np.testing.assert_allclose(found(sample), model(sample), rtol=1e-6)


def test_a_renamed_layer_trains_as_it_did():
    keras.utils.set_random_seed(0)
    norm = layers.BatchNormalization(name="norm", momentum=0.5)
    renamed = graph.Renamed(norm, "other")
    sample = np.random.default_rng(0).random((4, 3)).astype("float32")
    np.testing.assert_allclose(
        np.asarray(renamed(sample, training=True)).mean(axis=0), np.zeros(3), atol=1e-6
    )
    image = keras.Input((3,))
    model = keras.Model(image, renamed(image))
    model(sample, training=True)
    mean = sample.mean(axis=0)
    np.testing.assert_allclose(norm.moving_mean, 0.75 * mean, rtol=1e-5)
    norm.trainable = False
    assert not model.trainable_weights


def test_a_renamed_layer_keeps_the_precision_of_its_input():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        renamed = graph.Renamed(layers.Dense(2, dtype="float32", name="a"), "b")
        assert renamed(np.ones((1, 2), "float32")).dtype == "float32"
        assert renamed.compute_dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")
