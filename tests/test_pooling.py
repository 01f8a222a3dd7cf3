"""Means in int8: their scales leave no sum near half-way."""

import math

import keras
import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator
from keras import layers

from epnet_tf.quantization import modes, pooling
from epnet_tf.runtime import litert
from epnet_tf.tflite import export, flatbuffer


@pytest.mark.parametrize(
    ("ratio", "fraction"),
    # p is the first integer with p * ratio >= 100, q the next odd number.
    [(27.04, 109 / 4), (100.0, 101.0), (101.0, 101.0), (0.5, 101 / 200)],
)
def test_the_next_odd_fraction(ratio, fraction):
    assert pooling._next_odd_fraction(ratio) == fraction


def pooled_tflite(images):
    """A convolution and its pooled features, quantized to int8."""
    keras.utils.set_random_seed(0)
    image = keras.Input(images.shape[1:], name="image")
    x = layers.Conv2D(4, 3, activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(x)
    outputs = {"logits_01": layers.Dense(3)(x), "logits_02": layers.Dense(3)(x)}
    model = export.to_tflite(keras.Model(image, outputs))
    return modes.quantize(model, "int8", [{"image": i[None]} for i in images])


def test_every_sum_is_rounded_exactly():
    images = np.random.default_rng(0).normal(size=(20, 11, 11, 2)).astype(np.float32)
    graph = pooled_tflite(images)
    codes = [graph.model.operatorCodes[o.opcodeIndex] for o in graph.operators]
    index = [c.builtinCode for c in codes].index(BuiltinOperator.MEAN)
    operator = graph.operators[index]
    source, mean = (graph.tensors[t[0]] for t in (operator.inputs, operator.outputs))
    values = math.prod(source.shape[1:3])
    ratio = values * mean.quantization.scale[0] / source.quantization.scale[0]
    assert pooling._next_odd_fraction(ratio * (1 - 1e-6)) == pytest.approx(ratio)

    sums = np.arange(256 * ratio).astype(int)[: 255 * values]
    distance = np.abs(sums / ratio % 1 - 0.5).min()
    assert distance > 0.004

    alone = flatbuffer.extract(
        graph, [index], {"map": operator.inputs[0]}, {"mean": operator.outputs[0]}
    )
    alone = litert.LiteRTModel(alone.content)
    zero, mean_zero = source.quantization.zeroPoint[0], mean.quantization.zeroPoint[0]
    for total in sums:
        # The values above the zero point share the sum as evenly as they can.
        spread = np.full(values, total // values)
        spread[: total % values] += 1
        feature_map = np.broadcast_to(spread[:, None], (values, 4)) + zero
        found = alone.run(map=feature_map.reshape(source.shape).astype(np.int8))
        expected = min(math.floor(total / ratio + 0.5) + mean_zero, 127)
        assert (found["mean"] == expected).all(), total
