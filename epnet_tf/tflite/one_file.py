"""Makes one .tflite model of a multi-exit one that stops by itself.

The main subgraph has what runs up to the first exit, and then one `IF` for each later
exit: if the image has stopped, the branch `skip_NN` hands the answer on; if not, the
branch `exit_NN` runs up to the next exit. So `invoke`, in any runtime that has `IF`,
computes what the image needs, and answers with the exit that it left through.

The `IF`s stand in a row and not one in another: TFLite up to 2.16.1 prepares nested
ones in a time that doubles with each level.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from epnet_tf.tflite import flatbuffer, slicer
from epnet_tf.tflite.flatbuffer import Graph, ModelWriter, SubgraphWriter
from epnet_tf.tflite.slicer import Stage

# The input that the signature of the same name has beside the usual ones.
MAX_EXIT = "max_exit"
OUTPUTS = ("logits", "exit", "probabilities")

_Operator, _Type = schema.BuiltinOperator, schema.TensorType
# The version of FILL that knows a type, where it is not 1.
_FILL_VERSIONS = {_Type.BOOL: 2, _Type.INT8: 3, _Type.INT16: 3}
_TRUE, _FALSE = np.array([[True]]), np.array([False])


def build(
    graph: Graph,
    thresholds: float | np.ndarray = 0.0,
    joined: Collection[int] = (),
) -> Graph:
    """Makes a model that stops by itself.

    Its main signature has the inputs of `graph`, and as outputs `logits`, float32
    [1, classes], `exit`, int32 [1], counted from 1, and `probabilities`, float32
    [1, classes]: those of the first exit whose stop logit exceeds the threshold. A
    second signature, `max_exit`, has one input
    more, int32 [1], of that name: the exit that answers at the latest; where it is
    less than 1, exit 1 does.

    No operator is of a kind or version that TFLite 2.16.1 lacks.

    Args:
        graph: The whole model with outputs `logits_01`, `stop_01`, … `logits_NN`, of
            any quantization, with static shapes.
        thresholds: An exit stops where its stop logit is greater; one number for all
            exits, or one for each but the last.
        joined: Exits, counted from 1, that do not end anything: the next exit is
            computed in any case, and the first of them that stops answers. It saves
            time where hardly an image leaves, and answers are the same.

    Returns:
        The model, with inputs and outputs of the main signature.

    Raises:
        ValueError: If the model cannot be cut, see `slicer.slice_model`, or a stop
            logit is not float32 [1, 1].
    """
    return _Builder(graph, thresholds, joined).build()


@dataclasses.dataclass(frozen=True)
class _Block:
    """An exit, or several that are always computed together.

    Attributes:
        exits: Their numbers, from 1.
        stage: What runs for them.
        reads: Tensors of the graph that it takes from before.
        logits: The tensor of the graph that is its answer, if it is made here and
            there is no choice; later blocks may read it, and an `IF` gives it once.
        hands_on: Other tensors of the graph that later blocks take from it.
    """

    exits: tuple[int, ...]
    stage: Stage
    reads: list[int]
    logits: int | None
    hands_on: list[int]


class _Answer(NamedTuple):
    """The answer so far, as tensors of a subgraph.

    Attributes:
        logits: float32 [1, classes].
        exit: int32 [1].
        stopped: bool [1, 1], whether it stays so; None if it does in any case.
    """

    logits: int
    exit: int
    stopped: int | None


class _Branches(NamedTuple):
    """The two sides of an `IF`."""

    skip: SubgraphWriter
    go_on: SubgraphWriter


class _Builder:
    """What all subgraphs of the model are made from."""

    def __init__(
        self,
        graph: Graph,
        thresholds: float | np.ndarray,
        joined: Collection[int],
    ):
        stages = slicer.cut(graph)
        _check_outputs(graph)
        self.graph = graph
        self.writer = ModelWriter(graph)
        self.num_exits = len(stages)
        self.thresholds = np.broadcast_to(
            np.asarray(thresholds, np.float32), self.num_exits - 1
        )
        self.from_beta = _from_beta_alone(graph)
        self.blocks = _blocks(graph, stages, self.from_beta, joined)

    def build(self) -> Graph:
        main = self.writer.subgraph("main")
        branches = [
            _Branches(self.skip(block), self.go_on(block)) for block in self.blocks[1:]
        ]
        limited = self.writer.subgraph(MAX_EXIT)
        return self.writer.finish(
            {
                flatbuffer.SIGNATURE: self.fill_main(main, branches),
                MAX_EXIT: self.fill_main(limited, branches, limited=True),
            }
        )

    def fill_main(
        self, main: SubgraphWriter, branches: Sequence[_Branches], limited: bool = False
    ) -> schema.SignatureDefT:
        """Fills a subgraph that is called from outside; gives its signature."""
        names = sorted(self.graph.inputs, key=lambda name: name != "image")
        main.inputs = [main.tensor(self.graph.inputs[name]) for name in names]
        limits = self.add_limits(main) if limited else {}
        first = self.blocks[0]
        main.copy(self.from_beta | first.stage.operators)
        answer = self.answer(main, first, limits)
        before = first
        for block, sides in zip(self.blocks[1:], branches, strict=True):
            stopped = answer.stopped
            # Only after the last block is there nothing to say.
            assert stopped is not None
            if limited:
                stopped = _either(main, stopped, limits[before.exits[-1]])
            answer = self.add_if(main, block, sides, stopped, answer, limits)
            before = block
        probabilities = _call(
            main,
            _Operator.SOFTMAX,
            [answer.logits],
            main.new_like("probabilities", self.graph.outputs["logits_01"]),
            schema.SoftmaxOptionsT(1.0),
        )
        main.outputs = [answer.logits, answer.exit, probabilities]
        return main.signature(names + [MAX_EXIT] * limited, OUTPUTS)

    def add_limits(self, main: SubgraphWriter) -> dict[int, int]:
        """Whether each exit, but for the last one, has to answer at the latest."""
        max_exit = main.new(MAX_EXIT, [1], _Type.INT32)
        main.inputs.append(max_exit)
        return {
            k: _call(
                main,
                _Operator.LESS_EQUAL,
                [max_exit, main.constant("number", np.array([k], np.int32))],
                main.new(f"limit_{k:02d}", [1], _Type.BOOL),
                schema.LessEqualOptionsT(),
            )
            for k in range(1, self.num_exits)
        }

    def add_if(
        self,
        main: SubgraphWriter,
        block: _Block,
        sides: _Branches,
        stopped: int,
        answer: _Answer,
        limits: Mapping[int, int],
    ) -> _Answer:
        """Adds the choice whether a block runs; gives the answer after it."""
        inputs = [stopped, *map(main.tensor, block.reads), answer.logits, answer.exit]
        for k in block.exits[:-1]:
            inputs.append(limits[k] if limits else main.constant("no_limit", _FALSE))
        last = block.exits[-1]
        logits = main.new_like("logits_so_far", self.graph.outputs["logits_01"])
        if block.logits is not None:
            logits = main.tensor(block.logits)
        after = _Answer(
            logits,
            main.new(f"exit_to_{last:02d}", [1], _Type.INT32),
            main.new(f"stopped_to_{last:02d}", [1, 1], _Type.BOOL),
        )
        if last == self.num_exits:
            after = after._replace(stopped=None)
        outputs = _outputs(after, map(main.tensor, block.hands_on))
        options = schema.IfOptionsT(sides.skip.index, sides.go_on.index)
        main.operator(_Operator.IF, inputs, outputs, options)
        return after

    def skip(self, block: _Block) -> SubgraphWriter:
        """The branch that hands the answer on, and anything in place of tensors."""
        branch, answer, _ = self.branch("skip", block)
        if block.exits[-1] < self.num_exits:
            answer = answer._replace(stopped=branch.constant("stopped", _TRUE))
        at_hand = list(block.reads)
        blanks = [self.anything(branch, t, at_hand) for t in block.hands_on]
        branch.outputs = _outputs(answer, blanks)
        return branch

    def go_on(self, block: _Block) -> SubgraphWriter:
        """The branch that runs a block."""
        branch, _, limits = self.branch("exit", block)
        branch.copy(block.stage.operators)
        answer = self.answer(branch, block, limits)
        branch.outputs = _outputs(answer, map(branch.tensor, block.hands_on))
        return branch

    def branch(
        self, side: str, block: _Block
    ) -> tuple[SubgraphWriter, _Answer, dict[int, int]]:
        """One side of an `IF`, with the inputs that both have.

        Returns:
            The subgraph, the answer before it, and the limits of exits within it.
        """
        branch = self.writer.subgraph(f"{side}_{block.exits[-1]:02d}")
        reads = [branch.tensor(t) for t in block.reads]
        logits = branch.new_like("logits_before", self.graph.outputs["logits_01"])
        number = branch.new("exit_before", [1], _Type.INT32)
        limits = {
            k: branch.new(f"limit_{k:02d}", [1], _Type.BOOL) for k in block.exits[:-1]
        }
        branch.inputs = [*reads, logits, number, *limits.values()]
        return branch, _Answer(logits, number, None), limits

    def answer(
        self, subgraph: SubgraphWriter, block: _Block, limits: Mapping[int, int]
    ) -> _Answer:
        """Adds the choice among a block's exits, whose operators are there."""
        *earlier, last = block.exits
        logits = subgraph.tensor(self.graph.outputs[f"logits_{last:02d}"])
        number = subgraph.constant("exit", np.array([last], np.int32))
        stopped = self.stops(subgraph, last) if last < self.num_exits else None
        for k in reversed(earlier):
            here = self.stops(subgraph, k)
            if k in limits:
                here = _either(subgraph, here, limits[k])
            own = subgraph.tensor(self.graph.outputs[f"logits_{k:02d}"])
            chosen = subgraph.new_like(
                f"logits_from_{k:02d}", self.graph.outputs["logits_01"]
            )
            logits = _select(subgraph, here, own, logits, chosen)
            own = subgraph.constant("exit", np.array([[k]], np.int32))
            chosen = subgraph.new(f"exit_from_{k:02d}", [1, 1], _Type.INT32)
            number = _select(subgraph, here, own, number, chosen)
            if stopped is not None:
                stopped = _either(subgraph, here, stopped)
        if earlier:
            flat = subgraph.new("exit_flat", [1], _Type.INT32)
            options = schema.ReshapeOptionsT([1])
            shape = subgraph.constant("shape", np.array([1], np.int32))
            number = _call(subgraph, _Operator.RESHAPE, [number, shape], flat, options)
        return _Answer(logits, number, stopped)

    def stops(self, subgraph: SubgraphWriter, k: int) -> int:
        """Adds the comparison of an exit's stop logit."""
        stop = subgraph.tensor(self.graph.outputs[f"stop_{k:02d}"])
        threshold = self.thresholds[k - 1].reshape(1, 1)
        inputs = [stop, subgraph.constant("threshold", threshold)]
        stops = subgraph.new(f"stops_{k:02d}", [1, 1], _Type.BOOL)
        options = schema.GreaterOptionsT()
        return _call(subgraph, _Operator.GREATER, inputs, stops, options)

    def anything(self, branch: SubgraphWriter, index: int, at_hand: list[int]) -> int:
        """A tensor of a shape and type, whatever is in it: nobody will read it.

        One that the branch reads is the cheapest; it is taken from those `at_hand`.
        """
        wanted = self.graph.tensors[index]
        for read in at_hand:
            tensor = self.graph.tensors[read]
            same_shape = np.array_equal(tensor.shape, wanted.shape)
            if same_shape and tensor.type == wanted.type:
                at_hand.remove(read)
                return branch.tensor(read)
        blank = branch.new_like("blank", index)
        shape = branch.constant("shape", np.array(wanted.shape, np.int32))
        dtype = flatbuffer_utils.type_to_name(wanted.type).lower()
        zero = branch.constant("zero", np.zeros([], dtype), wanted.quantization)
        version = _FILL_VERSIONS.get(wanted.type, 1)
        options = schema.FillOptionsT()
        return _call(branch, _Operator.FILL, [shape, zero], blank, options, version)


def _outputs(answer: _Answer, hands_on: Iterable[int]) -> list[int]:
    """What an `IF` and its branches give; after the last one, nothing is read."""
    final = [answer.logits, answer.exit]
    return final if answer.stopped is None else [*final, answer.stopped, *hands_on]


def _call(
    subgraph: SubgraphWriter,
    builtin: int,
    inputs: list[int],
    output: int,
    options: Any,
    version: int = 1,
) -> int:
    """Adds an operator; gives its output."""
    subgraph.operator(builtin, inputs, [output], options, version)
    return output


def _either(subgraph: SubgraphWriter, a: int, b: int) -> int:
    either = subgraph.new("either", [1, 1], _Type.BOOL)
    options = schema.LogicalOrOptionsT()
    return _call(subgraph, _Operator.LOGICAL_OR, [a, b], either, options)


def _select(
    subgraph: SubgraphWriter, condition: int, yes: int, no: int, chosen: int
) -> int:
    inputs, options = [condition, yes, no], schema.SelectV2OptionsT()
    return _call(subgraph, _Operator.SELECT_V2, inputs, chosen, options)


def _blocks(
    graph: Graph,
    stages: Sequence[Stage],
    from_beta: set[int],
    joined: Collection[int],
) -> list[_Block]:
    """Stages that are computed together, less what is computed once for all."""
    exits: list[list[int]] = [[]]
    for k in range(1, len(stages) + 1):
        exits[-1].append(k)
        if k not in joined and k < len(stages):
            exits.append([])
    parts = []
    for numbers in exits:
        own = [stages[k - 1] for k in numbers]
        outputs = {name: t for stage in own for name, t in stage.outputs.items()}
        operators = set().union(*(stage.operators for stage in own)) - from_beta
        parts.append(slicer.stage_of(graph, outputs, operators))
    blocks = []
    for i, (numbers, part) in enumerate(zip(exits, parts, strict=True)):
        later = set().union(*(after.reads for after in parts[i + 1 :]))
        logits: int | None = graph.outputs[f"logits_{numbers[-1]:02d}"]
        if len(numbers) > 1 or logits not in part.made:
            logits = None
        hands_on = sorted((part.made & later) - {logits})
        reads = sorted(part.reads)
        blocks.append(_Block(tuple(numbers), part, reads, logits, hands_on))
    return blocks


def _from_beta_alone(graph: Graph) -> set[int]:
    """The operators whose results depend on `beta` and on nothing else."""
    others = graph.dependents(t for name, t in graph.inputs.items() if name != "beta")
    return {
        index
        for index in graph.ancestors(graph.outputs.values())
        if graph.variable_inputs(index)
        and others.isdisjoint(graph.operators[index].outputs)
    }


def _check_outputs(graph: Graph) -> None:
    logits = graph.tensors[graph.outputs["logits_01"]]
    for name, index in graph.outputs.items():
        tensor = graph.tensors[index]
        shape = logits.shape if name.startswith("logits") else [1, 1]
        if tensor.type != _Type.FLOAT32 or not np.array_equal(tensor.shape, shape):
            raise ValueError(
                "Expected logits in float32, the same number at every exit, and stop "
                f"logits in float32 [1, 1]. Received: {name} {list(tensor.shape)}."
            )
