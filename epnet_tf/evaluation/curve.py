"""One model over its range of β: the curve as numbers, as a table and as a picture."""

import numpy as np
from matplotlib.figure import Figure

from epnet_tf.evaluation import reports
from epnet_tf.policies import Score
from epnet_tf.runtime import units

_STYLES: dict[str, dict] = {
    "epnet": {"color": "#d62728", "marker": "o", "lw": 2.4, "zorder": 3},
    "softmax-per-exit": {"color": "#08306b", "marker": "^"},
    "softmax-gate-tuned": {"color": "#2171b5", "marker": "v"},
    "static": {"color": "0.35", "marker": "s", "ls": "-."},
    "resnet": {"color": "black", "marker": "*", "ms": 10},
}


def curve_betas(beta_range: tuple[float, float], count: int = 9) -> tuple[float, ...]:
    """β over a range, evenly on a logarithmic scale, both ends included."""
    return tuple(np.geomspace(*beta_range, count).tolist())


def curve(
    beta_range: tuple[float, float], scores: dict[str, list[list[Score]]]
) -> dict:
    """Gathers a curve as it stands in `metrics.json`.

    Args:
        beta_range: Lowest and highest cost sensitivity, points per unit of cost.
        scores: For each policy, for each of `curve_betas`, its scores (one for each
            seed).

    Returns:
        `beta_range` and `policies`: for each name a row for each β, as in
        `reports.metrics`.
    """
    betas = curve_betas(beta_range)
    return {
        "beta_range": list(beta_range),
        "policies": {
            name: [reports.row(beta, s) for beta, s in zip(betas, rows, strict=True)]
            for name, rows in scores.items()
        },
    }


def table(metrics: dict) -> str:
    """The curve in a table: benefits side by side, and what EPNet spends for its own.

    Args:
        metrics: What `metrics.json` holds.

    Returns:
        Lines for a terminal.
    """
    policies = metrics["curve"]["policies"]
    others = [name for name in policies if name != "epnet"]
    lines = [
        "benefit over the range of β, one model:",
        f"{'beta':>8}{'epnet':>8}{'accuracy':>10}{'of full':>9}"
        + "".join(f"{name:>20}" for name in others),
    ]
    for i, row in enumerate(policies["epnet"]):
        lines.append(
            f"{row['beta']:8.1e}{row['benefit']:8.2f}{row['accuracy']:10.2%}"
            f"{row['mean_cost'] / metrics['full_cost']:9.1%}"
            + "".join(f"{policies[name][i]['benefit']:20.2f}" for name in others)
        )
    return "\n".join(lines) + "\n"


def accuracy_against_cost(metrics: dict) -> Figure:
    """What each policy gets right for what it spends: a point for each β.

    Args:
        metrics: What `metrics.json` holds, with a curve.

    Returns:
        The figure.
    """
    low, high = metrics["curve"]["beta_range"]
    unit = metrics["cost_unit"]
    scale, label = 1.0, f"mean cost of an image ({unit})"
    if unit == units.MACS:
        scale, label = 1e6, "mean multiply-adds of an image (million)"
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for name, rows in metrics["curve"]["policies"].items():
        points = sorted({(r["mean_cost"] / scale, 100 * r["accuracy"]) for r in rows})
        axes.plot(*np.transpose(points), label=name, **_STYLES[name])
    axes.set(
        xlabel=label,
        ylabel="accuracy (%)",
        title=f"{metrics['dataset']}: one model, β from {low:g} to {high:g}",
    )
    axes.set_xlim(left=0.0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
