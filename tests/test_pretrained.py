"""Networks of keras.applications as main branches: raw pixels in, weights by name."""

import sys

import keras
import numpy as np
import pytest
from keras import layers
from small_models import small_backbone

import epnet_tf
from epnet_tf.conversion import convert
from epnet_tf.model import graph, pretrained
from epnet_tf.tflite import outputs

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")


def modules():
    """The modules of keras.applications, each with one of its networks."""
    found = {getattr(keras.applications, n).__module__: n for n in pretrained.names()}
    return sorted(found.values())


def test_names():
    names = pretrained.names()
    assert {"MobileNetV3Small", "ResNet50", "VGG16", "ConvNeXtTiny"} < set(names)
    assert len(names) >= 38


@pytest.mark.parametrize("name", modules())
def test_preprocessing_is_what_keras_does(name):
    network = getattr(keras.applications, name)
    x = IMAGES
    for layer in pretrained.preprocessing(network):
        x = layer(x)
    expected = sys.modules[network.__module__].preprocess_input(IMAGES.copy())
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-4)


def test_a_network_by_name():
    model = pretrained.pretrained("MobileNetV2", (32, 32, 3), "none")
    (inner,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    np.testing.assert_allclose(
        model.predict(IMAGES, verbose=0),
        inner.predict(IMAGES / 127.5 - 1.0, verbose=0),
        rtol=1e-4,
        atol=1e-5,
    )
    epnet = epnet_tf.EPNet(model, 5, exits=4)
    assert epnet.num_exits == 4


def test_layers_have_the_same_names_whenever_it_is_built():
    layers.ReLU()
    made = [pretrained.pretrained("MobileNetV3Small", (32, 32, 3), "none")]
    between = layers.ReLU().name
    made += [pretrained.pretrained("MobileNetV3Small", (32, 32, 3), "none")]
    first, second = (
        [layer.name for layer in graph.operations(model)] for model in made
    )
    assert first == second and "re_lu" in first and "re_lu_1" in first
    # What is added to it later has other names.
    assert between not in first and layers.ReLU().name not in first


def test_weights_from_a_file(tmp_path):
    shape, file = (32, 32, 3), tmp_path / "mobilenet.weights.h5"
    saved = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=shape
    )
    saved.save_weights(file)
    model = pretrained.pretrained("MobileNet", shape, file)
    for a, b in zip(model.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name, shape, weights, named",
    [
        ("MobileNetV9", (32, 32, 3), "none", "MobileNetV9"),
        ("MobileNet", (32, 32, 3), "missing.h5", "missing.h5"),
        ("MobileNet", (16, 16, 3), "none", r"\[16, 16, 3\]"),
        ("MobileNet", (32, 32, 3), __file__, "test_pretrained"),
        ("MobileNet", (32, 32, 1), "imagenet", r"\[32, 32, 1\]"),
    ],
)
def test_what_cannot_be_built(name, shape, weights, named):
    with pytest.raises(ValueError, match=rf"^Expected .*Received: .*{named}") as raised:
        pretrained.pretrained(name, shape, weights)
    assert "\n" not in str(raised.value)


def test_imagenet_weights_of_efficientnet_are_taken_where_keras_scales(tmp_path):
    file = tmp_path / "efficientnetb0_notop.h5"
    file.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"save the file as .*efficientnetb0_notop\.h5"
    ):
        pretrained.pretrained("EfficientNetB0", (32, 32, 3), file)


def test_a_download_that_fails_says_where_the_file_goes(tmp_path, monkeypatch):
    from urllib.error import URLError

    from keras.src.utils import file_utils

    def offline(*_):
        raise URLError("no network")

    monkeypatch.setattr(file_utils, "urlretrieve", offline)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="could not be downloaded") as raised:
        pretrained.pretrained("NASNetMobile", (32, 32, 3))
    message = str(raised.value)
    assert str(tmp_path / "models" / "nasnet_mobile_no_top.h5") in message
    assert "NASNet-mobile-no-top.h5 elsewhere" in message and "\n" not in message


@pytest.mark.slow
def test_reversed_channels_convert():
    image = keras.Input((12, 12, 3))
    x = pretrained.ReversedChannels()(image)
    x = layers.Rescaling(1.0, [-103.9, -116.8, -123.7])(x)
    x = layers.Conv2D(4, 3, activation="relu", name="first")(x)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    model = epnet_tf.EPNet(keras.Model(image, x), 3, exits=["first"])
    images = IMAGES[:, :12, :12]
    whole = convert.to_tflite(model, images, "int8")
    said = outputs.of_tflite(whole, images)
    expected = model.predict(images, verbose=0)["logits_02"]
    np.testing.assert_allclose(
        said.logits[:, -1], expected, atol=0.05 * np.ptp(expected)
    )


def test_preprocess_input_is_wrapped_and_saved(tmp_path):
    for function in (
        keras.applications.mobilenet_v2.preprocess_input,
        keras.applications.vgg16.preprocess_input,
        keras.applications.efficientnet.preprocess_input,
    ):
        backbone = keras.Sequential(
            [keras.Input((32, 32, 3)), layers.Conv2D(4, 3, name="only")]
        )
        model = epnet_tf.EPNet(backbone, 3, exits=[], preprocessing=function)
        direct = epnet_tf.EPNet(backbone, 3, exits=[])
        direct.get_layer("logits_01").set_weights(
            model.get_layer("logits_01").get_weights()
        )
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(
            loaded.predict(IMAGES, verbose=0)["logits_01"],
            direct.predict(function(IMAGES.copy()), verbose=0)["logits_01"],
            rtol=1e-4,
            atol=1e-3,
        )


@keras.saving.register_keras_serializable("tests")
def halved(images):
    return images / 2.0


@pytest.mark.parametrize(
    "given",
    [
        lambda images: images / 255,
        halved,
        layers.Lambda(lambda images: images / 255),
        keras.Sequential([layers.Lambda(lambda images: images / 255)]),
        keras.activations.relu,
        "imagenet",
    ],
)
def test_functions_that_could_not_be_loaded_are_refused(given):
    with pytest.raises(ValueError, match=r"^Expected as preprocessing .*Received: "):
        epnet_tf.EPNet(small_backbone(), 3, exits=[], preprocessing=given)


def test_a_lambda_of_a_registered_function_is_kept(tmp_path):
    model = epnet_tf.EPNet(
        small_backbone(), 3, exits=[], preprocessing=layers.Lambda(halved)
    )
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").num_exits == 1
