"""Figures about exits: who leaves where, how right, how sure, and how it looks."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from epnet_tf.data import Split

_RIGHT, _WRONG = "#2ca02c", "#d62728"


def exit_profile(profile: Sequence[dict], dataset: str, beta: float) -> Figure:
    """Figure 9: accuracy of each exit on all and on those that left, and their share.

    Args:
        profile: As from `tables.exit_profile`.
        dataset: Name of the data set.
        beta: Cost sensitivity.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    numbers = np.arange(1, len(profile) + 1)
    rates = [100.0 * p["rate"] for p in profile]
    axes.bar(numbers, rates, color="0.82", label="left here")
    everyone = [100.0 * p["accuracy_all"] for p in profile]
    axes.plot(numbers, everyone, "o-", color="#1f77b4", label="accuracy on all images")
    some = [
        (n, 100.0 * p["accuracy_left"])
        for n, p in zip(numbers, profile, strict=True)
        if p["rate"] >= 0.001
    ]
    axes.plot(
        *zip(*some, strict=True),
        "s-",
        color="#d62728",
        label="accuracy on those that left here",
    )
    axes.set(
        xlabel="exit",
        ylabel="%",
        xticks=numbers,
        ylim=(0, 102),
        title=f"{dataset}: exits of epnet, β = {beta:g}",
    )
    axes.grid(alpha=0.3, axis="y")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def calibration(rows: Sequence[dict], dataset: str) -> Figure:
    """How far to trust each exit's confidence.

    Args:
        rows: As from `tables.calibration`.
        dataset: Name of the data set.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 100], [0, 100], color="0.6", lw=1)
    chosen = np.unique(np.linspace(0, len(rows) - 1, 4).round().astype(int))
    for i in chosen:
        left.plot(
            100.0 * np.array(rows[i]["confidence"]),
            100.0 * np.array(rows[i]["accuracy"]),
            "o-",
            ms=4,
            label=f"exit {i + 1}",
        )
    left.set(
        xlabel="confidence (%)",
        ylabel="accuracy (%)",
        title=f"{dataset}: confidence and accuracy",
    )
    left.grid(alpha=0.3)
    left.legend()
    numbers = np.arange(1, len(rows) + 1)
    right.bar(numbers, [100.0 * r["error"] for r in rows], color="#1f77b4")
    right.set(
        xlabel="exit",
        ylabel="mean distance (points)",
        xticks=numbers,
        title="calibration error",
    )
    right.grid(alpha=0.3, axis="y")
    return figure


def example_sheet(
    split: Split,
    labels: Sequence[str],
    exits: np.ndarray,
    predictions: np.ndarray,
    num_exits: int,
    columns: int = 10,
    seed: int = 0,
) -> Figure:
    """Images by the exit they left through; frames say whether the answer is right.

    Args:
        split: n images with labels.
        labels: Class names.
        exits: int [n], where each left, counted from 1.
        predictions: int [n], the answers.
        num_exits: Number of exits N.
        columns: Images of each exit, drawn at random.
        seed: Seed of the draw.

    Returns:
        The figure.
    """
    rng = np.random.default_rng(seed)
    used = [e for e in range(1, num_exits + 1) if (exits == e).any()]
    figure = Figure(figsize=(columns + 0.9, 1.22 * len(used)), layout="constrained")
    grid = figure.subplots(len(used), columns, squeeze=False)
    for row, number in zip(grid, used, strict=True):
        members = np.flatnonzero(exits == number)
        share = len(members) / len(exits)
        drawn = rng.permutation(members)[:columns]
        row[0].set_ylabel(
            f"exit {number}\n{share:.1%}", rotation=0, ha="right", va="center"
        )
        for axes, index in zip(row, drawn, strict=False):
            right = predictions[index] == split.labels[index]
            axes.imshow(_for_imshow(split.images[index]), cmap="gray", vmin=0, vmax=255)
            axes.set_title(
                labels[predictions[index]],
                fontsize=8,
                pad=2,
                color=_RIGHT if right else _WRONG,
            )
            for spine in axes.spines.values():
                spine.set(color=_RIGHT if right else _WRONG, linewidth=2)
            axes.set(xticks=[], yticks=[])
        for axes in row[len(drawn) :]:
            axes.set_axis_off()
    return figure


def _for_imshow(image: np.ndarray) -> np.ndarray:
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    return np.clip(pixels, 0, 255).astype("uint8")
