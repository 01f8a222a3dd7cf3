"""Figures, drawn without a display."""

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from epnet_tf.files import write_whole


def cumulative_exit_rates(
    exits: Mapping[str, np.ndarray], num_exits: int, beta: float
) -> Figure:
    """Who has left by which exit (paper, Figures 7 and 8).

    Args:
        exits: For each group of images (a difficulty, say) the exit of every image,
            counted from 1.
        num_exits: Number of exits N.
        beta: Cost sensitivity, for the title.

    Returns:
        The figure.
    """
    return cumulative_exit_rate_panels({beta: exits}, num_exits)


def cumulative_exit_rate_panels(
    exits: Mapping[float, Mapping[str, np.ndarray]], num_exits: int
) -> Figure:
    """As `cumulative_exit_rates`, a panel for each β.

    Args:
        exits: For each β, for each group of images, the exit of every image, counted
            from 1.
        num_exits: Number of exits N.

    Returns:
        The figure.
    """
    width = 2.6 + 4.2 * len(exits)
    figure = Figure(figsize=(width, 4.0), layout="constrained")
    panels = figure.subplots(1, len(exits), sharey=True, squeeze=False)[0]
    for axes, (beta, groups) in zip(panels, exits.items(), strict=True):
        _draw_cumulative(axes, groups, num_exits)
        axes.set_title(f"Where images leave, β = {beta:g}")
    panels[0].set_ylabel("images that have left (%)")
    figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside right center")
    return figure


def save(figure: Figure, file: str | os.PathLike) -> None:
    """Writes a figure whole; the ending of the file's name says in which format."""
    with write_whole(file) as path:
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=120)


def _draw_cumulative(axes: Axes, exits: Mapping[str, np.ndarray], num_exits: int):
    numbers = np.arange(1, num_exits + 1)
    for (name, group), marker in zip(exits.items(), "osD^vPX", strict=False):
        left = (group[:, None] <= numbers).mean(axis=0)
        axes.plot(numbers, 100 * left, marker=marker, label=f"{name} ({len(group):,})")
    axes.set(xlabel="exit", xticks=numbers, ylim=(-2, 102))
    axes.grid(alpha=0.3)
