"""Figures, drawn without a display."""

import os
from collections.abc import Mapping

import numpy as np
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
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    numbers = np.arange(1, num_exits + 1)
    for (name, group), marker in zip(exits.items(), "osD^vPX", strict=False):
        left = (group[:, None] <= numbers).mean(axis=0)
        axes.plot(numbers, 100 * left, marker=marker, label=f"{name} ({len(group):,})")
    axes.set(
        xlabel="exit",
        ylabel="images that have left (%)",
        xticks=numbers,
        ylim=(-2, 102),
        title=f"Where images leave, β = {beta:g}",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def save(figure: Figure, file: str | os.PathLike) -> None:
    """Writes a figure whole; the ending of the file's name says in which format."""
    with write_whole(file) as path:
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=120)
