"""Quantization: what becomes int8, what stays float32, and that it still works."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType
from conftest import IMAGE_SHAPE
from keras import layers
from small_models import feeds

import epnet_tf
from epnet_tf.quantization import modes
from epnet_tf.runtime import litert
from epnet_tf.tflite import export, slicer


def operators(graph, code):
    """The operators of one kind, by index."""
    return [
        index
        for index, operator in enumerate(graph.operators)
        if graph.model.operatorCodes[operator.opcodeIndex].builtinCode == code
    ]


def output_types(graph, indices):
    return {graph.tensors[graph.operators[i].outputs[0]].type for i in indices}


@pytest.fixture(scope="module")
def int8_tflite(float_tflite, images):
    return modes.quantize(float_tflite, "int8", feeds(images))


def squeeze_and_excitation_epnet():
    """A network whose main branch has dense layers between feature maps."""
    image = x = keras.Input(IMAGE_SHAPE)
    for i in (1, 2):
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name=f"conv{i}")(x)
        squeezed = layers.GlobalAveragePooling2D()(x)
        squeezed = layers.Dense(4, activation="relu")(squeezed)
        squeezed = layers.Dense(8, activation="sigmoid")(squeezed)
        x = layers.Multiply(name=f"scaled{i}")([x, layers.Reshape((1, 1, 8))(squeezed)])
    keras.utils.set_random_seed(0)
    return epnet_tf.EPNet(keras.Model(image, x), 4, exits=["scaled1"], beta=1e-5)


def test_heads_are_all_that_follows_the_pooled_features(float_tflite):
    graph = float_tflite
    heads = modes.head_operators(graph)
    pools = set(operators(graph, BuiltinOperator.MEAN))
    assert len(pools) == 4 + 3  # And a grid at each exit but the last.
    after_pools = graph.dependents(
        t for pool in pools for t in graph.operators[pool].outputs
    )
    expected = {
        index
        for index, operator in enumerate(graph.operators)
        if index not in pools and operator.outputs[0] in after_pools
    }
    assert heads == expected


def test_none_changes_nothing(float_tflite):
    assert modes.quantize(float_tflite, "none", []) is float_tflite


def test_main_branch_is_int8_and_heads_are_float(int8_tflite):
    graph = int8_tflite
    main = operators(graph, BuiltinOperator.CONV_2D)
    pools = operators(graph, BuiltinOperator.MEAN)
    assert output_types(graph, main + pools) == {TensorType.INT8}
    heads = modes.head_operators(graph)
    assert output_types(graph, heads) <= {TensorType.FLOAT32, TensorType.BOOL}
    assert len(operators(graph, BuiltinOperator.FULLY_CONNECTED)) == 4 + 2 * 3
    assert set(operators(graph, BuiltinOperator.FULLY_CONNECTED)) < heads
    for tensor in [*graph.inputs.values(), *graph.outputs.values()]:
        assert graph.tensors[tensor].type == TensorType.FLOAT32


def test_int8_answers_are_near_the_float_ones(float_tflite, int8_tflite, images):
    models = [litert.LiteRTModel(g.content) for g in (float_tflite, int8_tflite)]
    answers = [[model.run(**feed) for feed in feeds(images)] for model in models]
    for name in models[0].outputs:
        reference, quantized = (
            np.concatenate([outputs[name][0] for outputs in rows]) for rows in answers
        )
        assert np.corrcoef(reference, quantized)[0, 1] > 0.98, name


def test_dense_layers_of_the_main_branch_are_int8_per_tensor(images):
    graph = export.to_tflite(squeeze_and_excitation_epnet())
    graph = modes.quantize(graph, "int8", feeds(images))
    heads = modes.head_operators(graph)
    dense = operators(graph, BuiltinOperator.FULLY_CONNECTED)
    assert len(dense) == 2 * 2 + 2 + 2
    assert output_types(graph, set(dense) - heads) == {TensorType.INT8}
    for index in set(dense) - heads:
        weights = graph.tensors[graph.operators[index].inputs[1]]
        assert len(weights.quantization.scale) == 1
    assert len(slicer.slice_model(graph)) == 2


def test_calibration_sample_is_drawn_from_the_seed():
    images = np.arange(1000)
    sample = modes.calibration_sample(images)
    assert len(set(sample)) == 200
    np.testing.assert_array_equal(sample, modes.calibration_sample(images))
    assert list(sample) != list(modes.calibration_sample(images, seed=1))
    assert sorted(modes.calibration_sample(images[:5])) == [0, 1, 2, 3, 4]


def test_unknown_mode_is_refused():
    names = "none, float16, dynamic, int8, int8-full, qat"
    with pytest.raises(ValueError, match=rf"among {names}\. Received: int4"):
        modes.check_mode("int4")


def test_fine_tuning_without_training_data_is_refused():
    assert modes.FINE_TUNED < set(modes.MODES)
    modes.check_mode("qat", has_training_data=True)
    modes.check_mode("int8", has_training_data=False)
    with pytest.raises(ValueError, match=r"images and labels.*qat.* Received: no tr"):
        modes.check_mode("qat", has_training_data=False)


@keras.saving.register_keras_serializable()
class Eigenvalues(layers.Layer):
    """Something that TensorFlow Lite cannot compute."""

    def call(self, inputs):
        return inputs + tf.reduce_sum(tf.linalg.eigvalsh(inputs))

    def compute_output_shape(self, input_shape):
        return input_shape


def test_operations_that_tflite_lacks_are_named():
    image = keras.Input(IMAGE_SHAPE)
    features = Eigenvalues()(layers.Conv2D(16, 1)(image))
    model = epnet_tf.EPNet(keras.Model(image, features), 4, beta=1e-5)
    with pytest.raises(ValueError, match="Received: SelfAdjointEigV2"):
        export.to_tflite(model)


def test_other_precision_is_refused():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = squeeze_and_excitation_epnet()
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(ValueError, match=r"float32.* Received: layers in \['bfloat16'"):
        export.to_tflite(model)
