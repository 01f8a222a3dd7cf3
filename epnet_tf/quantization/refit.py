"""Refit: heads fitted again to what the quantized main branch computes.

Quantization moves confidences more than labels: rounding shifts the features that an
exit pools, for all images alike, and the policy, trained on float states, leaves
elsewhere. So the exit states of the training images are computed again with the model
that is shipped. Classifiers are corrected to give the logits that they gave before,
and controllers go on training on these states, from where they were: trained from the
start they would be as good, but leave through other exits. The main branch, and the
last exit's classifier, which is the network itself, stay as they are, byte for byte.
"""

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from epnet_tf.data.streams import Images
from epnet_tf.model import EPNet
from epnet_tf.model.graph import producer
from epnet_tf.model.states import ExitStates
from epnet_tf.model.states import compute_states as compute_float_states
from epnet_tf.quantization import modes
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.prediction import numbered
from epnet_tf.tflite import flatbuffer, outputs
from epnet_tf.tflite.flatbuffer import Graph
from epnet_tf.training.controllers import ControllerTrainer

# Images on which classifiers are corrected: some 500 features need no more.
_CORRECTION_IMAGES = 10_000
# Pull towards no correction, as a share of the features' mean variance.
_RIDGE = 1e-3
# A thirtieth of what controllers start to train with: they have arrived already.
_LEARNING_RATE = 1e-4
_EPOCHS = 2
_BATCH_SIZE = 512
# What scaling becomes where it is not folded into the dense layer.
_SCALING = (schema.BuiltinOperator.MUL, schema.BuiltinOperator.ADD)


def refit(
    model: EPNet, whole: Graph, images: Images, labels: np.ndarray, seed: int = 0
) -> EPNet:
    """Fits classifiers and controllers to a quantized model's features.

    Args:
        model: The model, which is left as it is.
        whole: It as .tflite, quantized.
        images: Training images, [n, h, w, c], raw values 0 to 255.
        labels: int [n].
        seed: Of the images that classifiers are corrected on, and of the order in
            which controllers see the states, dropout and the β drawn.

    Returns:
        A new `EPNet`, to be converted and quantized in the same way.
    """
    # Before the copy is built, whose dropout draws its own seeds.
    keras.utils.set_random_seed(seed)
    labels = np.asarray(labels).reshape(-1)
    states, statistics = _states_and_statistics(whole, images, labels)
    some = np.random.default_rng(seed).permutation(len(images))[:_CORRECTION_IMAGES]
    wanted = compute_float_states(model, images[some], labels[some], verbose=0)
    fitted = model.copy()
    logits = states.logits.copy()
    for i, read in enumerate(statistics):
        logits[:, i] = _correct_classifier(
            fitted, i + 1, read, some, wanted.logits[:, i]
        )
    # Features that no controller reads are not in the graph.
    pooled = tuple(
        m if m.shape[1] else np.zeros([len(m), f.shape[1]], np.float32)
        for m, f in zip(states.pooled, wanted.pooled, strict=True)
    )
    states = ExitStates(pooled, logits, states.labels)
    if fitted.confidence is None:  # Thresholds stay: logits are as they were.
        _train_controllers(fitted, states, seed)
    return fitted


def compute_states(whole: Graph, images, labels) -> ExitStates:
    """Exit states of a whole .tflite model: what its controllers see of images.

    Args:
        whole: The model, of any quantization, with the outputs of an `EPNet`.
        images: [n, h, w, c], raw values 0 to 255.
        labels: int [n].

    Returns:
        The `ExitStates`; quantized features are given by the values they stand for. Of
        a controller that reads no features there are none, [n, 0].
    """
    return _states_and_statistics(whole, images, labels)[0]


def _states_and_statistics(
    whole: Graph, images, labels
) -> tuple[ExitStates, list[np.ndarray]]:
    """Exit states, and what each classifier but the last one scales and reads."""
    names = numbered(whole.outputs, "logits")
    logits = [whole.outputs[name] for name in names]
    statistics = [_statistics(whole, tensor) for tensor in logits[:-1]]
    pooled = [_pooled(whole, name) for name in names[:-1]]
    made = {f"tensor {t}": t for t in (*logits, *statistics, *pooled) if t is not None}
    inputs = {"image": whole.inputs["image"]}
    part = flatbuffer.extract(whole, whole.ancestors(made.values()), inputs, made)
    found = outputs.run(LiteRTModel(part.content), images)

    def values(tensor: int | None) -> np.ndarray:
        if tensor is None:
            return np.zeros([len(images), 0], np.float32)
        return _real_values(whole, tensor, found[f"tensor {tensor}"])

    states = ExitStates(
        tuple(map(values, pooled)),
        np.stack([values(tensor) for tensor in logits], axis=1),
        np.asarray(labels).reshape(-1),
    )
    return states, [values(tensor) for tensor in statistics]


def check_same_main_branch(before: Graph, after: Graph) -> None:
    """Checks that two .tflite models have the same main branch, byte for byte.

    Raises:
        ValueError: If constants or quantization of an operator before the pooled
            features differ.
    """
    if main_branch(before) != main_branch(after):
        raise ValueError(
            "The refit changed the main branch, which it must not: converting and "
            "quantizing this model again does not give the same constants."
        )


def main_branch(graph: Graph) -> list[bytes]:
    """Constants and quantization of the main branch.

    Args:
        graph: A model with the outputs of an `EPNet`.

    Returns:
        Those of all tensors up to the pooled features, as their operators run.
    """
    names = numbered(graph.outputs, "logits")
    pooled = [_pooled(graph, name) for name in names[:-1]]
    statistics = [_statistics(graph, graph.outputs[name]) for name in names]
    read = [t for t in (*statistics, *pooled) if t is not None]
    content = []
    for index in sorted(graph.ancestors(read)):
        operator = graph.operators[index]
        for number in [t for t in (*operator.inputs, *operator.outputs) if t >= 0]:
            tensor = graph.tensors[number]
            data = graph.model.buffers[tensor.buffer].data
            content.append(b"" if data is None else bytes(data))
            if tensor.quantization is not None:
                found = tensor.quantization.scale, tensor.quantization.zeroPoint
                content += [b"" if v is None else np.array(v).tobytes() for v in found]
    return content


def _correct_classifier(
    model: EPNet,
    exit_number: int,
    statistics: np.ndarray,
    some: np.ndarray,
    wanted: np.ndarray,
) -> np.ndarray:
    """Lets an exit's classifier give wanted logits.

    Args:
        model: Its classifier is changed.
        exit_number: The exit, from 1.
        statistics: What the quantized main branch gives, [n, s].
        some: Indices of images to do so on.
        wanted: The logits for them, [., classes].

    Returns:
        The logits [n, classes] of the corrected classifier.
    """
    read = _read(model, exit_number, statistics)
    classifier = model.get_layer(f"logits_{exit_number:02d}")
    kernel, bias = (w.numpy() for w in classifier.weights)
    kernel, bias = corrected(kernel, bias, read[some], wanted)
    classifier.set_weights([kernel, bias])
    return read @ kernel + bias


def _read(model: EPNet, exit_number: int, statistics: np.ndarray) -> np.ndarray:
    """What an exit's dense layer reads: its statistics, scaled if they are."""
    dense = producer(model.output[f"logits_{exit_number:02d}"])
    before = producer(dense.input_tensors[0]).operation
    if not isinstance(before, keras.layers.BatchNormalization):
        return statistics
    return np.asarray(before(statistics))


def corrected(
    kernel: np.ndarray, bias: np.ndarray, features: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The dense layer nearest to a given one that gives wanted outputs.

    By least squares, with a pull towards the kernel that there is.

    Args:
        kernel: [c, k].
        bias: [k].
        features: The layer's inputs, [n, c].
        wanted: The outputs to give, [n, k].

    Returns:
        Kernel and bias, float32.
    """
    features = features.astype("float64")
    mean, missing = features.mean(axis=0), wanted - (features @ kernel + bias)
    centred, average = features - mean, missing.mean(axis=0)
    covariance = centred.T @ centred / len(features)
    # The least number keeps features that never change from dividing by zero.
    pull = _RIDGE * np.trace(covariance) / len(covariance) + 1e-12
    change = np.linalg.solve(
        covariance + pull * np.eye(len(covariance)),
        centred.T @ (missing - average) / len(features),
    )
    bias = bias + average - mean @ change
    return (kernel + change).astype("float32"), bias.astype("float32")


def _train_controllers(model: EPNet, states: ExitStates, seed: int) -> None:
    """Trains the controllers on, for the β or the range that they are for.

    Batch normalizations stay as they are: statistics taken from the last batches again
    would alone send images through other exits.
    """
    trainer = ControllerTrainer(model, None if model.beta_range else model.beta, seed)
    for controller in trainer.controllers:
        for layer in controller.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    steps = _EPOCHS * -(-len(states) // _BATCH_SIZE)
    learning_rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    trainer.compile(keras.optimizers.AdamW(learning_rate, weight_decay=1e-2))
    trainer.fit(
        states.inputs,
        states.labels,
        batch_size=_BATCH_SIZE,
        epochs=_EPOCHS,
        verbose=0,
    )


def _pooled(graph: Graph, logits: str) -> int | None:
    """The tensor that an exit's controller reads beside logits and β, if any."""
    dense = _dense(graph, graph.outputs[logits])
    stop = graph.outputs[logits.replace("logits", "stop")]
    controller = graph.ancestors([stop]) - graph.ancestors([graph.outputs[logits]])
    controller &= modes.head_operators(graph)
    read = {t for index in controller for t in graph.variable_inputs(index)}
    read -= {t for index in controller for t in graph.operators[index].outputs}
    read -= graph.dependents(graph.operators[dense].outputs)
    return next(iter(read - set(graph.inputs.values())), None)


def _statistics(graph: Graph, logits: int) -> int:
    """The tensor that an exit's classifier scales and reads."""
    (read,) = graph.variable_inputs(_dense(graph, logits))
    # Conversion folds the scaling into the dense layer, if that has a bias.
    while _code(graph, graph.producers[read]) in _SCALING:
        variable = graph.variable_inputs(graph.producers[read])
        if len(variable) > 1:
            break
        (read,) = variable
    return read


def _dense(graph: Graph, logits: int) -> int:
    """The dense layer of an exit's classifier."""
    index = graph.producers[logits]
    while _code(graph, index) != schema.BuiltinOperator.FULLY_CONNECTED:
        index = graph.producers[graph.operators[index].inputs[0]]
    return index


def _code(graph: Graph, index: int) -> int:
    """What kind of operator it is, a `schema.BuiltinOperator`."""
    return graph.model.operatorCodes[graph.operators[index].opcodeIndex].builtinCode


def _real_values(graph: Graph, tensor: int, values: np.ndarray) -> np.ndarray:
    """The real values, float32, that a tensor's integers stand for."""
    if values.dtype == np.float32:
        return values
    found = graph.tensors[tensor].quantization
    shifted = values.astype(np.float32) - np.float32(found.zeroPoint[0])
    return shifted * np.float32(found.scale[0])
