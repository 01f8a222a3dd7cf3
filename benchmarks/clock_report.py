"""The tables and the picture of benchmarks/clock.py."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from epnet_tf import objective
from epnet_tf.evaluation.markdown import table
from epnet_tf.model import EPNet


@dataclasses.dataclass(frozen=True, eq=False)
class Contender:
    """A bundle to run.

    Attributes:
        path: The bundle.
        milliseconds: [N], what leaving through each of its exits takes, as measured.
        accuracy: Share of validation images that the float32 policy is right on.
    """

    path: pathlib.Path
    milliseconds: np.ndarray
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of a bundle, or of a network in one piece, on the test images.

    Attributes:
        accuracy: Share of images with the right label.
        clock: Mean milliseconds of an image.
        p90: Milliseconds that nine of ten images take at most.
        expected: Mean milliseconds by the measured costs of the exits taken; of a
            network in one piece 0.
    """

    accuracy: float
    clock: float
    p90: float
    expected: float = 0.0


def network_name(exit_number: int) -> str:
    """What a network up to an exit is called among what runs."""
    return f"network to exit {exit_number}"


def exit_table(model: EPNet, few: EPNet) -> str:
    """What each exit costs in both units, and whether the clock keeps it."""
    macs, costs = model.exit_macs, model.costs
    rows = []
    for i, layer in enumerate(model.exit_layers):
        count, ms = macs.with_controllers[i], costs.costs[i]
        cells = [f"{count / 1e6:.2f} M", f"{count / macs.full:.1%}"]
        cells += [f"{ms:.4f} ms", f"{ms / costs.full:.1%}", f"{costs.p90[i]:.4f} ms"]
        kept = "yes" if layer in few.exit_layers else ""
        rows.append([str(i + 1), f"`{layer}`", *cells, kept])
    head = ["exit", "after", "multiply-adds", "of full", "median", "of full", "p90"]
    return table([*head, "kept"], rows)


def price_table(
    found: dict[str, list[Contender]],
    prices: Mapping[float, float],
    runs: dict[str, Run],
) -> str:
    """Benefit, by the clock and by the measured costs, at each price.

    Args:
        found: For each way to choose, the contenders at all prices.
        prices: What the plain network costs in points, to β in points per millisecond.
        runs: What came of all.
    """
    rows = []
    for i, (points, beta) in enumerate(prices.items()):
        base = None
        for name, of_prices in found.items():
            one = runs[of_prices[i].path.name]
            clock = objective.benefit(one.accuracy, one.clock, beta)
            costs = objective.benefit(one.accuracy, one.expected, beta)
            base = clock if base is None else base
            cells = [f"{one.accuracy:.2%}", f"{one.clock:.4f} ms", f"{one.p90:.4f} ms"]
            cells += [f"{clock:.2f}", f"{clock - base:+.2f}", f"{costs:.2f}"]
            rows.append([f"{points} points", f"{beta:.3g}", name, *cells])
    head = ["plain network costs", "β per ms", "chosen for", "accuracy", "mean", "p90"]
    return table([*head, "benefit, clock", "lead", "benefit, costs"], rows)


def chain_table(
    found: dict[str, list[Contender]],
    static: dict[pathlib.Path, int],
    prices: Mapping[float, float],
    runs: dict[str, Run],
) -> str:
    """Early exit against what its exits should take, and against a static exit."""
    rows = []
    for i, points in enumerate(prices):
        for name, of_prices in found.items():
            path = of_prices[i].path
            early, k = runs[path.name], static[path]
            alone = runs[network_name(k)]
            cells = [f"{early.clock:.4f} ms", f"{early.expected:.4f} ms"]
            cells += [f"{early.clock / early.expected:.2f}", f"{early.accuracy:.2%}"]
            cells += [str(k), f"{alone.accuracy:.2%}", f"{alone.clock:.4f} ms"]
            cells += [f"{early.clock / alone.clock:.2f}"]
            rows.append([f"{points} points", name, *cells])
    head = ["plain network costs", "chosen for", "early exit", "expected", "ratio"]
    head += ["accuracy", "static exit", "accuracy", "time", "early / static"]
    return table(head, rows)


def budget_table(kept: list[tuple[dict, Contender]], runs: dict[str, Run]) -> str:
    """What was promised on validation images, and what the runner took on test images.

    The promise is about images: that the clock is noisy is not covered.
    """
    rows = []
    for promise, contender in kept:
        one, limit = runs[contender.path.name], promise["limit"]
        cells = [f"{limit:.4f} ms", f"{promise['validation']:.4f} ms"]
        cells += [f"{promise['p90']:.4f} ms", f"{one.expected:.4f} ms"]
        cells += [
            f"{one.clock:.4f} ms",
            f"{one.p90:.4f} ms",
            f"{one.clock / limit:.3f}",
        ]
        kept_ = "kept" if one.clock <= 1.03 * limit else "**broken**"
        rows.append([promise["promise"], *cells, kept_, f"{one.accuracy:.2%}"])
    head = ["promise", "limit", "validation, costs", "at p90", "test, costs"]
    head += ["test, clock", "p90", "clock / limit", "within 3%", "accuracy"]
    return table(head, rows)


def exit_picture(model: EPNet, few: EPNet, name: str) -> Figure:
    """What each exit costs as a share of the plain network, in both units.

    Args:
        model: The network with all exits and measured costs.
        few: The same with those that the clock keeps.
        name: What is above the picture.
    """
    macs, costs = model.exit_macs, model.costs
    numbers = np.arange(1, model.num_exits + 1)
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    in_macs = 100 * macs.with_controllers / macs.full
    in_ms = 100 * np.array(costs.costs) / costs.full
    axes.plot(numbers, in_macs, "s--", color="0.4", label="multiply-adds")
    axes.plot(numbers, in_ms, "o-", color="#d62728", label="milliseconds")
    kept = [layer in few.exit_layers for layer in model.exit_layers]
    axes.plot(
        numbers[kept],
        in_ms[kept],
        "o",
        ms=12,
        mfc="none",
        color="#d62728",
        label="kept by the clock",
    )
    axes.set(
        xlabel="exit",
        ylabel="cost (% of the plain network)",
        xticks=numbers,
        ylim=(0, None),
        title=f"{name}: leaving through each exit",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
