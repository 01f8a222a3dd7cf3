"""Recipes for litert-quantizer: making, calibrating and applying them."""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from litert_quantizer.algorithm_manager import AlgorithmName
from litert_quantizer.calibrator import CalibrationMode, Calibrator
from litert_quantizer.qtyping import QuantGranularity
from litert_quantizer.qtyping import TFLOperationName as Operation
from litert_quantizer.quantizer import Quantizer
from litert_quantizer.recipe_manager import RecipeManager
from litert_quantizer.utils import qsv_utils

from epnet_tf.quantization import pooling
from epnet_tf.tflite import flatbuffer
from epnet_tf.tflite.flatbuffer import Graph

# One dict of input values for each calibration image, by the signature's names.
Calibration = Sequence[dict[str, np.ndarray]]

# Kept in float32 wherever int8 meets them; `Operation.MEAN` here would take global
# pooling out of int8.
FLOAT32_OPERATIONS = (Operation.INPUT, Operation.OUTPUT)


def float16() -> RecipeManager:
    """Kernels of convolutions and dense layers in float16."""
    recipe = RecipeManager()
    recipe.add_weight_only_config(
        ".*",
        Operation.ALL_SUPPORTED,
        num_bits=16,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    return recipe


def dynamic() -> RecipeManager:
    """Kernels in int8; operators quantize what they read, image by image."""
    recipe = RecipeManager()
    recipe.add_dynamic_config(".*", Operation.ALL_SUPPORTED, num_bits=8)
    # TFLite 2.16.1 has no such dense layers that are quantized per channel.
    recipe.add_dynamic_config(
        ".*", Operation.FULLY_CONNECTED, 8, QuantGranularity.TENSORWISE
    )
    return recipe


def static() -> RecipeManager:
    """Kernels and activations in int8, with inputs and outputs in float32."""
    recipe = RecipeManager()
    recipe.add_static_config(".*", Operation.ALL_SUPPORTED, 8, 8)
    # TFLite 2.16.1 rounds dense layers that are quantized per channel differently.
    recipe.add_static_config(
        ".*", Operation.FULLY_CONNECTED, 8, 8, QuantGranularity.TENSORWISE
    )
    for operation in FLOAT32_OPERATIONS:
        recipe.add_quantization_config(
            ".*", operation, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    return recipe


def leave(recipe: RecipeManager, graph: Graph, operators: Iterable[int]) -> None:
    """Takes operators out of a recipe: they stay in float32.

    Args:
        recipe: The recipe, which is changed.
        graph: The float32 model's graph.
        operators: By their indices in it.
    """
    recipe.add_quantization_config(
        _scope(graph, operators),
        Operation.ALL_SUPPORTED,
        algorithm_key=AlgorithmName.NO_QUANTIZE,
    )


def leave_with_float16_kernels(
    recipe: RecipeManager, graph: Graph, operators: Iterable[int]
) -> None:
    """As `leave`, with the kernels of dense layers stored in half the bytes.

    Args:
        recipe: The recipe, which is changed.
        graph: The float32 model's graph.
        operators: By their indices in it.
    """
    operators = list(operators)
    leave(recipe, graph, operators)
    recipe.add_weight_only_config(
        _scope(graph, operators),
        Operation.FULLY_CONNECTED,
        num_bits=16,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )


def _scope(graph: Graph, operators: Iterable[int]) -> str:
    """A regular expression for operators, as the quantizer names them.

    That is the names of the tensors that each makes, with a semicolon behind each.
    """
    scopes = [
        "".join(
            f"{graph.tensors[t].name.decode()};" for t in graph.operators[index].outputs
        )
        for index in sorted(operators)
    ]
    return f"^({'|'.join(map(re.escape, scopes))})$"


def calibrate(
    graph: Graph,
    recipe: RecipeManager,
    calibration: Calibration,
    update: Callable = qsv_utils.min_max_update,
) -> dict[str, dict[str, np.ndarray]]:
    """Finds the ranges of tensors on some images.

    Args:
        graph: The float32 model.
        recipe: Tells which tensors' ranges are needed.
        calibration: Inputs of the model.
        update: How a range changes with another image's range. The quantizer's own
            choice is a moving average, which cuts off what is brighter than the
            average image.

    Returns:
        `min` and `max` of each tensor, by its name.
    """
    with _quiet():
        calibrator = Calibrator(
            graph.content,
            num_threads=1,
            # The same ranges as by default, in a seventh of the time.
            mode=CalibrationMode.CALIBRATION_PROFILER_BASED,
            qsv_update_func=update,
        )
        calibrator.calibrate({flatbuffer.SIGNATURE: calibration}, recipe)
        return calibrator.get_model_qsvs()


def apply(graph: Graph, recipe: RecipeManager, ranges: dict | None = None) -> Graph:
    """Quantizes a model by a recipe.

    Args:
        graph: The float32 model.
        recipe: What becomes of which operators.
        ranges: From `calibrate`, for a recipe that needs them.

    Returns:
        The quantized model.
    """
    with _quiet():
        quantizer = Quantizer(graph.content, recipe.get_quantization_recipe())

        def quantized(ranges) -> Graph:
            result = quantizer.quantize(ranges, enable_progress_report=False)
            return flatbuffer.read(bytes(result.quantized_model))

        first = quantized(ranges)
        return quantized(pooling.widen_ranges(ranges, first)) if ranges else first


@contextlib.contextmanager
def _quiet():
    """Without the quantizer's progress bars and warnings of its own insides."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
