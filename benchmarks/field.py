"""Our exits on CIFAR-10 against the field's: accuracy for mean multiply-adds.

    python benchmarks/field.py --results=results

Writes `field.md` and `field.png`. Each --workdir is a folder that train.py filled, one
network of ours. Controllers are those that the evaluation keeps; for each budget, β and
the threshold are chosen on validation images, and what comes of them is told on the
test images, mean over seeds. A budget above what the whole network takes is one that it
does not use; below its first exit there is nothing to tell.
"""

import itertools
import pathlib

from absl import flags

from epnet_tf import cli

_WORKDIR = flags.DEFINE_multi_string(
    "workdir", ["models/cifar10"], "Folder that train.py filled."
)
_RESULTS = flags.DEFINE_string("results", "results", "Folder for what comes out.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")

# Millions of mean multiply-adds to accuracy in per cent: MSDNet, RANet (CVPR 2020,
# arXiv 2003.07326) and L2W-DEN (ECCV 2022, arXiv 2209.08310), read off the figures of
# yangle15/RANet-pytorch (imgs/dynamic_results.png) and LeapLabTHU/L2W-DEN
# (figs/result_cifar.jpg); EPNet, from the paper's text.
FIELD = {
    "MSDNet": {10: 91.9, 20: 93.2},
    "RANet": {20: 92.9},
    "L2W-DEN": {10: 92.3, 20: 94.4},
    "EPNet (paper)": {10.19: 88.61},
}
BUDGETS = (5, 10, 20)
MORE_BUDGETS = (3, 7, 14)  # For the picture.

# Names of networks of ours, two of which may be alike, each with what
# `controller_tables.within` says of each budget, in millions.
Found = list[tuple[str, dict[int, dict]]]


def main(_) -> None:
    """Scores ours at every budget; writes table and picture."""
    # Not before the flags are known to be right: this takes seconds.
    from epnet_tf.evaluation import figures
    from epnet_tf.experiments import case, controller_tables
    from epnet_tf.files import write_whole

    results = pathlib.Path(_RESULTS.value)
    found: Found = []
    for workdir in _WORKDIR.value:
        ours = case.load_case(workdir, _DATA_DIR.value, verbose=0)
        cheapest = ours.model.exit_costs.with_controllers[0]
        of_budget = {
            budget: controller_tables.within(ours, 1e6 * budget)
            for budget in sorted({*BUDGETS, *MORE_BUDGETS})
            if 1e6 * budget >= cheapest
        }
        found.append((ours.schedule.backbone, of_budget))
    with write_whole(results / "field.md") as path:
        path.write_text(text(found))
    figures.save(picture(found), results / "field.png")
    print(text(found))


def text(found: Found) -> str:
    """The table, and how far ours is from MSDNet.

    Args:
        found: What ours reach.

    Returns:
        Markdown.
    """
    from epnet_tf.evaluation import markdown

    rows = [
        [f"ours, {name}", *(_cell(of_budget.get(b)) for b in BUDGETS)]
        for name, of_budget in found
    ]
    rows += [
        [name, *(f"{points[b]:.1f}" if b in points else "" for b in BUDGETS)]
        for name, points in FIELD.items()
        if points.keys() & set(BUDGETS)
    ]
    best = {b: max(of[b]["accuracy"] for _, of in found) for b in FIELD["MSDNet"]}
    gaps = [f"{FIELD['MSDNet'][b] - best[b]:.1f} points at {b} M" for b in best]
    return (
        "# Against the field, CIFAR-10\n\n"
        "Accuracy in per cent at mean multiply-adds of an image; in brackets what the "
        "test images took. MSDNet, RANet and L2W-DEN are read off their authors' "
        "figures, to about 0.1; they are tuned on other splits of the training images "
        "than ours, and train for 300 epochs.\n\n"
        + markdown.table(["", *(f"{b} M" for b in BUDGETS)], rows)
        + f"\nThe best of ours is below MSDNet by {' and '.join(gaps)}.\n\n"
        "![Accuracy for mean multiply-adds](field.png)\n"
    )


def _cell(found: dict | None) -> str:
    if found is None:
        return ""
    return f"{found['accuracy']:.2f} ({found['mean_cost'] / 1e6:.2f} M)"


def picture(found: Found):
    """Accuracy against mean multiply-adds, ours and theirs.

    Args:
        found: What ours reach.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for (name, of), line in zip(found, itertools.cycle(("-", "--", ":"))):
        ours = sorted((f["mean_cost"] / 1e6, f["accuracy"]) for f in of.values())
        x, y = zip(*ours, strict=True)
        axes.plot(
            x, y, line, color="#d62728", marker="o", lw=2.4, label=f"ours, {name}"
        )
    # The paper's lies on ours: dark, and in front.
    looks = zip("s^DX", ("tab:blue", "tab:orange", "tab:green", "black"), strict=True)
    for (name, points), (marker, color) in zip(FIELD.items(), looks, strict=True):
        x, y = zip(*points.items(), strict=True)
        line = "-" if len(points) > 1 else ""
        axes.plot(x, y, line, marker=marker, color=color, label=name, zorder=3)
    axes.set(
        xlabel="mean multiply-adds (millions)",
        ylabel="accuracy (%)",
        title="CIFAR-10: early exits against the field",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    cli.run(main)
