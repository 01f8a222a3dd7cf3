"""The figure of a conversion's report: float32 and bundle, exit by exit."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from epnet_tf.runtime.bundle import Manifest
from epnet_tf.runtime.metrics import Metrics, PolicyMetrics, measured

_BUNDLE = "#1f77b4"


def draw(manifest: Manifest) -> Figure:
    """Accuracy, exit rates and confidence shift of every exit.

    Args:
        manifest: The manifest, with metrics.

    Returns:
        The figure, a row of panels for each set of images.
    """
    sets = measured(manifest.metrics)
    figure = Figure(figsize=(13.5, 0.6 + 3.4 * len(sets)), layout="constrained")
    figure.suptitle(f"{manifest.name}: float32 and {manifest.quantization}")
    grid = figure.subplots(len(sets), 3, squeeze=False)
    for (accuracy, rates, shift), (name, metrics) in zip(
        grid, sets.items(), strict=True
    ):
        _accuracy(accuracy, metrics)
        _rates(rates, metrics)
        _shift(shift, metrics)
        accuracy.set_ylabel(f"{name} images (%)")
        for axes in (accuracy, rates, shift):
            axes.set(xlabel="exit", xticks=_numbers(metrics))
            axes.set_axisbelow(True)
            axes.grid(alpha=0.3, axis="y")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _accuracy(axes: Axes, metrics: Metrics) -> None:
    for name, (policy, color, line) in _policies(metrics).items():
        percent = 100 * np.array(policy.exit_accuracy)
        axes.plot(_numbers(metrics), percent, line, color=color, ms=4, label=name)
    axes.set_title("accuracy of each exit on all images")


def _rates(axes: Axes, metrics: Metrics) -> None:
    policies = _policies(metrics)
    width = 0.8 / len(policies)
    for i, (policy, color, _) in enumerate(policies.values()):
        rates = 100 * np.array(policy.exit_rates)
        aside = (i - (len(policies) - 1) / 2) * width
        axes.bar(_numbers(metrics) + aside, rates, width, color=color)
    axes.set(title="exit rate", ylabel="%")


def _shift(axes: Axes, metrics: Metrics) -> None:
    axes.axhline(0.0, color="0.3", lw=0.8)
    shift = 100 * np.array(metrics.confidence_shift)
    axes.bar(_numbers(metrics), shift, color=_BUNDLE)
    axes.set(title="mean confidence, bundle less float32", ylabel="points")


def _policies(metrics: Metrics) -> dict[str, tuple[PolicyMetrics, str, str]]:
    """What is drawn side by side: name to metrics, color and line."""
    drawn = {"Keras model, float32": (metrics.float, "#7f7f7f", "o-")}
    if metrics.before_refit:
        drawn["bundle before refit"] = (metrics.before_refit.bundle, "#aec7e8", "^:")
    return drawn | {"bundle": (metrics.bundle, _BUNDLE, "s--")}


def _numbers(metrics: Metrics) -> np.ndarray:
    return np.arange(1, len(metrics.bundle.exit_rates) + 1)
