"""Branch classifiers: their statistics by hand, costs, saving, conversion."""

import keras
import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType
from conftest import residual_backbone
from keras import layers
from small_models import feeds

import epnet_tf
from epnet_tf.conversion import convert
from epnet_tf.model import compute_states
from epnet_tf.model.classifiers import GridAveragePooling2D
from epnet_tf.quantization import modes
from epnet_tf.runtime import litert
from epnet_tf.tflite import export, slicer, verify


def attached(shape, classifier=None, num_classes=3):
    """A model from one feature map to global averages, statistics and logits."""
    features = keras.Input(shape)
    classifier = classifier or epnet_tf.BranchClassifier()
    pooled, logits = classifier.build(features, 1, num_classes)
    model = keras.Model(features, [pooled, logits])
    if not isinstance(classifier, epnet_tf.BranchClassifier):
        return model
    statistics = model.get_layer("scaling_01").input
    return keras.Model(features, [pooled, statistics, logits])


# Statistics


def test_grid_averages_by_hand():
    x = np.arange(16.0, dtype="float32").reshape(1, 4, 4, 1)
    found = np.asarray(GridAveragePooling2D(2)(x))
    assert found[0, :, :, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("shape", "pool_size"), [((13, 13, 3), 4), ((25, 16, 2), (6, 4)), ((7, 9, 5), 7)]
)
def test_grid_averages_are_those_of_keras(shape, pool_size, count):
    """Of one image, as it is converted, and of a batch, as it is trained."""
    x = np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")
    expected = layers.AveragePooling2D(pool_size)(x)
    layer = GridAveragePooling2D(pool_size)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape((count, *shape)) == expected.shape
    again = GridAveragePooling2D.from_config(layer.get_config())
    np.testing.assert_array_equal(again(x), layer(x))


def test_statistics_are_grid_averages_and_maxima():
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype("float32")
    pooled, statistics, _ = attached((8, 8, 3))(x)
    np.testing.assert_allclose(pooled, x.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)
    cells = x.reshape(5, 2, 4, 2, 4, 3).mean(axis=(2, 4)).reshape(5, -1)
    expected = np.concatenate([cells, x.max(axis=(1, 2))], axis=1)
    np.testing.assert_allclose(statistics, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "cells"),
    [
        ((16, 16), 16),
        ((25, 25), 16),
        ((13, 13), 9),
        ((8, 8), 4),
        ((8, 4), 2),
    ],
)
def test_small_maps_have_fewer_statistics(shape, cells):
    pooled, statistics, _ = attached((*shape, 5)).output
    assert pooled.shape[-1] == 5
    assert statistics.shape[-1] == 5 * (cells + 1)


@pytest.mark.parametrize("shape", [(7, 7), (3, 3), (4, 7)])
def test_the_smallest_maps_have_their_global_averages_alone(shape):
    pooled, statistics, _ = attached((*shape, 5)).output
    assert statistics is pooled


def test_where_something_is_counts():
    """Two images with equal averages and maxima, that a plain pooling confuses."""
    x = np.zeros([2, 8, 8, 1], "float32")
    x[0, 0, 0] = x[1, 7, 7] = 1.0
    ours, papers = (
        attached((8, 8, 1), classifier)
        for classifier in (epnet_tf.BranchClassifier(), epnet_tf.PaperClassifier())
    )
    assert not np.allclose(*ours(x)[1])
    np.testing.assert_array_equal(*papers(x)[0])


def test_the_papers_statistics_are_averages():
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype("float32")
    model = attached((8, 8, 3), epnet_tf.PaperClassifier())
    statistics, logits = model(x)
    np.testing.assert_allclose(statistics, x.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)
    kernel, bias = model.get_layer("logits_01").get_weights()
    np.testing.assert_allclose(logits, statistics @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_many_classes_are_reached_through_a_few_sums():
    model = attached((8, 8, 3), epnet_tf.BranchClassifier(rank=7), num_classes=101)
    assert [tuple(w.shape) for w in model.trainable_weights] == [
        (3 * 5, 7),
        (7, 101),
        (101,),
    ]
    few = attached((8, 8, 3), epnet_tf.BranchClassifier(rank=7), num_classes=100)
    assert [tuple(w.shape) for w in few.trainable_weights] == [(15, 100), (100,)]


@pytest.mark.parametrize("arguments", [{"grid": 0}, {"rank": 0}])
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match=r"1 or more\. Received: .*=0"):
        epnet_tf.BranchClassifier(**arguments)


# In an EPNet


def test_the_last_exit_is_the_network_itself():
    model = epnet_tf.EPNet(residual_backbone(), 4, exits=["relu1a"])
    assert {layer.name for layer in model.layers} >= {"scaling_01", "max_01"}
    assert not {layer.name for layer in model.layers} & {"scaling_02", "max_02"}


def test_heads_for_many_classes_are_a_tenth_of_the_parameters_at_most():
    backbone = keras.applications.MobileNetV2(
        (96, 96, 3), include_top=False, weights=None
    )
    controller = epnet_tf.Controller(summary=16)
    model = epnet_tf.EPNet(backbone, 1000, exits=8, controller=controller)
    assert model.num_exits == 8
    main_branch = backbone.count_params() + 1281 * 1000
    heads = model.count_params() - main_branch
    assert 0 < heads < 0.1 * main_branch


def test_costs_count_every_statistic_that_the_dense_layer_reads():
    ours, papers = (
        epnet_tf.EPNet(residual_backbone(), 4, ["relu1a"], classifier=classifier)
        for classifier in (None, epnet_tf.PaperClassifier())
    )
    # 8×8 maps of 8 channels: 4 averages and a maximum each, for 4 classes.
    more = ours.exit_costs.with_classifiers - papers.exit_costs.with_classifiers
    assert more.tolist() == [4 * 8 * 4] * 2
    assert ours.exit_costs.full == papers.exit_costs.full
    assert (ours.exit_costs.alone - papers.exit_costs.alone).tolist() == [4 * 8 * 4, 0]


def test_controllers_see_global_averages(epnet, images, labels):
    states = compute_states(epnet, images, labels, verbose=0)
    maps = keras.Model(epnet.input, epnet.get_layer("grid_02").input)
    expected = maps.predict(images, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(states.pooled[1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "classifier", [epnet_tf.BranchClassifier(grid=3), epnet_tf.PaperClassifier()]
)
def test_classifiers_are_saved(classifier, tmp_path, images):
    model = epnet_tf.EPNet(
        residual_backbone(), 4, ["relu1a", "relu2a"], classifier=classifier
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_config()["classifier"] == model.get_config()["classifier"]
    for name, value in model(images).items():
        np.testing.assert_array_equal(loaded(images)[name], value)


def test_models_from_before_there_was_a_choice_have_the_papers_classifier():
    model = epnet_tf.EPNet(
        residual_backbone(), 4, classifier=epnet_tf.PaperClassifier()
    )
    config = model.get_config()
    del config["classifier"]
    old = epnet_tf.EPNet.from_config(config)
    assert [layer.name for layer in old.layers] == [
        layer.name for layer in model.layers
    ]
    assert old.get_config()["classifier"] == model.get_config()["classifier"]


# Converted


def test_main_branch_and_statistics_are_int8_and_what_follows_float32(epnet, images):
    graph = convert.to_tflite(epnet, images, "int8")
    heads = modes.head_operators(graph)
    codes = {
        index: graph.model.operatorCodes[operator.opcodeIndex].builtinCode
        for index, operator in enumerate(graph.operators)
    }
    for index, operator in enumerate(graph.operators):
        kind = graph.tensors[operator.outputs[0]].type
        if codes[index] in (BuiltinOperator.MEAN, BuiltinOperator.MAX_POOL_2D):
            assert index not in heads and kind == TensorType.INT8
        if codes[index] == BuiltinOperator.CONCATENATION:
            assert index in heads and kind == TensorType.FLOAT32
    # TFLite 2.16.1 delegates neither of these in int8.
    left_out = {BuiltinOperator.AVERAGE_POOL_2D, BuiltinOperator.REDUCE_MAX}
    assert not left_out & {code for i, code in codes.items() if i not in heads}


@pytest.mark.parametrize("mode", ["none", "float16", "dynamic", "int8", "int8-full"])
def test_segments_are_the_whole_model_in_every_mode(epnet, images, mode):
    whole = convert.to_tflite(epnet, images, mode)
    given = feeds(images[:8], modes.image_dtype(whole))
    verify.compare(whole, slicer.slice_model(whole), given)
    # In int8-full, heads are int8 too.
    tolerances = {"none": 1e-4, "float16": 0.01, "int8-full": 0.2}
    tolerance = tolerances.get(mode, 0.1)
    expected = epnet.predict(images[:8], verbose=0)
    model = litert.LiteRTModel(whole.content)
    found = [model.run(**feed) for feed in given]
    for name, values in expected.items():
        error = np.abs(np.concatenate([f[name] for f in found]) - values).max()
        assert error <= tolerance * np.ptp(values), name


def test_grid_averages_are_no_convolution_and_no_pooling(images):
    """A cropped map, whose positions fill no whole cells."""
    image = keras.Input((13, 13, 1), name="image")
    averages = layers.Flatten()(GridAveragePooling2D(4)(image))
    model = keras.Model(image, {"logits_01": layers.Dense(3)(averages)})
    x = np.random.default_rng(0).random((1, 13, 13, 1), "float32")
    content = export.to_tflite(model).content
    found = litert.LiteRTModel(content).run(image=x)["logits_01"]
    np.testing.assert_allclose(found, model(x)["logits_01"], rtol=1e-4, atol=1e-5)
