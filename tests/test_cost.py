"""Multiply-adds against hand-computed values and TensorFlow's own profiler."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from small_models import branching_backbone

import epnet_tf
from epnet_tf.model import graph, model_macs

# Layer, input shape without batch, multiply-adds by hand.
LAYERS = [
    (lambda: layers.Conv2D(5, 3, padding="same"), (8, 6, 4), 8 * 6 * 9 * 4 * 5),
    (lambda: layers.Conv2D(5, 3), (8, 6, 4), 6 * 4 * 9 * 4 * 5),
    (
        lambda: layers.Conv2D(5, (3, 1), strides=2, padding="same"),
        (7, 6, 4),
        4 * 3 * 3 * 4 * 5,
    ),
    (
        lambda: layers.Conv2D(6, 3, groups=2, padding="same"),
        (8, 6, 4),
        8 * 6 * 9 * 2 * 6,
    ),
    (
        lambda: layers.Conv2D(5, 3, dilation_rate=2, padding="same"),
        (8, 6, 4),
        8 * 6 * 9 * 4 * 5,
    ),
    (lambda: layers.Conv2D(5, 3, dilation_rate=2), (8, 6, 4), 4 * 2 * 9 * 4 * 5),
    (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
        (8, 6, 4),
        8 * 6 * 9 * 4 * 2,
    ),
    (
        lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2, strides=2),
        (9, 7, 4),
        4 * 3 * (9 * 4 * 2 + 8 * 5),
    ),
    (
        lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
        (4, 3, 4),
        4 * 3 * 9 * 4 * 5,
    ),
    (lambda: layers.Conv1D(5, 3, padding="causal"), (8, 4), 8 * 3 * 4 * 5),
    (lambda: layers.Conv1DTranspose(5, 3, strides=2), (8, 4), 8 * 3 * 4 * 5),
    (lambda: layers.DepthwiseConv1D(3), (8, 4), 6 * 3 * 4),
    (lambda: layers.SeparableConv1D(5, 3), (8, 4), 6 * (3 * 4 + 4 * 5)),
    (
        lambda: layers.Conv3D(5, 2, padding="same"),
        (4, 3, 2, 4),
        4 * 3 * 2 * 8 * 4 * 5,
    ),
    (
        lambda: layers.Conv3DTranspose(5, 2, strides=2),
        (4, 3, 2, 4),
        4 * 3 * 2 * 8 * 4 * 5,
    ),
    (lambda: layers.Dense(5), (4,), 20),
    (lambda: layers.Dense(5), (8, 6, 4), 8 * 6 * 20),
    (lambda: layers.BatchNormalization(), (8, 6, 4), 0),
    (lambda: layers.PReLU(), (8, 6, 4), 0),
    (lambda: layers.MaxPooling2D(), (8, 6, 4), 0),
    (lambda: layers.Dropout(0.5), (8, 6, 4), 0),
]


@pytest.mark.parametrize("make, shape, macs", LAYERS)
def test_layers_by_hand(make, shape, macs):
    image = keras.Input(shape)
    layer = make()
    assert model_macs(keras.Model(image, layer(image)))[layer.name] == macs


def test_a_layer_used_twice_counts_twice():
    image = keras.Input((8, 8, 4))
    layer = layers.Conv2D(4, 3, padding="same", name="twice")
    macs = model_macs(keras.Model(image, layer(layer(image))))
    assert macs["twice"] == 2 * 64 * 9 * 16


def test_a_nested_model_is_the_sum_of_its_layers():
    block = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(4, 1), layers.Conv2D(2, 1)], name="block"
    )
    image = keras.Input((8, 8, 4))
    macs = model_macs(keras.Model(image, block(image)))
    assert macs["block"] == 64 * (16 + 8)


def unknown_model():
    image = keras.Input((8, 4))
    x = layers.LSTM(3, name="memory")(image)
    return keras.Model(image, layers.Dense(2, name="dense")(x))


def test_an_unknown_layer_with_weights_is_named():
    with pytest.raises(ValueError, match=r"layer 'memory' of type LSTM") as raised:
        model_macs(unknown_model())
    assert "layer_macs={'memory'" in str(raised.value)


def test_the_user_gives_the_figure_of_an_unknown_layer():
    macs = model_macs(unknown_model(), layer_macs={"memory": 1234})
    assert macs["memory"] == 1234 and macs["dense"] == 6


def test_unknown_image_sizes_are_an_error():
    image = keras.Input((None, None, 3))
    model = keras.Model(image, layers.Conv2D(4, 3, name="first")(image))
    with pytest.raises(ValueError, match=r"static image sizes.*'first'"):
        model_macs(model)


def profiled_macs(model):
    """MACs of convolutions and matrix products, as TensorFlow counts them."""
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    shape = [1, *model.input_shape[1:]]
    function = tf.function(lambda image: model(image, training=False))
    function = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    frozen = convert_variables_to_constants_v2(function).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    with frozen.as_default():
        profile = tf.compat.v1.profiler.profile(frozen, cmd="op", options=options)
    counted = {"Conv2D", "DepthwiseConv2dNative", "MatMul", "Conv2DBackpropInput"}
    flops = 0
    while profile.children:  # In the view by operation they are a chain.
        profile = profile.children[0]
        flops += profile.float_ops if profile.name in counted else 0
    return flops / 2


def plain_model():
    """No groups and no dilation: those the profiler does not count right."""
    image = keras.Input((16, 12, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.SeparableConv2D(12, 3, padding="same")(x)
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10)(layers.Dense(7)(x)))


@pytest.mark.parametrize(
    "make",
    [plain_model, epnet_tf.resnet12, epnet_tf.resnet10],
    ids=lambda f: f.__name__,
)
def test_tensorflows_profiler_agrees(make):
    model = make()
    assert profiled_macs(model) == sum(model_macs(model).values())


def test_resnet12_of_the_design():
    model = epnet_tf.EPNet(epnet_tf.resnet12(), 10)
    # Maps of 25, 13 and 7 rows: grids of 4×4 and 3×3 with maxima, averages alone.
    heads = np.cumsum([10 * c for c in [32 * 17] * 4 + [64 * 10] * 4 + [128] * 4])
    bare = (model.exit_costs.with_classifiers - heads) / 1e6
    expected = [0.18, 5.96, 11.72, 17.48, 20.60, 27.17, 33.40, 39.63, 43.25, 50.87]
    np.testing.assert_allclose(bare, [*expected, 58.10, 65.32], atol=0.01)
    assert model.exit_costs.full == pytest.approx(65.32e6 + 1280, abs=5e3)


def test_resnet10_of_the_design():
    model = epnet_tf.EPNet(epnet_tf.resnet10(), 10)
    assert model.num_exits == 10
    assert round(model.exit_costs.full / 1e6, 1) == 19.4


def test_costs_of_parallel_branches():
    names = ["stem", "separable_relu", "grouped_relu", "dilated"]
    model = epnet_tf.EPNet(branching_backbone(), 5, exits=names)
    assert model.exit_layers == (*names, "last")
    at, classifier = 16 * 16, 8 * 17 * 5
    stem, separable = at * 27 * 8, at * (9 * 8 + 8 * 8)
    grouped, dilated, last = at * 9 * 2 * 8, at * 9 * 64, 49 * 9 * 24 * 16
    costs = model.exit_costs
    alone = [stem, stem + separable, stem + grouped, stem + dilated]
    everything = stem + separable + grouped + dilated + last
    assert costs.alone.tolist() == [
        *(macs + classifier for macs in alone),
        everything + 16 * 5,
    ]
    on_the_way = np.cumsum([stem, separable, grouped, dilated, last])
    classifiers = np.cumsum([classifier] * 4 + [16 * 5])
    assert costs.with_classifiers.tolist() == (on_the_way + classifiers).tolist()
    controller = sum(model_macs(model.get_layer("controller_01")).values())
    assert controller == (5 + 5 + 8) * 64 + 64
    controllers = controller * np.array([1, 2, 3, 4, 4])
    assert (costs.with_controllers - costs.with_classifiers).tolist() == list(
        controllers
    )
    assert costs.full == costs.alone[-1]


def test_controllers_of_the_paper_cost_what_table_2_says():
    paper = epnet_tf.PaperController(f_in=(10, 10, 10), f_cat=(10, 10, 1))
    classifier = epnet_tf.PaperClassifier()
    model = epnet_tf.EPNet(epnet_tf.resnet10(), 10, None, paper, classifier)
    costs = model.exit_costs
    controllers = costs.with_controllers - costs.with_classifiers
    assert controllers[-1] / 9 == pytest.approx(1.07e3, abs=10)


def test_more_than_ninety_nine_exits_are_in_order():
    image = x = keras.Input((4, 4, 2))
    for i in range(110):
        x = layers.Conv2D(2, 1, name=f"conv_{i}")(x)
    backbone = keras.Model(image, x)
    names = [f"conv_{i}" for i in range(109)]
    model = epnet_tf.EPNet(
        backbone, 2, names, epnet_tf.PaperController(f_in=(), f_cat=(1,))
    )
    assert model.num_exits == 110
    assert (np.diff(model.exit_costs.with_controllers) > 0).all()
    steps = np.diff(model.exit_costs.alone)
    assert (steps == 16 * 4).all()


def test_ancestors_can_run_in_their_order():
    model = branching_backbone()
    done = set()
    for node in graph.ancestors(model.outputs):
        assert all(id(graph.producer(t)) in done for t in node.input_tensors)
        done.add(id(node))
