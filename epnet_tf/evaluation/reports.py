"""Scores of policies as JSON and as a table."""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from epnet_tf.model.states import ExitStates
from epnet_tf.policies import Score
from epnet_tf.runtime import units

_PACKAGES = ("tensorflow", "keras", "numpy")


def metrics(
    model,
    dataset: str,
    states: ExitStates,
    betas: Sequence[float],
    scores: dict[str, list[list[Score]]],
) -> dict:
    """Gathers what was measured, as it is written to `metrics.json`.

    Args:
        model: The `EPNet`.
        dataset: Name of the data set.
        states: States of the test images.
        betas: The B cost sensitivities, points per unit of cost.
        scores: For each policy, for each β, its scores (one for each seed).

    Returns:
        `dataset`, `versions`, `full_macs`, `cost_unit`, `full_cost`, `exits` (layer,
        cumulative_macs and cost with classifiers and controllers, accuracy of each) and
        `policies`: for each name, for each β, mean and standard deviation of the
        benefit over seeds, accuracy (0 to 1), mean_cost, exit_rates and the number of
        seeds. Costs are in `cost_unit`.
    """
    return {
        "dataset": dataset,
        "versions": {package: version(package) for package in _PACKAGES},
        "full_macs": model.exit_macs.full,
        "cost_unit": model.exit_costs.unit,
        "full_cost": model.exit_costs.full,
        "exits": [
            {"layer": layer, "cumulative_macs": macs, "cost": cost, "accuracy": right}
            for layer, macs, cost, right in zip(
                model.exit_layers,
                model.exit_macs.with_controllers.tolist(),
                model.exit_costs.with_controllers.tolist(),
                states.correct.mean(axis=0).tolist(),
                strict=True,
            )
        ],
        "policies": {
            name: [row(beta, s) for beta, s in zip(betas, rows, strict=True)]
            for name, rows in scores.items()
        },
    }


def row(beta: float, scores: Sequence[Score]) -> dict:
    """One policy at one β: means over seeds.

    Args:
        beta: Cost sensitivity, points per unit of cost.
        scores: A score for each seed.

    Returns:
        A dict as in `metrics`.
    """
    benefits = [score.benefit(beta) for score in scores]
    return {
        "beta": beta,
        "benefit": float(np.mean(benefits)),
        "benefit_std": float(np.std(benefits)),
        "accuracy": float(np.mean([s.accuracy for s in scores])),
        "mean_cost": float(np.mean([s.mean_cost for s in scores])),
        "exit_rates": np.mean([s.exit_rates for s in scores], axis=0).tolist(),
        "seeds": len(scores),
    }


def table(metrics: dict) -> str:
    """The policies side by side, losses as well as wins.

    Args:
        metrics: As `metrics` returns it.

    Returns:
        Lines for a terminal.
    """
    unit, full = metrics["cost_unit"], metrics["full_cost"]
    lines = [
        f"{metrics['dataset']}: test set, full network "
        f"{metrics['full_macs'] / 1e6:.2f} M multiply-adds"
        + ("" if unit == units.MACS else f", {units.shown(full, unit)}"),
        f"{'beta':>8}  {'policy':20}{'benefit':>15}{'accuracy':>10}"
        f"{'mean ' + units.name(unit):>12}{'of full':>9}",
    ]
    for i, learned in enumerate(metrics["policies"]["epnet"]):
        points = learned["beta"] * full
        lines.append(
            f"{learned['beta']:8.1e}  running all of the network costs {points:.3g} "
            "points"
        )
        for name, rows in metrics["policies"].items():
            lines.append(_line(name, rows[i], full, unit))
        lines.append(_verdict(metrics, i, learned))
    return "\n".join(lines)


def _line(name: str, row: dict, full: float, unit: str) -> str:
    spread = f" ±{row['benefit_std']:5.2f}" if row["seeds"] > 1 else " " * 7
    return (
        f"{row['beta']:8.1e}  {name:20}{row['benefit']:8.2f}{spread}"
        f"{row['accuracy']:10.2%}{units.shown(row['mean_cost'], unit):>12}"
        f"{row['mean_cost'] / full:9.1%}"
    )


def _verdict(metrics: dict, i: int, learned: dict) -> str:
    others = {
        k: v[i]["benefit"] for k, v in metrics["policies"].items() if k != "epnet"
    }
    dedicated = others.pop("epnet-dedicated", None)
    best = max(others, key=lambda name: others[name])
    gap = learned["benefit"] - others[best]
    word = "wins" if gap >= 0 else "LOSES"
    line = f"{'':10}epnet {word} against {best} by {abs(gap):.2f} points\n"
    if dedicated is not None:
        gap = learned["benefit"] - dedicated
        line += f"{'':10}one model for the range against this β alone: {gap:+.2f}\n"
    return line
