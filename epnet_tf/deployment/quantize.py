"""Quantization of a whole multi-exit .tflite model, before it is sliced.

A mode is a function from the float32 model and calibration data to the model that is
sliced; `MODES` lists them by the name that `convert.py --quantization` takes.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from litert_quantizer.algorithm_manager import AlgorithmName
from litert_quantizer.calibrator import CalibrationMode, Calibrator
from litert_quantizer.qtyping import QuantGranularity
from litert_quantizer.qtyping import TFLOperationName as Operation
from litert_quantizer.quantizer import Quantizer
from litert_quantizer.recipe_manager import RecipeManager
from litert_quantizer.utils import qsv_utils

from epnet_tf.deployment import flatbuffer
from epnet_tf.deployment.flatbuffer import Graph

# One dict of input values for each calibration image, by the signature's names.
Calibration = Sequence[dict[str, np.ndarray]]


def quantize(model: bytes, mode: str, calibration: Calibration) -> bytes:
    """Quantizes a float32 .tflite model.

    Args:
        model: The whole model, see `epnet_tf.deployment.litert.to_tflite`.
        mode: A name in `MODES`.
        calibration: Inputs of the model, of training images.

    Returns:
        The quantized model, with the same signature.
    """
    return MODES[mode](model, calibration)


def calibration_sample(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draws images to calibrate on, in random order.

    Args:
        images: Training images, batch first.
        seed: Of the draw.

    Returns:
        200 of them, or all if there are fewer: beyond that, ranges hardly move.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    return images[order[:200]]


def check_mode(mode: str) -> None:
    """Checks the name of a quantization mode.

    Raises:
        ValueError: If there is none of this name.
    """
    if mode not in MODES:
        raise ValueError(
            f"Expected a quantization among {', '.join(MODES)}. Received: {mode}"
        )


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


def _none(model: bytes, calibration: Calibration) -> bytes:
    return model


def _int8(model: bytes, calibration: Calibration) -> bytes:
    """Main branch up to the pooled features in int8, heads and input in float32.

    An int8 softmax has steps of 1/256, just where confidence matters, and the heads
    are a thousandth of the work.
    """
    recipe = RecipeManager()
    recipe.add_static_config(".*", Operation.ALL_SUPPORTED, 8, 8)
    # TFLite 2.16.1 rounds dense layers that are quantized per channel differently.
    recipe.add_static_config(
        ".*", Operation.FULLY_CONNECTED, 8, 8, QuantGranularity.TENSORWISE
    )
    for scope, operation in (
        (".*", Operation.INPUT),
        (".*", Operation.OUTPUT),
        (_heads_pattern(model), Operation.ALL_SUPPORTED),
    ):
        recipe.add_quantization_config(
            scope, operation, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    return _quantize_static(model, recipe, calibration)


def _quantize_static(
    model: bytes, recipe: RecipeManager, calibration: Calibration
) -> bytes:
    """Quantizes by a recipe, with the ranges that activations have on some images."""
    quantizer = Quantizer(model, recipe.get_quantization_recipe())
    # The quantizer shows several progress bars and warnings of its own insides.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calibrator = Calibrator(
            model,
            num_threads=1,
            # The same ranges as by default, in a seventh of the time.
            mode=CalibrationMode.CALIBRATION_PROFILER_BASED,
            # By default, ranges are a moving average, and what is brighter than the
            # average image is cut off.
            qsv_update_func=qsv_utils.min_max_update,
        )
        calibrator.calibrate({flatbuffer.SIGNATURE: calibration}, recipe)
        result = quantizer.quantize(
            calibrator.get_model_qsvs(), enable_progress_report=False
        )
    return bytes(result.quantized_model)


def _heads_pattern(model: bytes) -> str:
    """A regular expression for the heads' scopes, as the quantizer names them.

    An operator's scope is the names of the tensors that it makes, each with a
    semicolon behind it.
    """
    graph = flatbuffer.read(model)
    heads = head_operators(graph)
    scopes = [
        "".join(f"{graph.tensors[t].name.decode()};" for t in operator.outputs)
        for index, operator in enumerate(graph.operators)
        if index in heads
    ]
    return f"^({'|'.join(map(re.escape, scopes))})$"


MODES: dict[str, Callable[[bytes, Calibration], bytes]] = {
    "none": _none,
    "int8": _int8,
}
