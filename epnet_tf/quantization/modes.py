"""Quantization of a whole multi-exit .tflite model, before it is sliced.

A mode is a function from the float32 model and calibration data to the model that is
sliced; `MODES` lists them by the name that `convert.py --quantization` takes. Main
branch means all up to the pooled features, heads the classifiers and controllers behind
them; see `head_operators`.

| mode | main branch | heads | input `image` |
|---|---|---|---|
| `none` | float32 | float32 | float32 |
| `float16` | weights float16, computed in float32 | the same | float32 |
| `dynamic` | weights int8, between operators float32 | as in `float16` | float32 |
| `int8` | int8 | as in `float16` | float32 |
| `int8-full` | int8 | int8, but for confidence features | uint8 |
| `qat` | as `int8`, fine-tuned before | as in `float16` | float32 |

`beta` and all `logits_NN` and `stop_NN` are float32 in every mode. In all modes, every
operator has the types and versions that TFLite 2.16.1 knows.
"""

from collections.abc import Callable

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer.qtyping import TFLOperationName as Operation
from litert_quantizer.recipe_manager import RecipeManager

from epnet_tf.data.streams import Images
from epnet_tf.quantization import clipping, recipes
from epnet_tf.quantization.recipes import Calibration
from epnet_tf.tflite import flatbuffer
from epnet_tf.tflite.flatbuffer import Graph


def quantize(graph: Graph, mode: str, calibration: Calibration) -> Graph:
    """Quantizes a float32 .tflite model.

    Args:
        graph: The whole model, see `epnet_tf.tflite.export.to_tflite`.
        mode: A name in `MODES`.
        calibration: Inputs of the model, of training images.

    Returns:
        The quantized model, with the same signature.
    """
    return MODES[mode](graph, calibration)


# With 1,000, or equal shares of classes and difficulties, int8 was no nearer to float32
# (benchmarks/calibration.py).
CALIBRATION_IMAGES = 200


def calibration_sample(images: Images, seed: int = 0) -> Images:
    """Draws images to calibrate on, in random order.

    Args:
        images: Training images, batch first.
        seed: Of the draw.

    Returns:
        `CALIBRATION_IMAGES` of them, or all if there are fewer.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    return images[order[:CALIBRATION_IMAGES]]


def check_mode(mode: str, has_training_data: bool = True) -> None:
    """Checks the name of a quantization mode, and that it has what it needs.

    Args:
        mode: The name.
        has_training_data: Whether there are images with labels to fine-tune on.

    Raises:
        ValueError: If there is none of this name, or it needs training data.
    """
    if mode not in MODES:
        raise ValueError(
            f"Expected a quantization among {', '.join(MODES)}. Received: {mode}"
        )
    if mode in FINE_TUNED and not has_training_data:
        raise ValueError(
            f"Expected training images and labels, which quantization {mode} "
            "fine-tunes on; int8 needs none. Received: no training data."
        )


def image_dtype(graph: Graph) -> str:
    """NumPy's name of the type that a model's input `image` has.

    Args:
        graph: A whole model, quantized or not.

    Returns:
        `float32`, or `uint8`, which takes raw pixel values as they are.
    """
    is_uint8 = graph.tensors[graph.inputs["image"]].type == schema.TensorType.UINT8
    return "uint8" if is_uint8 else "float32"


def head_operators(graph: Graph) -> set[int]:
    """Finds the classifier and controller heads: all that follows pooled features.

    An operator belongs to a head if all it reads is flat ([1, n]; constants aside) and
    the last exit's logits do not depend on it. So the dense layers of the main branch,
    as in squeeze-and-excitation blocks, do not; of what leads to the last logits, only
    the operator that makes them does.

    Args:
        graph: The whole model's graph; its outputs are named as by `EPNet`.

    Returns:
        The operators of the heads.
    """
    logits = [name for name in graph.outputs if name.startswith("logits_")]
    last_logits = graph.outputs[max(logits, key=lambda name: int(name[7:]))]
    main_branch = graph.ancestors([last_logits]) - {graph.producers[last_logits]}
    return {
        index
        for index in range(len(graph.operators))
        if index not in main_branch
        and all(len(graph.tensors[t].shape) <= 2 for t in graph.variable_inputs(index))
    }


def _none(graph: Graph, calibration: Calibration) -> Graph:
    """All in float32: the model as it is."""
    return graph


def _float16(graph: Graph, calibration: Calibration) -> Graph:
    """Kernels of convolutions and dense layers in float16, all else in float32.

    They are cast to float32 when a segment is opened: half the size, the same speed.
    """
    return recipes.apply(graph, recipes.float16())


def _dynamic(graph: Graph, calibration: Calibration) -> Graph:
    """Kernels of the main branch's convolutions and dense layers in int8.

    All tensors between operators are float32, and the heads as in `int8`. An operator
    with an int8 kernel quantizes what it reads, image by image, so that nothing has to
    be calibrated.
    """
    recipe = recipes.dynamic()
    recipes.leave_with_float16_kernels(recipe, graph, head_operators(graph))
    return recipes.apply(graph, recipe)


def _int8(graph: Graph, calibration: Calibration) -> Graph:
    """Main branch up to the pooled features in int8, heads and inputs in float32.

    An int8 softmax has steps of 1/256, just where confidence matters, and the heads
    are a thousandth of the work. Their kernels are stored in float16, as they would be
    a quarter of the size.
    """
    recipe = int8_recipe(graph)
    return recipes.apply(graph, recipe, _ranges(graph, recipe, calibration))


def int8_recipe(graph: Graph) -> RecipeManager:
    """The recipe of mode `int8`.

    Args:
        graph: The float32 model.

    Returns:
        A recipe to calibrate and apply, see `epnet_tf.quantization.recipes`.
    """
    recipe = recipes.static()
    recipes.leave_with_float16_kernels(recipe, graph, head_operators(graph))
    return recipe


def _int8_full(graph: Graph, calibration: Calibration) -> Graph:
    """Every convolution and dense layer, heads included, from and to int8.

    In float32 remain `beta`, the outputs (int8 up to a DEQUANTIZE each) and the
    confidence features: from a controller's first operator without an int8 kernel, a
    logarithm or exponential, up to its next dense layer. The image is uint8 if those
    in `calibration` are whole numbers, which raw pixels are, otherwise float32.
    """
    recipe = recipes.static()
    recipes.leave(recipe, graph, _confidence_operators(graph))
    ranges = _ranges(graph, recipe, calibration)
    if not all((feed["image"] % 1 == 0).all() for feed in calibration):
        return recipes.apply(graph, recipe, ranges)
    image = graph.tensors[graph.inputs["image"]].name.decode()
    for end, value in (("min", 0.0), ("max", 255.0)):
        ranges[image][end] = np.full_like(ranges[image][end], value)
    return _with_uint8_image(recipes.apply(graph, recipe, ranges))


def _ranges(
    graph: Graph, recipe: RecipeManager, calibration: Calibration
) -> dict[str, dict[str, np.ndarray]]:
    """The ranges that tensors get in int8, by their names."""
    ranges = recipes.calibrate(graph, recipe, calibration)
    return clipping.clip_ranges(ranges, graph, calibration)


def _confidence_operators(graph: Graph) -> set[int]:
    """From the heads' operators that cannot be int8 up to the next dense layers."""
    found: set[int] = set()
    in_float32: set[int] = set()
    for index in sorted(head_operators(graph)):
        operator = graph.operators[index]
        name = _OPERATOR_NAMES[
            graph.model.operatorCodes[operator.opcodeIndex].builtinCode
        ]
        follows = not in_float32.isdisjoint(operator.inputs)
        if name not in Operation.__members__ or (
            follows and name != Operation.FULLY_CONNECTED.value
        ):
            found.add(index)
            in_float32.update(operator.outputs)
    return found


_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items()}


def _with_uint8_image(graph: Graph) -> Graph:
    """Lets a model whose image is quantized first, with scale 1, take uint8."""
    readers = {
        graph.model.operatorCodes[operator.opcodeIndex].builtinCode
        for operator in graph.operators
        if graph.inputs["image"] in operator.inputs
    }
    # A first operator that cannot be int8 reads float32.
    if readers != {schema.BuiltinOperator.QUANTIZE}:
        return graph
    operators = range(len(graph.operators))
    copy = flatbuffer.extract(graph, operators, graph.inputs, graph.outputs)
    image = copy.tensors[copy.inputs["image"]]
    image.type = schema.TensorType.UINT8
    image.quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[0])
    return copy


MODES: dict[str, Callable[[Graph, Calibration], Graph]] = {
    "none": _none,
    "float16": _float16,
    "dynamic": _dynamic,
    "int8": _int8,
    "int8-full": _int8_full,
    "qat": _int8,
}

# Modes before which `epnet_tf.quantization.qat.fine_tune` trains the model.
FINE_TUNED = frozenset({"qat"})
