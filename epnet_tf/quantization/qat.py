"""Quantization-aware fine-tuning: weights that bear being rounded to int8.

TensorFlow Model Optimization wraps layers of Keras 2 alone, so main branch and
classifiers are built again, layer by layer, in tf_keras with equal weights, fine-tuned
there with rounding in the graph, and their weights put into a new `EPNet`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from epnet_tf.model import graph
from epnet_tf.model.states import state_model
from epnet_tf.quantization.modes import calibration_sample

if TYPE_CHECKING:
    from epnet_tf.model import EPNet

# The layers that are built again: tf_keras has the same, and int8's rounding is known.
_LAYERS = {
    *("Conv2D", "DepthwiseConv2D", "Dense", "BatchNormalization"),
    *("Activation", "ReLU", "LeakyReLU", "Dropout", "Flatten", "Reshape"),
    *("Add", "Multiply", "Concatenate", "ZeroPadding2D"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D"),
}
_ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh", "silu", "swish", "gelu", "softmax")
# Layers before the main branch's first weights that change pixel values only.
_SCALINGS = (keras.layers.Normalization, keras.layers.Rescaling)
# How far outputs of the rebuilt model may be off, of their largest value.
_TOLERANCE = 1e-5


def fine_tune(
    model: EPNet,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int = 1,
    batch_size: int = 64,
    learning_rate: float = 1e-5,
    seed: int = 0,
    verbose: str | int = "auto",
) -> EPNet:
    """Fine-tunes main branch and classifiers with int8's rounding in the graph.

    By the sum of the exits' cross-entropies and Adam. Batch normalizations stay as they
    are and so does what scales the pixels; controllers take no part. Afterwards the
    model is to be converted with quantization `int8`, whose classifiers are float32.

    Args:
        model: The trained model, which is left as it is.
        images: Training images, [n, h, w, c], raw values 0 to 255.
        labels: int [n].
        epochs: Times that all images are seen.
        batch_size: Images in a step.
        learning_rate: Of Adam; small, as the weights are good already.
        seed: Of the images' order, and of dropout.
        verbose: As in `keras.Model.fit`.

    Returns:
        A new `EPNet` with the same controllers.

    Raises:
        ValueError: If there are no images, not as many labels, or a layer cannot be
            fine-tuned in this way.
        ModuleNotFoundError: If tensorflow-model-optimization is not installed.
    """
    images, labels = np.asarray(images), np.asarray(labels).reshape(-1)
    if not len(images) or len(images) != len(labels):
        raise ValueError(
            "Expected training images to fine-tune on, and a label for each. "
            f"Received: {len(images)} images and {len(labels)} labels."
        )
    tfmot, tf_keras = _import()
    scaling, main_branch = _split(model)
    sample = scaling.predict(calibration_sample(images, seed), verbose=0)
    rebuilt = _rebuild(main_branch, tf_keras)
    _check_equal(main_branch, rebuilt, sample[:32])

    tf_keras.utils.set_random_seed(seed)
    quantized = _quantize(rebuilt, _heads(main_branch), tfmot, tf_keras)
    _set_ranges(quantized, rebuilt, sample, tf_keras)
    quantized.compile(
        optimizer=tf_keras.optimizers.Adam(learning_rate),
        loss=[
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            for _ in rebuilt.outputs
        ],
    )
    batches = _batches(scaling, images, labels, len(rebuilt.outputs), batch_size, seed)
    quantized.fit(batches, epochs=epochs, verbose=verbose)
    return _with_weights(model, quantized)


def _import():
    """TensorFlow Model Optimization and tf_keras, after Keras."""
    legacy = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization as tfmot
        import tf_keras
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Quantization qat needs {error.name}: pip install 'epnet-tf[qat]'",
            name=error.name,
        ) from error
    # tfmot sets it, and child processes would find another Keras.
    if legacy is None:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
    return tfmot, tf_keras


def _split(model: EPNet) -> tuple[keras.Model, keras.Model]:
    """Parts what scales the pixels from main branch and classifiers.

    Returns:
        Images to scaled images, and scaled images to the list of logits.
    """
    states = state_model(model)
    logits = [states.output[f"logits_{i:02d}"] for i in range(1, model.num_exits + 1)]
    scaled = states.input
    nodes = graph.ancestors(logits)
    # What the model was given as preprocessing may be any layer.
    preprocessed = model.preprocessing is not None
    while True:
        readers = [n for n in nodes if any(t is scaled for t in n.input_tensors)]
        layer = graph.layer_of(readers[0])
        is_scaling = preprocessed or isinstance(layer, _SCALINGS)
        if len(readers) > 1 or not is_scaling:
            break
        scaled, preprocessed = readers[0].outputs[0], False
    return keras.Model(states.input, scaled), keras.Model(scaled, logits)


def _rebuild(model: keras.Model, tf_keras):
    """The same functional model in tf_keras."""
    inputs = tf_keras.Input(model.input.shape[1:])
    tensors = {id(model.input): inputs}
    layers: dict[str, Any] = {}
    for node in graph.ancestors(model.outputs):
        if not node.input_tensors:
            continue
        name = node.operation.name
        layer = graph.layer_of(node)
        if name in layers:
            raise _unsupported(layer, "is applied more than once")
        copy = layers[name] = _rebuild_layer(layer, name, tf_keras)
        arguments = [tensors[id(t)] for t in node.input_tensors]
        tensors[id(node.outputs[0])] = copy(
            arguments[0] if len(arguments) == 1 else arguments
        )
        copy.set_weights(layer.get_weights())
    return tf_keras.Model(inputs, [tensors[id(t)] for t in model.outputs])


def _rebuild_layer(layer: keras.layers.Layer, name: str, tf_keras):
    """The same layer in tf_keras, with weights of its own."""
    # Ours compute the same in other operations.
    kind = type(layer).__name__.removeprefix("Fused").removeprefix("Grid")
    if kind not in _LAYERS:
        raise _unsupported(layer, f"is a {kind}")
    config = {
        key: value
        for key, value in layer.get_config().items()
        if key not in ("dtype", "lora_rank", "lora_alpha", "quantization_config")
        and not key.endswith(("initializer", "regularizer", "constraint"))
    }
    activation = config.get("activation", "linear")
    if activation not in _ACTIVATIONS:
        raise _unsupported(layer, f"computes {activation}")
    if kind == "LeakyReLU":
        config["alpha"] = config.pop("negative_slope")
    return getattr(tf_keras.layers, kind)(**config | {"name": name})


def _unsupported(layer, problem: str) -> ValueError:
    return ValueError(
        "Expected layers that TensorFlow Model Optimization can wrap; use quantization "
        f"int8, which needs no fine-tuning. Received: layer '{layer.name}', which "
        f"{problem}."
    )


def _check_equal(model: keras.Model, rebuilt, inputs: np.ndarray) -> None:
    expected = _listed(model.predict(inputs, verbose=0))
    found = _listed(rebuilt.predict(inputs, verbose=0))
    for tensor, a, b in zip(model.outputs, expected, found, strict=True):
        error = np.abs(a - b).max() / max(1.0, np.abs(a).max())
        if not error <= _TOLERANCE:
            raise ValueError(
                "Expected the model built again in tf_keras to compute the same; use "
                f"quantization int8. Received: a relative error of {error:.1e} in "
                f"'{graph.producer(tensor).operation.name}'."
            )


def _listed(outputs) -> Sequence[np.ndarray]:
    return outputs if isinstance(outputs, list) else [outputs]


def _heads(model: keras.Model) -> set[str]:
    """The layers of the classifiers, by name: as `modes.head_operators` finds them."""
    *_, last_logits = map(graph.producer, model.outputs)
    to_last_logits = {id(n) for n in graph.ancestors(last_logits.input_tensors)}
    return {
        node.operation.name
        for node in graph.ancestors(model.outputs)
        if node.input_tensors
        and id(node) not in to_last_logits
        and all(len(tensor.shape) <= 2 for tensor in node.input_tensors)
    }


def _quantize(model, heads: set[str], tfmot, tf_keras):
    """Wraps all layers but the classifiers', which int8 leaves in float32."""
    kernels = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)
    output_only = _output_config(tfmot)

    def annotate(layer):
        config = None
        is_normalization = isinstance(layer, tf_keras.layers.BatchNormalization)
        if is_normalization:
            layer.trainable = False
        if layer.name in heads:
            return layer
        if is_normalization:
            source = layer.inbound_nodes[0].inbound_layers
            # tfmot joins it with a kernel before it, as conversion does.
            joined = isinstance(source, kernels) and len(source.outbound_nodes) == 1
        if isinstance(layer, tf_keras.layers.Multiply) or (
            is_normalization and not joined
        ):
            config = output_only
        return tfmot.quantization.keras.quantize_annotate_layer(layer, config)

    annotated = tf_keras.models.clone_model(model, clone_function=annotate)
    with tfmot.quantization.keras.quantize_scope({"OutputConfig": type(output_only)}):
        return tfmot.quantization.keras.quantize_apply(annotated)


def _output_config(tfmot):
    """For layers that tfmot has no rule for: rounds what they give, nothing else."""

    class OutputConfig(tfmot.quantization.keras.QuantizeConfig):
        def get_weights_and_quantizers(self, layer):
            return []

        def get_activations_and_quantizers(self, layer):
            return []

        def set_quantize_weights(self, layer, quantize_weights):
            pass

        def set_quantize_activations(self, layer, quantize_activations):
            pass

        def get_output_quantizers(self, layer):
            return [
                tfmot.quantization.keras.quantizers.MovingAverageQuantizer(
                    num_bits=8, per_axis=False, symmetric=False, narrow_range=False
                )
            ]

        def get_config(self):
            return {}

    return OutputConfig()


def _set_ranges(quantized, model, inputs: np.ndarray, tf_keras) -> None:
    """Starts from the ranges that activations have, of which int8 clips rare ends.

    tfmot starts from -6 to 6 and gets away from there in thousands of steps.
    """
    names = [layer.name for layer in model.layers[1:]]
    outputs = [model.get_layer(name).output for name in names]
    values = tf_keras.Model(model.input, outputs).predict(inputs, verbose=0)
    ranges = {
        name: {"min": v.min(), "max": v.max()}
        for name, v in zip(names, values, strict=True)
    }
    for wrapper in quantized.layers:
        name = getattr(wrapper, "layer", wrapper).name
        for weight in wrapper.weights:
            kind, _, end = _name(weight).rpartition("_")
            if kind in ("output", "post_activation"):
                weight.assign(ranges[name][end])


def _batches(scaling, images, labels, num_exits, batch_size, seed):
    """Shuffled batches of scaled images, with the labels for every exit."""
    import tensorflow as tf

    def prepare(images, labels):
        scaled = scaling(tf.cast(images, tf.float32), training=False)
        return scaled, (labels,) * num_exits

    return (
        tf.data.Dataset.from_tensor_slices((images, labels))
        .shuffle(len(images), seed)
        .batch(batch_size)
        .map(prepare)
        .prefetch(2)
    )


def _with_weights(model: EPNet, quantized) -> EPNet:
    """A new model with the fine-tuned kernels and biases, and all else as it was."""
    result = model.copy()
    for layer in quantized.layers:
        target = getattr(layer, "layer", layer).name
        trained = {_name(w): w.numpy() for w in layer.trainable_weights}
        for weight in result.get_layer(target).weights if trained else ():
            value = trained.get(weight.name, trained.get(f"depthwise_{weight.name}"))
            if value is not None:
                weight.assign(value)
    return result


def _name(weight) -> str:
    """`kernel` for `quant_conv/kernel:0`."""
    return weight.name.split(":")[0].split("/")[-1]
