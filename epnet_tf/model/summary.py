"""The exits of a model as a table: where they are, what they cost and are worth."""

import dataclasses
import math

import keras

from epnet_tf.model import graph
from epnet_tf.model.exits import crossing
from epnet_tf.model.states import ExitStates


@dataclasses.dataclass(frozen=True)
class ExitRow:
    """One exit of a model.

    Attributes:
        layer: The layer whose output its classifier reads.
        shape: Of that output, without the batch.
        macs: MACs of leaving through it, all heads on the way included.
        share: They as a share of the plain network.
        head_parameters: Weights of its classifier and controller.
        crossing: Number of tensors that the rest of the network takes over at the cut.
        crossing_values: Values that they have together.
        accuracy: Share of images that it is right on; None if not measured.
    """

    layer: str
    shape: tuple[int, ...]
    macs: int
    share: float
    head_parameters: int
    crossing: int
    crossing_values: int
    accuracy: float | None


def exit_rows(model: keras.Model, states: ExitStates | None = None) -> list[ExitRow]:
    """Gathers what there is to say of each exit.

    Args:
        model: An `EPNet`.
        states: States of images to measure the accuracy on.

    Returns:
        A row for each exit.
    """
    features, costs = model.exit_features, model.exit_macs
    nodes = graph.ancestors([features[-1]])
    accuracies: list[float | None] = [None] * len(features)
    if states is not None:
        accuracies = [float(a) for a in states.correct.mean(axis=0)]
    # At its own exit the network hands nothing on.
    cuts = [*crossing(nodes, features[:-1]), []]
    return [
        ExitRow(
            layer=model.exit_layers[i],
            shape=tuple(features[i].shape[1:]),
            macs=int(costs.with_controllers[i]),
            share=float(costs.with_controllers[i] / costs.full),
            head_parameters=_head_parameters(model, i + 1),
            crossing=len(cuts[i]),
            crossing_values=sum(math.prod(t.shape[1:]) for t in cuts[i]),
            accuracy=accuracies[i],
        )
        for i in range(len(features))
    ]


def table(rows: list[ExitRow]) -> str:
    """The exits one below the other.

    Args:
        rows: As from `exit_rows`.

    Returns:
        Lines for a terminal.
    """
    width = max(len("layer"), *(len(row.layer) for row in rows))
    lines = [
        f"exit  {'layer':{width}}{'shape':>14}{'MACs':>10}{'of full':>9}"
        f"{'head':>9}  {'crossing':16}accuracy"
    ]
    for number, row in enumerate(rows, start=1):
        shape = "×".join(map(str, row.shape))
        cut = f"{row.crossing} of {row.crossing_values:,}" if row.crossing else "-"
        accuracy = "-" if row.accuracy is None else f"{row.accuracy:.1%}"
        lines.append(
            f"{number:4}  {row.layer:{width}}{shape:>14}{row.macs / 1e6:8.2f} M"
            f"{row.share:9.1%}{row.head_parameters:9,}  {cut:16}{accuracy:>8}"
        )
    return "\n".join(lines)


def _head_parameters(model, number: int) -> int:
    """Weights between what an exit reads and what it answers."""
    ends = [model.output[f"logits_{number:02d}"]]
    ends += [t for t in [model.output.get(f"stop_{number:02d}")] if t is not None]
    before = graph.ancestors([model.exit_features[number - 1]])
    own = {id(node.operation): node.operation for node in graph.ancestors(ends)}
    for node in before:
        own.pop(id(node.operation), None)
    layers = [x for x in own.values() if isinstance(x, keras.layers.Layer)]
    return sum(layer.count_params() for layer in layers)
