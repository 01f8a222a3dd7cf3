"""What users' backbones end in, and what of them is refused."""

import keras
import numpy as np
import pytest
from keras import layers

import epnet_tf
from epnet_tf.model.cost import model_macs

CHEAP = epnet_tf.PaperController(f_in=(), f_cat=(1,))
IMAGES = np.random.default_rng(0).random((5, 12, 12, 3)).astype("float32")


def epnet(backbone, num_classes=3, exits=("first",), **kwargs):
    return epnet_tf.EPNet(backbone, num_classes, exits, controller=CHEAP, **kwargs)


def conv(width=4, **kwargs):
    return layers.Conv2D(width, 3, padding="same", **kwargs)


def ending(*ends):
    """Two convolutions, then some layers, with weights that are not their first."""
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3))
    x = conv(activation="relu", name="first")(image)
    x = conv(8, activation="relu", name="second")(x)
    for end in ends:
        x = end(x)
    model = keras.Model(image, x)
    for layer in model.layers:
        layer.set_weights([w + 0.1 for w in layer.get_weights()])
    return model


def error_of(backbone, *args, **kwargs):
    with pytest.raises(ValueError) as raised:
        epnet(backbone, *args, **kwargs)
    message = str(raised.value)
    assert "\n" not in message and "Received: " in message
    return message


def last(model, images=IMAGES):
    return model.predict(images, verbose=0)[f"logits_{model.num_exits:02d}"]


def softmax(logits):
    return np.asarray(keras.ops.softmax(logits))


# Classifiers


def test_a_classifier_without_bias():
    backbone = ending(
        layers.GlobalAveragePooling2D(), layers.Dense(3, use_bias=False, name="end")
    )
    model = epnet(backbone)
    np.testing.assert_allclose(last(model), backbone.predict(IMAGES), rtol=1e-4)
    assert not model.get_layer("logits_02").bias.numpy().any()


POOLED = layers.GlobalAveragePooling2D
MAP = {"keepdims": True}
ONE_UNIT = {
    "sigmoid": lambda: [POOLED(), layers.Dense(1, activation="sigmoid")],
    "layer": lambda: [POOLED(), layers.Dense(1), layers.Activation("sigmoid")],
    "operation": lambda: [POOLED(), layers.Dense(1), keras.ops.sigmoid],
    "no bias": lambda: [
        POOLED(),
        layers.Dense(1, use_bias=False, activation="sigmoid"),
    ],
    "convolution": lambda: [
        *(POOLED(**MAP), layers.Conv2D(1, 1, activation="sigmoid"), layers.Flatten())
    ],
}


@pytest.mark.parametrize("end", ONE_UNIT)
def test_one_sigmoid_unit_for_two_classes(end):
    backbone = ending(*ONE_UNIT[end]())
    logits = last(epnet(backbone, 2))
    second = backbone.predict(IMAGES, verbose=0)[:, 0]
    assert not logits[:, 0].any()
    np.testing.assert_allclose(softmax(logits)[:, 1], second, rtol=1e-5)


def test_one_linear_unit_is_the_logit_of_the_second_class():
    backbone = ending(POOLED(), layers.Dense(1))
    logit = backbone.predict(IMAGES, verbose=0)[:, 0]
    expected = np.stack([np.zeros_like(logit), logit], axis=1)
    np.testing.assert_allclose(last(epnet(backbone, 2)), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "units, activation, num_classes",
    [(1, "sigmoid", 3), (2, "sigmoid", 2), (1, "relu", 2), (1, "softmax", 2)],
)
def test_heads_of_one_unit_that_are_no_two_classes(units, activation, num_classes):
    backbone = ending(POOLED(), layers.Dense(units, activation=activation, name="end"))
    message = error_of(backbone, num_classes)
    assert f"'end' with {units} units and activation {activation}" in message
    assert ("sigmoid one of 1 unit" in message) == (num_classes == 2)


POINTWISE = {
    "flatten": lambda: [layers.Conv2D(3, 1), layers.Flatten()],
    "reshape": lambda: [layers.Conv2D(3, (1, 1)), layers.Reshape((3,))],
    "softmax after": lambda: [
        *(layers.Conv2D(3, 1), layers.Flatten(), layers.Activation("softmax"))
    ],
    "softmax before": lambda: [
        *(layers.Conv2D(3, 1), layers.Softmax(), layers.Flatten())
    ],
    "softmax of its own": lambda: [
        *(layers.Conv2D(3, 1, activation="softmax"), layers.Flatten())
    ],
    "no bias": lambda: [layers.Conv2D(3, 1, use_bias=False), layers.Flatten()],
    "dropout": lambda: [layers.Dropout(0.5), layers.Conv2D(3, 1), layers.Flatten()],
    "dense": lambda: [layers.Dense(3), layers.Flatten()],
}


@pytest.mark.parametrize("end", POINTWISE)
def test_a_pointwise_convolution_is_a_classifier(end):
    backbone = ending(POOLED(**MAP), *POINTWISE[end]())
    model = epnet(backbone)
    logits, expected = last(model), backbone.predict(IMAGES, verbose=0)
    found = softmax(logits) if end.startswith("softmax") else logits
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # Where it was pooled first, the exit's own pooling takes the place.
    features = "dropout" if end == "dropout" else "second"
    assert model.exit_layers[-1].startswith(features)
    assert model.exit_costs.full == 144 * (27 * 4 + 36 * 8) + 8 * 3


@pytest.mark.parametrize(
    "ends",
    [
        lambda: [POOLED(**MAP), layers.Conv2D(5, 1), layers.Flatten()],
        lambda: [POOLED(**MAP), layers.Conv2D(3, 1, activation="relu")],
        lambda: [
            *(POOLED(**MAP), layers.Conv2D(3, 1, activation="relu"), layers.Flatten())
        ],
        lambda: [layers.Conv2D(1, 3, 5), layers.Flatten()],
    ],
)
def test_convolutions_that_are_features(ends):
    backbone = ending(*ends())
    model = epnet(backbone)
    features = backbone.predict(IMAGES, verbose=0).reshape(5, -1)
    kernel, bias = model.get_layer("logits_02").get_weights()
    np.testing.assert_allclose(last(model), features @ kernel + bias, rtol=1e-4)


@pytest.mark.parametrize(
    "ends",
    [
        lambda: [POOLED(**MAP), layers.Conv2D(5, 1), layers.Flatten()],
        lambda: [POOLED(**MAP), layers.Conv2D(4, 1, groups=4), layers.Flatten()],
        lambda: [layers.Conv2D(4, 1), layers.Flatten()],
        lambda: [POOLED(), layers.Dense(4), layers.ReLU()],
    ],
)
def test_a_softmax_over_something_else(ends):
    error_of(ending(*ends(), layers.Softmax()), 4)


@pytest.mark.parametrize(
    "build, size, exits",
    [
        (keras.applications.MobileNet, 32, 5),
        (keras.applications.MobileNetV3Small, 32, 5),
        pytest.param(
            *(keras.applications.MobileNetV3Large, 32, 5), marks=pytest.mark.slow
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_mobilenets_with_their_tops(build, size, exits):
    keras.utils.set_random_seed(0)
    backbone = build((size, size, 3), weights=None, classes=7)
    model = epnet(backbone, 7, exits)
    assert model.num_exits >= exits - 1
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3))
    np.testing.assert_allclose(
        softmax(last(model, images)), backbone.predict(images, verbose=0), rtol=1e-3
    )
    assert model.exit_costs.full == sum(model_macs(backbone).values())


# Layers that are counted, and that are not


@keras.saving.register_keras_serializable("test")
class Gain(layers.Layer):
    """A weight per channel, as ConvNeXt's LayerScale."""

    def build(self, shape):
        self.gain = self.add_weight((shape[-1],), name="gain")
        self.total = self.add_weight((), name="total")

    def call(self, images):
        return images * self.gain * self.total


class Mixer(Gain):
    """A matrix of channels."""

    def build(self, shape):
        self.matrix = self.add_weight((shape[-1], shape[-1]), name="matrix")

    def call(self, images):
        return images @ self.matrix


class Shrinking(Gain):
    """A vector of weights, but what it gives has another shape."""

    def call(self, images):
        return keras.ops.sum(images * self.gain, axis=-1, keepdims=True)


def test_a_weight_per_channel_is_free():
    assert epnet(ending(Gain())).exit_costs.full == 144 * (27 * 4 + 36 * 8) + 8 * 3


def test_all_layers_that_cannot_be_counted_are_told_at_once():
    inner = keras.Sequential([keras.Input((12, 12, 8)), Mixer(name="inner")])
    backbone = ending(Mixer(name="a"), Gain(), inner, Shrinking(name="b"))
    message = error_of(backbone)
    assert "layer_macs={'a': MACS, 'inner': MACS, 'b': MACS}" in message
    assert (
        "Received: layers 'a' of type Mixer with 64 weights, 'inner' of type Mixer "
        "with 64 weights, 'b' of type Shrinking with 9 weights."
    ) in message
    with pytest.raises(ValueError, match="'a': MACS, 'inner': MACS, 'b': MACS"):
        model_macs(backbone)
    given = {"a": 1, "inner": 20, "b": 300}
    assert epnet(backbone, layer_macs=given).exit_costs.full == (
        144 * (27 * 4 + 36 * 8) + 321 + 3
    )


def test_convnext():
    backbone = keras.applications.ConvNeXtTiny(
        input_shape=(32, 32, 3), weights=None, include_top=False
    )
    model = epnet(backbone, 4, exits=4)
    assert 3 <= model.num_exits <= 4
    assert (np.diff(model.exit_costs.with_controllers) > 0).all()


# Refused


def test_channels_first():
    image = keras.Input((3, 12, 12))
    x = conv(data_format="channels_first", name="first")(image)
    message = error_of(keras.Model(image, x))
    assert "channels_last" in message and "'first'" in message
    # In the middle too, and in a nested model.
    inner = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Permute((3, 1, 2)),
            conv(data_format="channels_first", name="odd"),
            layers.Permute((2, 3, 1)),
        ]
    )
    backbone = keras.Sequential([keras.Input((12, 12, 3)), inner, conv(name="first")])
    assert "'odd'" in error_of(backbone)


def test_channels_first_as_the_processes_default():
    backbone = ending()
    keras.config.set_image_data_format("channels_first")
    try:
        model = epnet(backbone)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert model.get_layer("logits_02").kernel.shape == (8, 3)
    expected = backbone.predict(IMAGES, verbose=0).mean(axis=(1, 2))
    kernel, bias = model.get_layer("logits_02").get_weights()
    np.testing.assert_allclose(last(model), expected @ kernel + bias, rtol=1e-4)


class Plain(keras.Model):
    """Computes what its graph tells."""

    def __init__(self, **kwargs):
        image = keras.Input((12, 12, 3))
        super().__init__(image, conv(3, name="first")(image), **kwargs)


class Doubled(Plain):
    """Computes something else than its graph."""

    def call(self, images, training=None):
        return 2.0 * super().call(images, training=training)


def test_a_functional_subclass_that_overrides_call():
    message = error_of(Doubled())
    assert "Received: Doubled, which overrides call()" in message
    assert epnet(Plain()).num_exits == 1
    # The same layers without it, as the message says.
    doubled = Doubled()
    assert epnet(keras.Model(doubled.inputs, doubled.outputs)).num_exits == 1


def test_a_nested_subclass_that_overrides_call():
    """Is a layer like any other that cannot be counted, and is not laid open."""
    image = keras.Input((12, 12, 3))
    inner = Doubled(name="inner")
    backbone = keras.Model(image, conv(name="end")(inner(image)))
    assert "'inner' of type Doubled" in error_of(backbone, exits=["inner"])
    model = epnet(backbone, exits=["inner"], layer_macs={"inner": 9})
    # The classifier reads averages over 3×3 cells and the maximum of 3 channels.
    assert model.exit_costs.alone[0] == 9 + (9 + 1) * 3 * 3
    features = backbone.predict(IMAGES, verbose=0).mean(axis=(1, 2))
    kernel, bias = model.get_layer("logits_02").get_weights()
    np.testing.assert_allclose(last(model), features @ kernel + bias, rtol=1e-4)
