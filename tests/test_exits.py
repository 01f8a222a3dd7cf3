"""Where exits go: in the paper's networks, Keras's, and hand-written ones."""

import keras
import numpy as np
import pytest
from keras import layers
from keras.src.applications.densenet import DenseNet
from small_models import branching_backbone, small_backbone

import epnet_tf
from epnet_tf.model import graph

CHEAP = epnet_tf.PaperController(f_in=(), f_cat=(1,))


def epnet(backbone, num_classes=3, exits=None, **kwargs):
    return epnet_tf.EPNet(
        backbone,
        num_classes,
        exits,
        controller=CHEAP,
        classifier=epnet_tf.PaperClassifier(),
        **kwargs,
    )


def functional(build, shape=(12, 12, 3)):
    image = keras.Input(shape)
    return keras.Model(image, build(image))


def conv(width=4, **kwargs):
    return layers.Conv2D(width, 3, padding="same", **kwargs)


def error_of(*args, **kwargs):
    with pytest.raises(ValueError) as raised:
        epnet(*args, **kwargs)
    message = str(raised.value)
    assert "\n" not in message and "Received: " in message
    return message


# After every convolution


def test_resnet12_has_an_exit_after_every_activation():
    model = epnet_tf.EPNet(epnet_tf.resnet12(), 10)
    assert model.exit_layers == tuple(
        f"block{b}_relu{r}" for b in range(1, 7) for r in (1, 2)
    )


def test_first_exit_costs_what_its_convolution_and_head_cost():
    model = epnet_tf.EPNet(epnet_tf.resnet12(), 10)
    statistics = 32 * (16 + 1)
    assert model.exit_costs.alone[0] == 25 * 25 * 9 * 32 + 10 * statistics


def test_mobilenet_v2():
    backbone = keras.applications.MobileNetV2(
        (64, 64, 3), weights=None, include_top=False
    )
    model = epnet_tf.EPNet(backbone, 5)
    types = [backbone.get_layer(name) for name in model.exit_layers]
    relus = [layer for layer in types if isinstance(layer, layers.ReLU)]
    assert model.num_exits > 10 and len(relus) > 5
    # A projection has no activation: the exit is after its sum or its normalization.
    others = {type(layer) for layer in types} - {layers.ReLU}
    assert others <= {layers.Add, layers.BatchNormalization}
    assert (np.diff(model.exit_costs.with_controllers) > 0).all()


def small_densenet(**kwargs):
    return DenseNet(
        blocks=[2, 2, 2, 2], weights=None, input_shape=(64, 64, 3), **kwargs
    )


def test_densenet():
    backbone = small_densenet(include_top=False)
    model = epnet(backbone)
    kinds = {type(backbone.get_layer(name)) for name in model.exit_layers[:-1]}
    assert layers.Activation in kinds
    assert model.num_exits > 8
    assert (np.diff(model.exit_costs.with_controllers) > 0).all()


def test_parallel_branches():
    model = epnet(branching_backbone())
    assert set(model.exit_layers) == {
        "stem",  # its activation is its own
        "separable_relu",
        "grouped_relu",
        "join",  # the dilated convolution has no activation: what it feeds
        "last",
    }
    assert model.exit_layers[0] == "stem" and model.exit_layers[-1] == "last"


def test_activation_of_every_kind():
    def build(x):
        x = layers.Activation("tanh", name="a")(conv()(x))
        x = layers.LeakyReLU(name="b")(layers.BatchNormalization()(conv()(x)))
        x = keras.activations.relu(conv()(x))
        x = layers.PReLU(name="d")(layers.GroupNormalization(2)(conv()(x)))
        x = layers.Dropout(0.1, name="e")(conv()(x))
        x = layers.MaxPooling2D()(x)
        x = conv(activation="selu", name="f")(x)
        return conv(activation="relu", name="last")(x)

    exits = epnet(functional(build)).exit_layers
    assert [exits[i] for i in (0, 1, 3, 4, 5, 6)] == ["a", "b", "d", "e", "f", "last"]
    assert exits[2].startswith("re")  # Keras numbers it


def test_residual_without_activation_ends_at_the_sum():
    def build(image):
        x = conv(activation="relu", name="first")(image)
        y = layers.BatchNormalization(name="bn")(conv(name="second")(x))
        x = layers.Add(name="sum")([x, y])
        return layers.Concatenate(name="both")([conv(activation="relu")(x), x])

    assert epnet(functional(build)).exit_layers[:2] == ("first", "sum")


def test_transposed_and_depthwise_convolutions():
    def build(x):
        x = layers.Conv2DTranspose(4, 3, strides=2, activation="relu", name="up")(x)
        x = layers.DepthwiseConv2D(3, activation="relu", name="depth")(x)
        return conv(activation="relu", name="last")(x)

    assert epnet(functional(build)).exit_layers == ("up", "depth", "last")


def test_an_exit_that_costs_more_than_the_way_on_is_left_out(caplog):
    def build(x):
        x = conv(4, activation="relu", name="cheap")(x)
        x = layers.Conv2D(64, 1, strides=12, activation="relu", name="dear")(x)
        return layers.Conv2D(4, 1, activation="relu", name="last")(x)

    caplog.set_level("INFO", logger="absl")
    model = epnet_tf.EPNet(functional(build), 3)
    assert "dear" not in model.exit_layers
    assert "No exit after 'dear'" in caplog.text
    named = epnet_tf.EPNet(functional(build), 3, exits=["dear"])
    assert named.exit_layers == ("dear", "last")


# A number of exits, and names


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_number_of_exits_is_spread_over_the_macs(count):
    model = epnet_tf.EPNet(epnet_tf.resnet12(), 10, exits=count)
    assert model.num_exits == count
    share = model.exit_costs.alone / model.exit_costs.full
    np.testing.assert_allclose(share, np.arange(1, count + 1) / count, atol=0.08)


def test_more_exits_than_convolutions():
    assert epnet(small_backbone(), exits=99).num_exits == 6


def test_a_number_from_numpy():
    assert epnet(small_backbone(), exits=np.int64(3)).num_exits == 3


@pytest.mark.parametrize("count", [1, 0, -2])
def test_too_few_exits(count):
    message = error_of(small_backbone(), exits=count)
    assert "at least 2 exits" in message and f"exits={count}" in message


def test_a_number_of_exits_where_none_is_worth_it():
    backbone = functional(
        lambda x: layers.Conv2D(4, 1, activation="relu")(x), (2, 2, 1)
    )
    assert "no exit" in error_of(backbone, exits=2).lower()


def test_names_in_any_order():
    model = epnet(small_backbone(), exits=["block2_relu2", "block1_relu1"])
    assert model.exit_layers == ("block1_relu1", "block2_relu2", "block3_relu2")


def test_the_last_layer_may_be_named():
    model = epnet(small_backbone(), exits=["block1_relu1", "block3_relu2"])
    assert model.exit_layers == ("block1_relu1", "block3_relu2")


def test_no_exits():
    model = epnet(small_backbone(), exits=[])
    assert model.exit_layers == ("block3_relu2",)
    assert sorted(model.output) == ["logits_01"]


def test_a_missing_exit_layer():
    message = error_of(small_backbone(), exits=["block1_relu1", "block9_relu1"])
    assert "'block9_relu1'" in message and "block3_relu2" in message


def test_an_exit_after_the_pooling():
    backbone = functional(
        lambda x: layers.Dense(3)(
            layers.GlobalAveragePooling2D(name="gap")(conv(activation="relu")(x))
        )
    )
    assert "'gap'" in error_of(backbone, exits=["gap"])


def test_an_exit_named_twice():
    assert "once" in error_of(small_backbone(), exits=["block1_relu1"] * 2)


def test_an_exit_that_does_not_lead_to_the_output():
    image = keras.Input((12, 12, 3))
    x = conv(name="kept")(image)
    conv(name="astray")(x)
    backbone = keras.Model(image, conv(name="last")(x))
    assert "'astray'" in error_of(backbone, exits=["astray"])


# Nested models and layers used several times


def nested_backbone():
    inner = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            conv(name="inner_conv"),
            layers.BatchNormalization(name="inner_bn"),
            layers.ReLU(name="inner_relu"),
        ],
        name="inner",
    )
    image = keras.Input((12, 12, 3))
    x = inner(image)
    return keras.Model(image, conv(8, activation="relu", name="last")(x))


def test_exits_within_a_nested_model():
    backbone = nested_backbone()
    model = epnet(backbone)
    assert model.exit_layers == ("inner_relu", "last")
    assert epnet(backbone, exits=["inner_relu"]).exit_layers == model.exit_layers
    inner = backbone.get_layer("inner")
    assert model.get_layer("inner_conv") is inner.get_layer("inner_conv")
    assert model.exit_costs.alone[0] == 144 * 27 * 4 + 4 * 3


def test_a_nested_model_within_a_nested_model():
    image = keras.Input((12, 12, 3))
    backbone = keras.Model(image, conv(name="outer")(nested_backbone()(image)))
    assert epnet(backbone).exit_layers == ("inner_relu", "last", "outer")


def test_a_nested_model_with_two_inputs():
    a, b = keras.Input((12, 12, 4)), keras.Input((12, 12, 4))
    fusion = keras.Model([a, b], layers.ReLU(name="fused")(layers.Add()([a, b])))
    image = keras.Input((12, 12, 3))
    x = fusion([conv(name="left")(image), conv(name="right")(image)])
    model = epnet(keras.Model(image, conv(name="last")(x)))
    assert model.exit_layers == ("fused", "last")


def test_a_frozen_nested_model_stays_frozen():
    backbone = nested_backbone()
    backbone.get_layer("inner").trainable = False
    model = epnet(backbone)
    before = model.get_layer("inner_bn").moving_mean.numpy()
    model(np.random.default_rng(0).random((4, 12, 12, 3)), training=True)
    assert np.array_equal(before, model.get_layer("inner_bn").moving_mean.numpy())


def test_a_sequential_backbone():
    backbone = keras.Sequential(
        [keras.Input((12, 12, 3)), conv(), layers.ReLU(name="a"), conv(name="last")]
    )
    model = epnet(backbone)
    assert model.exit_layers == ("a", "last")
    features = backbone(np.ones((1, 12, 12, 3)))
    expected = model.get_layer("logits_02")(np.mean(features, axis=(1, 2)))
    logits = model(np.ones((1, 12, 12, 3)))["logits_02"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def reusing_backbone():
    relu = layers.ReLU(name="relu")

    def build(x):
        x = relu(conv(name="a")(x))
        x = relu(conv(name="b")(x))
        return relu(conv(name="c")(x))

    return functional(build)


def test_a_layer_used_several_times():
    model = epnet(reusing_backbone())
    assert model.exit_layers[:2] == ("relu", "relu:2")
    assert epnet(reusing_backbone(), exits=["relu:2"]).num_exits == 2
    assert (np.diff(model.exit_costs.alone) > 0).all()
    image = np.random.default_rng(0).random((2, 12, 12, 3)).astype("float32")
    x = image
    for i, name in enumerate("abc", start=1):
        x = np.maximum(model.get_layer(name)(x), 0)
        expected = model.get_layer(f"logits_{i:02d}")(x.mean(axis=(1, 2)))
        logits = model(image)[f"logits_{i:02d}"]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_reused_layer_survives_the_configuration():
    model = epnet(reusing_backbone())
    again = epnet_tf.EPNet.from_config(model.get_config())
    assert again.exit_layers == model.exit_layers


def test_ancestors_start_at_the_input():
    model = small_backbone()
    assert graph.ancestors(model.outputs)[0].operation.name == "image"


# Classifier or headless


def classifying(*ends, pooling=True):
    def build(x):
        x = conv(activation="relu", name="first")(x)
        x = conv(8, activation="relu", name="second")(x)
        x = (layers.GlobalAveragePooling2D if pooling else layers.Flatten)()(x)
        for end in ends:
            x = end(x)
        return x

    return functional(build)


ENDS = {
    "linear": lambda: [layers.Dense(3, name="end")],
    "softmax": lambda: [layers.Dense(3, activation="softmax", name="end")],
    "activation": lambda: [layers.Dense(3, name="end"), layers.Activation("softmax")],
    "layer": lambda: [layers.Dense(3, name="end"), layers.Softmax()],
    "operation": lambda: [layers.Dense(3, name="end"), keras.ops.softmax],
    "dropout": lambda: [layers.Dropout(0.5), layers.Dense(3, name="end")],
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("pooling", [True, False])
def test_the_classifier_becomes_the_last_exit(end, pooling):
    backbone = classifying(*ENDS[end](), pooling=pooling)
    model = epnet(backbone, exits=["first"])
    image = np.random.default_rng(0).random((5, 12, 12, 3)).astype("float32")
    logits = np.asarray(model(image)["logits_02"])
    if end not in ("linear", "dropout"):
        logits = np.asarray(keras.ops.softmax(logits))
    np.testing.assert_allclose(logits, backbone(image), rtol=1e-4, atol=1e-6)


def test_headless_with_pooling():
    model = epnet(classifying())
    image = np.ones((2, 12, 12, 3), "float32")
    assert model(image)["logits_02"].shape == (2, 3)
    assert model.exit_layers[0] == "first"


def test_keras_applications_with_their_classifier():
    backbone = small_densenet(classes=3)
    model = epnet(backbone, exits=3)
    image = np.random.default_rng(0).random((2, 64, 64, 3)).astype("float32")
    logits = model(image)[f"logits_{model.num_exits:02d}"]
    np.testing.assert_allclose(keras.ops.softmax(logits), backbone(image), rtol=1e-4)


def test_wrong_number_of_units():
    message = error_of(classifying(layers.Dense(4, name="end")))
    assert "Dense of 3 units" in message and "'end' with 4 units" in message


def test_sigmoid_head():
    message = error_of(classifying(layers.Dense(3, activation="sigmoid")))
    assert "activation sigmoid" in message
    message = error_of(classifying(layers.Dense(3), layers.Activation("sigmoid")))
    assert "activation sigmoid" in message
    message = error_of(classifying(layers.Dense(3), layers.ReLU()))
    assert "activation ReLU" in message


def test_softmax_over_something_else():
    message = error_of(classifying(layers.Reshape([8]), layers.Softmax()))
    assert "(Reshape) and a softmax" in message


def test_two_outputs():
    image = keras.Input((12, 12, 3))
    x = conv()(image)
    assert "2 outputs" in error_of(keras.Model(image, [x, conv()(x)]))


def test_two_inputs():
    a, b = keras.Input((12, 12, 3)), keras.Input((12, 12, 3))
    assert "one input" in error_of(keras.Model([a, b], conv()(layers.add([a, b]))))


def test_not_a_functional_model():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    assert "Subclassed" in error_of(Subclassed())
    assert "Sequential" in error_of(keras.Sequential([conv()]))


def test_one_class():
    assert "num_classes=1" in error_of(small_backbone(), num_classes=1)


def test_images_of_any_size():
    backbone = functional(lambda x: conv()(conv(name="a")(x)), (None, None, 3))
    assert "static image sizes" in error_of(backbone)


@pytest.mark.slow
def test_densenet121():
    backbone = keras.applications.DenseNet121(
        input_shape=(64, 64, 3), weights=None, classes=10
    )
    model = epnet(backbone, 10)
    assert model.num_exits > 100
    assert (np.diff(model.exit_costs.with_controllers) > 0).all()
    image = np.random.default_rng(0).random((2, 64, 64, 3)).astype("float32")
    logits = model(image)[f"logits_{model.num_exits:02d}"]
    np.testing.assert_allclose(keras.ops.softmax(logits), backbone(image), rtol=1e-3)
    assert epnet_tf.EPNet(backbone, 10, exits=10).num_exits == 10
