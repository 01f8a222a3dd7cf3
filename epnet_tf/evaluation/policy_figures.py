"""Figures that compare policies: all read from reports, as `report.json` holds them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from epnet_tf.evaluation.learning import Learning
from epnet_tf.runtime import units

REFERENCE = "softmax-per-exit"

# Those that have anything to learn or tune; the others are far below.
_ADAPTIVE = (
    "epnet",
    "backward-induction",
    "epnet-paper",
    "softmax-per-exit",
    "softmax-gate-tuned",
    "softmax-gate-oracle",
    "branchynet-tuned",
    "branchynet-oracle",
)

_BLUES = ("#08306b", "#2171b5", "#6baed6")
_GREENS = ("#00441b", "#238b45", "#74c476")
_STYLES: dict[str, dict] = {
    "hindsight": {"color": "black", "ls": ":"},
    "epnet": {"color": "#d62728", "lw": 2.6, "marker": "o", "zorder": 5},
    "backward-induction": {"color": "#9467bd", "marker": "D"},
    "epnet-paper": {"color": "#ff7f0e", "marker": "s"},
    "reinforce": {"color": "#8c564b", "marker": "P"},
    "softmax-per-exit": {"color": _BLUES[0], "marker": "^"},
    "softmax-gate-tuned": {"color": _BLUES[1], "marker": "v"},
    "softmax-gate-oracle": {"color": _BLUES[2], "marker": "v"},
    "softmax-gate-0.2": {"color": _BLUES[1], "ls": ":"},
    "softmax-gate-0.1": {"color": _BLUES[1], "ls": "--"},
    "softmax-gate-0.01": {"color": _BLUES[1], "ls": "-."},
    "branchynet-tuned": {"color": _GREENS[1], "marker": "x"},
    "branchynet-oracle": {"color": _GREENS[2], "marker": "x"},
    "branchynet-0.3": {"color": _GREENS[1], "ls": ":"},
    "branchynet-0.2": {"color": _GREENS[1], "ls": "--"},
    "static": {"color": "0.35", "marker": "_", "ls": "-."},
    "resnet": {"color": "0.6", "ls": "-"},
}


def benefit_against_beta(reports: Sequence[dict]) -> Figure:
    """Figure 6, a column for each data set.

    Above the benefit of each policy, below its distance to `softmax-per-exit`, where
    what matters can be seen; the band is one standard deviation over seeds.

    Args:
        reports: Contents of `report.json`.

    Returns:
        The figure.
    """
    width = 3.2 + 4.3 * len(reports)
    figure = Figure(figsize=(width, 8.2), layout="constrained")
    grid = figure.subplots(2, len(reports), squeeze=False)
    for column, report in zip(grid.T, reports, strict=True):
        _draw_benefits(column[0], report, reference=None)
        _draw_benefits(column[1], report, reference=REFERENCE)
        column[0].set_title(report["dataset"])
    grid[0, 0].set_ylabel("benefit (points)")
    grid[1, 0].set_ylabel(f"benefit less that of {REFERENCE} (points)")
    _legend(figure, grid[0])
    return figure


def accuracy_against_cost(report: dict) -> Figure:
    """What each policy gets right for what it spends: a point for each β.

    Args:
        report: Contents of `report.json`.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(9.5, 5.6), layout="constrained")
    axes = figure.add_subplot()
    for name, rows in _in_order(report["policies"]):
        points = np.array(
            sorted(
                {(r["mean_cost"] / report["full_cost"], r["accuracy"]) for r in rows}
            )
        )
        style = _STYLES[name] | ({"marker": "o"} if len(points) == 1 else {})
        axes.plot(*100.0 * points.T, label=name, ms=5, **style)
    axes.plot(
        [100.0 * e["cost"] / report["full_cost"] for e in report["exits"]],
        [100.0 * e["accuracy"] for e in report["exits"]],
        ls="",
        marker="|",
        ms=9,
        color="0.35",
        label="each exit for all",
    )
    top = 100.0 * max(r["accuracy"] for r in report["policies"]["hindsight"])
    last = 100.0 * report["exits"][-1]["accuracy"]
    axes.set(
        xlabel=f"mean {units.words(report['cost_unit'])[1]} (% of the full network)",
        ylabel="accuracy (%)",
        title=f"{report['dataset']}: accuracy for compute",
        ylim=(max(last - 45.0, 0.0), top + 1.5),
    )
    axes.grid(alpha=0.3)
    _legend(figure, [axes])
    return figure


def way_to_hindsight(report: dict) -> Figure:
    """How far policies get from the best static exit (0) to the bound (100).

    Args:
        report: Contents of `report.json`.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(9.5, 5.0), layout="constrained")
    axes = figure.add_subplot()
    rows = [r for r in report["way_to_hindsight"] if r["beta"] in report["betas"]]
    betas = [r["beta"] for r in rows]
    for name, _ in _in_order(report["policies"]):
        if name in _ADAPTIVE:
            ways = [r[name] for r in rows]
            axes.plot(betas, ways, label=name, ms=5, **_STYLES[name])
    best = max((r[name] for r in rows for name in _ADAPTIVE), default=100.0)
    axes.axhline(0.0, color="0.35", lw=1)
    axes.set(
        ylabel="way from static to hindsight (%)",
        title=f"{report['dataset']}: how much of what is possible",
        ylim=(-0.5 * best, 1.15 * best),
    )
    _beta_axis(axes, betas, report["cost_unit"])
    _legend(figure, [axes])
    return figure


def learning_curves(learning: Learning, dataset: str) -> Figure:
    """Figure 10: benefit on validation images at each training step.

    Args:
        learning: Both ways of training.
        dataset: Name of the data set.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, color in (("exact", "#d62728"), ("reinforce", "#8c564b")):
        values = learning.curves[name]
        axes.plot(learning.steps, values.mean(axis=0), color=color, label=name)
        axes.fill_between(
            learning.steps,
            values.min(axis=0),
            values.max(axis=0),
            color=color,
            alpha=0.25,
            lw=0,
        )
    measured = np.concatenate(list(learning.curves.values()))
    top = measured.max()
    axes.set(
        xlabel="training step",
        ylabel="benefit (points)",
        title=f"{dataset}: exact gradient and REINFORCE, β = {learning.beta:g}",
        ylim=(max(measured.min(), top - 20.0) - 0.5, top + 0.5),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def _draw_benefits(axes: Axes, report: dict, reference: str | None):
    base = {r["beta"]: r["benefit"] for r in report["policies"].get(reference, [])}
    shown: list[float] = []
    for name, rows in _in_order(report["policies"]):
        rows = [r for r in rows if r["beta"] in report["betas"]]
        if not rows or (reference and name == "hindsight"):
            continue
        betas = np.array([r["beta"] for r in rows])
        values = np.array([r["benefit"] - base.get(r["beta"], 0.0) for r in rows])
        spread = np.array([r["benefit_std"] for r in rows])
        style = _STYLES[name]
        axes.plot(betas, values, label=name, ms=5, **style)
        axes.fill_between(
            betas, values - spread, values + spread, color=style["color"], alpha=0.2
        )
        if name in ("epnet", "backward-induction", "hindsight"):
            shown.extend(values)
    # Reports of before costs had units are in MACs.
    _beta_axis(axes, report["betas"], report.get("cost_unit", units.MACS))
    if reference:
        top = max(max(shown), 1.0)
        axes.set_ylim(-1.3 * top, 1.15 * top)
    else:
        floor = min(r["benefit"] for r in report["policies"]["static"]) - 12.0
        lowest = min(
            r["benefit"]
            for r in report["policies"]["static"]
            if r["beta"] in report["betas"]
        )
        axes.set_ylim(max(floor, lowest - 12.0), max(shown) + 2.0)


def _beta_axis(axes: Axes, betas: Sequence[float], unit: str):
    axes.set_xlabel(f"cost sensitivity β (points per {units.words(unit)[0]})")
    axes.set_xticks(betas)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda b, _: f"{b:g}"))
    if len(betas) > 5:
        axes.tick_params(axis="x", labelsize=7)
    axes.grid(alpha=0.3)


def _in_order(policies: dict) -> list[tuple[str, list[dict]]]:
    """Best known first, as in the legend."""
    return [(name, policies[name]) for name in _STYLES if name in policies]


def _legend(figure: Figure, panels: Sequence[Axes]):
    found: dict = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(
        found.values(), found.keys(), loc="outside right upper", fontsize="small"
    )
