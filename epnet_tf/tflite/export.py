"""From a Keras model to one .tflite model in float32."""

import re

import keras
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from epnet_tf.tflite import flatbuffer
from epnet_tf.tflite.flatbuffer import Graph


def to_tflite(model: keras.Model) -> Graph:
    """Converts a Keras model to .tflite in float32, with static shapes and batch 1.

    Args:
        model: A functional model with one input or a flat dict of inputs, and a flat
            dict of outputs.

    Returns:
        The .tflite model; its signature has the inputs' and outputs' names.

    Raises:
        ValueError: If a layer computes in another precision, or something that
            TensorFlow Lite cannot.
    """
    other = {n.compute_dtype for n in model.layers} - {"float32"}
    if other:
        raise ValueError(
            "Expected a model that computes in float32: build it again without a dtype "
            f"policy, and copy the weights. Received: layers in {sorted(other)}."
        )
    one_input = None if isinstance(model.input, dict) else model.input
    inputs = model.input if one_input is None else {one_input.name: one_input}

    def call(**tensors):
        named = tensors if one_input is None else tensors[one_input.name]
        return model(named, training=False)

    one_image = {
        name: tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name)
        for name, tensor in inputs.items()
    }
    function = tf.function(call).get_concrete_function(**one_image)
    # The converter freezes only variables that it is shown; of others it makes NaN.
    variables = tf.Module()
    variables.shown = [weight.value for weight in model.weights]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], variables)
    try:
        return flatbuffer.read(converter.convert())
    except ConverterError as error:
        missing = re.search("(?:Custom|Flex) ops: (.*)", str(error))
        raise ValueError(
            "Expected a model of operations that TensorFlow Lite has. Received: "
            + (missing[1] if missing else str(error).splitlines()[0])
        ) from error
