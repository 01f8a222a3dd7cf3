"""Cuts a multi-exit .tflite model into one segment per exit.

Segment k holds the operators that exit k's outputs depend on, less those of earlier
segments. The cut is made in the finished model, quantized or not, so that the segments
in a row compute, bit for bit, what the whole model computes.
"""

import dataclasses
import re
from collections.abc import Iterable

from epnet_tf.tflite import flatbuffer
from epnet_tf.tflite.flatbuffer import Graph


def slice_model(graph: Graph) -> list[Graph]:
    """Slices a .tflite model with outputs `logits_01`, `stop_01`, … `logits_NN`.

    A tensor that crosses a cut is named `features_03_1`: the first such tensor that
    segment 3 makes. If it is an output of the model it keeps that name.

    Args:
        graph: The whole model, of any quantization, with static shapes.

    Returns:
        The segments, in the order in which they run. The inputs of each are `image`,
        `beta` and tensors that earlier ones have made, its outputs the exit's
        `logits_NN` and, but for the last one, `stop_NN`, then what later ones read.

    Raises:
        ValueError: If the outputs are not named so, or an exit needs nothing that
            the exits before it have not computed.
    """
    stages = cut(graph)
    names = {
        tensor: name for name, tensor in [*graph.inputs.items(), *graph.outputs.items()]
    }
    segments = []
    for k, stage in enumerate(stages):
        later = set().union(*(after.reads for after in stages[k + 1 :]))
        crossing = sorted(
            stage.made & later - set(stage.outputs.values()),
            key=graph.producers.__getitem__,
        )
        for number, tensor in enumerate(crossing, start=1):
            names.setdefault(tensor, f"features_{k + 1:02d}_{number}")
        segment_inputs = dict(sorted((names[t], t) for t in stage.reads))
        segment_outputs = stage.outputs | {names[t]: t for t in crossing}
        segments.append(
            flatbuffer.extract(graph, stage.operators, segment_inputs, segment_outputs)
        )
    return segments


@dataclasses.dataclass(frozen=True)
class Stage:
    """What runs from one exit up to another, as operators and tensors of a graph.

    Attributes:
        outputs: The outputs of its exits, name to tensor.
        operators: They.
        made: What they make.
        reads: What has to be there before: made by an earlier stage, or an input.
    """

    outputs: dict[str, int]
    operators: set[int]
    made: set[int]
    reads: set[int]


def stage_of(graph: Graph, outputs: dict[str, int], operators: set[int]) -> Stage:
    """The stage of some operators of a graph that exits' outputs are taken from."""
    made = {t for o in operators for t in graph.operators[o].outputs}
    reads = _read(graph, operators, outputs.values()) & graph.variable
    return Stage(outputs, operators, made, reads - made)


def cut(graph: Graph) -> list[Stage]:
    """Cuts a model with outputs `logits_01`, `stop_01`, … `logits_NN` into stages.

    Args:
        graph: The whole model.

    Returns:
        What each exit needs beyond the exits before it.

    Raises:
        ValueError: As `slice_model`.
    """
    outputs = _exits(graph)
    return [
        stage_of(graph, own, operators)
        for own, operators in zip(outputs, _operators(graph, outputs), strict=True)
    ]


def _exits(graph: Graph) -> list[dict[str, int]]:
    """The outputs of each exit, name to tensor."""
    numbers = sorted(
        int(match[1])
        for name in graph.outputs
        if (match := re.fullmatch(r"logits_(\d+)", name))
    )
    wanted = [
        [n for n in (f"logits_{k:02d}", f"stop_{k:02d}") if n in graph.outputs]
        for k in numbers
    ]
    if numbers != list(range(1, len(numbers) + 1)) or sorted(
        name for names in wanted for name in names
    ) != sorted(graph.outputs):
        raise ValueError(
            "Expected a model with outputs logits_01, stop_01, ..., logits_NN. "
            f"Received: outputs {sorted(graph.outputs)}."
        )
    return [{name: graph.outputs[name] for name in names} for names in wanted]


def _operators(graph: Graph, outputs: list[dict[str, int]]) -> list[set[int]]:
    """The operators of each stage.

    Operators that the image does not reach are put into every stage that needs what
    they make: constants, and what is computed from `beta`, do not cross cuts.
    """
    image = {tensor for name, tensor in graph.inputs.items() if name != "beta"}
    follows_image = graph.dependents(image)
    stages: list[set[int]] = []
    done: set[int] = set()
    for number, own_outputs in enumerate(outputs, start=1):
        needed = graph.ancestors(own_outputs.values())
        new = {
            o
            for o in needed - done
            if not follows_image.isdisjoint(graph.operators[o].outputs)
        }
        if not new:
            raise ValueError(
                f"Expected exit {number} to need more than the exits before it have "
                "computed. Received: exits in an order in which they cannot run."
            )
        done |= new
        apart = _read(graph, new, own_outputs.values()) - follows_image
        stages.append(new | graph.ancestors(apart))
    return stages


def _read(graph: Graph, stage: set[int], outputs: Iterable[int]) -> set[int]:
    """The tensors that operators read, or that must be there in the end."""
    reads = {t for o in stage for t in graph.operators[o].inputs}
    return reads | set(outputs)
