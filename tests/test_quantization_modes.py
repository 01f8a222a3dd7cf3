"""Every quantization mode on every kind of network: types, sizes, answers, slicing."""

import functools
from typing import NamedTuple

import keras
import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType
from keras import layers
from small_models import feeds

import epnet_tf
from epnet_tf.quantization import modes, names
from epnet_tf.runtime import litert
from epnet_tf.tflite import export, flatbuffer, slicer

# `qat` is `int8` after fine-tuning; see test_qat.py.
MODES = [mode for mode in modes.MODES if mode != "qat"]
KERNELS = (BuiltinOperator.CONV_2D, BuiltinOperator.DEPTHWISE_CONV_2D)
DENSE = BuiltinOperator.FULLY_CONNECTED


def densenet(shape, blocks=2, units=2):
    """Normalization before convolutions, whose outputs are concatenated."""
    image = x = keras.Input(shape)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    for block in range(blocks):
        for unit in range(units):
            name = f"block{block}_{unit}"
            y = layers.BatchNormalization(name=f"{name}_bn")(x)
            y = layers.Activation("relu", name=f"{name}_relu")(y)
            y = layers.Conv2D(8, 3, padding="same", name=f"{name}_conv")(y)
            x = layers.Concatenate(name=f"{name}_join")([x, y])
        x = layers.AveragePooling2D(2, name=f"transition{block}")(x)
    return keras.Model(image, x, name="densenet")


def mobilenet(shape):
    return keras.applications.MobileNetV2(
        shape, alpha=0.35, include_top=False, weights=None
    )


class Case(NamedTuple):
    """A network, as float32 .tflite, and images for it."""

    graph: flatbuffer.Graph
    images: np.ndarray

    def quantized(self, mode):
        return _quantized(
            self.graph.content, mode, self.images.tobytes(), self.images.shape
        )


@functools.cache
def _quantized(content, mode, pixels, shape):
    images = np.frombuffer(pixels, np.uint8).reshape(shape)
    return modes.quantize(flatbuffer.read(content), mode, feeds(images))


def make_case(backbone, shape, exits) -> Case:
    keras.utils.set_random_seed(0)
    model = epnet_tf.EPNet(
        backbone(shape),
        num_classes=4,
        exits=exits,
        preprocessing=layers.Rescaling(1 / 127.5, -1.0),
        beta=1e-6,
    )
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), np.uint8)
    return Case(export.to_tflite(model), images)


CASES = {
    "resnet10": (epnet_tf.resnet10, (16, 16, 3), 3),
    "densenet": (densenet, (16, 16, 3), 3),
    "mobilenet": (mobilenet, (32, 32, 3), 3),
}
LARGE = {
    "resnet12": (epnet_tf.resnet12, (50, 50, 1), None),
    "mobilenet96": (
        lambda shape: keras.applications.MobileNetV2(
            shape, include_top=False, weights=None
        ),
        (96, 96, 3),
        None,
    ),
    "densenet121": (
        lambda shape: keras.applications.DenseNet121(
            input_shape=shape, include_top=False, weights=None
        ),
        (64, 64, 3),
        8,
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return make_case(*CASES[request.param])


def check_slices(graph, images):
    """Segments in a row compute, bit for bit, what the whole model does."""
    segments = slicer.slice_model(graph)
    whole = litert.LiteRTModel(graph.content)
    parts = [litert.LiteRTModel(segment.content) for segment in segments]
    for feed in feeds(images, modes.image_dtype(graph)):
        tensors = dict(feed)
        for part in parts:
            tensors |= part.run(**{name: tensors[name] for name in part.inputs})
        for name, value in whole.run(**feed).items():
            assert value.tobytes() == tensors[name].tobytes(), name


def answers(graph, images):
    """float32 [images, all outputs]."""
    model = litert.LiteRTModel(graph.content)
    rows = [model.run(**f) for f in feeds(images, modes.image_dtype(graph))]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def code(graph, index):
    return graph.model.operatorCodes[graph.operators[index].opcodeIndex].builtinCode


def types(graph, codes, operators=None):
    """Types of what some operators read, of their kernels, and of what they make."""
    found = set()
    for index, operator in enumerate(graph.operators):
        if code(graph, index) in codes and (operators is None or index in operators):
            tensors = (*operator.inputs[:2], operator.outputs[0])
            found.add(tuple(graph.tensors[t].type for t in tensors))
    return found


@pytest.mark.parametrize("mode", MODES)
def test_segments_are_cut_bitwise_exactly(case, mode):
    check_slices(case.quantized(mode), case.images[:4])


@pytest.mark.slow
@pytest.mark.parametrize("network", LARGE)
def test_large_networks_are_cut_bitwise_exactly(network):
    case = make_case(*LARGE[network])
    for mode in MODES:
        content = case.quantized(mode)
        check_slices(content, case.images[:2])
        outputs = answers(content, case.images[:2])
        assert all(np.isfinite(values).all() for values in outputs.values())


INT8, FLOAT16, FLOAT32 = TensorType.INT8, TensorType.FLOAT16, TensorType.FLOAT32


@pytest.mark.parametrize(
    ("mode", "main", "heads"),
    [
        ("none", (FLOAT32,) * 3, (FLOAT32,) * 3),
        # A DEQUANTIZE stands between a float16 kernel and its operator.
        ("float16", (FLOAT32,) * 3, (FLOAT32,) * 3),
        ("dynamic", (FLOAT32, INT8, FLOAT32), (FLOAT32,) * 3),
        ("int8", (INT8,) * 3, (FLOAT32,) * 3),
        ("int8-full", (INT8,) * 3, (INT8,) * 3),
    ],
)
def test_convolutions_and_dense_layers_have_the_modes_types(case, mode, main, heads):
    graph = case.quantized(mode)
    assert types(graph, KERNELS) == {main}
    assert types(graph, [DENSE], modes.head_operators(graph)) == {heads}
    inputs = {name: graph.tensors[t].type for name, t in graph.inputs.items()}
    uint8 = mode == "int8-full"
    assert inputs == {"image": TensorType.UINT8 if uint8 else FLOAT32}
    assert {graph.tensors[t].type for t in graph.outputs.values()} == {FLOAT32}


def test_kernels_in_float16(case):
    graph = case.quantized("float16")
    for index, operator in enumerate(graph.operators):
        if code(graph, index) in (*KERNELS, DENSE):
            cast = graph.operators[graph.producers[operator.inputs[1]]]
            assert graph.tensors[cast.inputs[0]].type == FLOAT16


@pytest.mark.parametrize("mode", MODES)
def test_dense_layers_are_quantized_per_tensor(case, mode):
    """TFLite 2.16.1 computes others one step off, or not at all."""
    graph = case.quantized(mode)
    for index, operator in enumerate(graph.operators):
        kernel = graph.tensors[operator.inputs[1]] if operator.inputs[1:] else None
        if code(graph, index) == DENSE and kernel.type == INT8:
            assert len(kernel.quantization.scale) == 1


def test_only_confidence_features_are_float_in_int8_full(case):
    graph = case.quantized("int8-full")
    of_confidence = modes._confidence_operators(graph)
    assert of_confidence < modes.head_operators(graph)
    casts = (BuiltinOperator.QUANTIZE, BuiltinOperator.DEQUANTIZE)
    for index in set(range(len(graph.operators))) - of_confidence:
        if code(graph, index) not in casts:
            made = graph.tensors[graph.operators[index].outputs[0]]
            assert made.type == INT8, made.name


@pytest.mark.parametrize(
    ("mode", "low", "high"),
    [("float16", 0.5, 0.6), ("dynamic", 0.25, 0.5), ("int8", 0.25, 0.5)],
)
def test_sizes(mode, low, high):
    case = _resnet10()
    share = len(case.quantized(mode).content) / len(case.graph.content)
    assert low < share < high


@functools.cache
def _resnet10():
    return make_case(*CASES["resnet10"])


# Largest error of a logit, as a share of the logits' spread.
@pytest.mark.parametrize(
    ("mode", "error"),
    [("float16", 1e-2), ("dynamic", 0.1), ("int8", 0.2), ("int8-full", 0.3)],
)
def test_logits_are_near_the_float_ones(mode, error):
    case = _resnet10()
    expected = answers(case.graph, case.images)
    found = answers(case.quantized(mode), case.images)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        if name.startswith("logits"):
            spread = np.ptp(values)
            assert np.abs(values - found[name]).max() < error * spread, name


def test_raw_pixels_are_the_uint8_image():
    case = _resnet10()
    graph = case.quantized("int8-full")
    assert modes.image_dtype(graph) == "uint8"
    image = graph.tensors[graph.inputs["image"]].quantization
    assert (image.scale, image.zeroPoint) == ([1.0], [0])


def test_images_that_are_no_whole_numbers_stay_float(float_tflite, images):
    content = modes.quantize(float_tflite, "int8-full", feeds(images / 255))
    assert modes.image_dtype(content) == "float32"
    check_slices(content, images[:4] / 255)


@pytest.mark.parametrize("mode", MODES)
def test_beta_stays_float(epnet_with_beta, images, mode):
    beta = {"beta": np.full([1, 1], 1e-5, np.float32)}
    graph = modes.quantize(
        _beta_tflite(epnet_with_beta), mode, [f | beta for f in feeds(images)]
    )
    assert graph.tensors[graph.inputs["beta"]].type == FLOAT32
    assert len(slicer.slice_model(graph)) == epnet_with_beta.num_exits
    model = litert.LiteRTModel(graph.content)
    feed = feeds(images[:1], modes.image_dtype(graph))[0]
    low, high = (
        model.run(**feed, beta=np.full([1, 1], value, np.float32))["stop_01"]
        for value in epnet_with_beta.beta_range
    )
    assert low != high


@functools.cache
def _beta_tflite(model):
    return export.to_tflite(model)


def test_names_of_the_modes_are_known_without_the_quantizer():
    assert tuple(modes.MODES) == names.MODES
