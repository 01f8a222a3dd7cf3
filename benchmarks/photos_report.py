"""What benchmarks/photos.py found, as Markdown and a picture."""

import json
import pathlib
import re
from collections.abc import Sequence

import keras
import numpy as np
from matplotlib.figure import Figure

from epnet_tf import data, policies
from epnet_tf.conversion import report
from epnet_tf.evaluation import figures
from epnet_tf.evaluation.markdown import table
from epnet_tf.experiments.config import load_dataset, read_settings
from epnet_tf.experiments.experiment import model_file
from epnet_tf.files import write_whole
from epnet_tf.model import EPNet, ExitStates, compute_states
from epnet_tf.runtime.bundle import Manifest, read_manifest


def cheapest_within_a_point(
    trained: pathlib.Path, betas: Sequence[float]
) -> tuple[float, ExitStates]:
    """Chooses the β that spends least and loses at most a point, on validation images.

    Args:
        trained: Folder of train.py.
        betas: The β that it has models for.

    Returns:
        The β (the least, if none loses so little), and the validation states.
    """
    split = _dataset(trained).validation
    states = validation_states(_load(trained, betas[0]), split)
    last = states.correct[:, -1].mean()
    fitting = [min(betas)]
    for beta in betas:
        score = policies.score(policies.epnet(_load(trained, beta)), states)
        if score.accuracy >= last - 0.01:
            fitting.append(beta)
    return max(fitting), states


def validation_states(model: EPNet, split: data.Split) -> ExitStates:
    """Exit states of a split."""
    return compute_states(model, split.images, split.labels, verbose=0)


def write(
    results: pathlib.Path,
    trained: pathlib.Path,
    bundle: pathlib.Path,
    states: ExitStates,
    commands: Sequence[Sequence[str]],
) -> None:
    """Measures what is left to measure, and writes `report.md` and its picture.

    Args:
        results: Folder for them.
        trained: Folder of train.py.
        bundle: The int8 bundle of one of its models.
        states: Its validation states.
        commands: What was run.
    """
    metrics = json.loads((trained / "metrics.json").read_text())
    dataset, manifest = _dataset(trained), read_manifest(bundle)
    model = _load(trained, manifest.policy.beta)
    before = _frozen_states(trained, model, dataset.validation)
    results.mkdir(parents=True, exist_ok=True)
    figures.save(
        _accuracy_against_macs(metrics, manifest),
        results / "accuracy-against-macs.png",
    )
    parts = [
        "# Photos: a network that is good already\n",
        _introduction(dataset, commands),
        "## Aims\n",
        _aims(metrics, manifest),
        "## Exits\n",
        _exits(metrics, before, states),
        "## Policies\n",
        _policies(metrics),
        "![Accuracy for compute](accuracy-against-macs.png)\n",
        "## int8\n",
        _int8(bundle),
    ]
    with write_whole(results / "report.md") as path:
        path.write_text("\n".join(parts), encoding="utf-8")


def compared(points: float) -> str:
    """How much more or less accurate something is, in words.

    Args:
        points: Its accuracy less that of the other, in percentage points.
    """
    if abs(points) < 0.005:
        return "as accurate"
    return f"{abs(points):.2f} points {'more' if points > 0 else 'less'}"


def shipped_rows(metrics: dict) -> list[dict]:
    """What the policy that is shipped for each β does on test images.

    Args:
        metrics: As in `metrics.json`.

    Returns:
        For each β the row of its policy.
    """
    return [
        metrics["policies"][choice["policy"]][i]
        for i, choice in enumerate(metrics["shipped"])
    ]


def _load(trained: pathlib.Path, beta: float) -> EPNet:
    return keras.saving.load_model(model_file(trained, beta))


def _dataset(trained: pathlib.Path) -> data.Dataset:
    return load_dataset(read_settings(trained / "config.json"), None)


def _frozen_states(trained: pathlib.Path, model: EPNet, split) -> ExitStates:
    """States of the exits that were kept, as they were before fine-tuning."""
    frozen = keras.saving.load_model(trained / "frozen.keras")
    return validation_states(frozen.with_exits(model.exit_layers[:-1]), split)


def _introduction(dataset: data.Dataset, commands) -> str:
    height, width, _ = dataset.image_shape
    parts = dataset.train, dataset.validation, dataset.test
    train, validation, test = (f"{len(part):,}" for part in parts)
    lines = "\n".join(" ".join(["python", *map(str, c)]) for c in commands)
    return (
        "EfficientNet-Lite0 with its ImageNet weights, on CIFAR-10 as JPEGs of "
        f"{height}×{width} pixels: {train} training images, {validation} to tune on, "
        f"{test} for the table. Made by `benchmarks/photos.py`, which ran\n\n"
        f"```sh\n{lines}\n```\n"
    )


def _aims(metrics: dict, manifest: Manifest) -> str:
    last = 100.0 * metrics["exits"][-1]["accuracy"]
    found = manifest.metrics.test.float
    share = found.mean_macs / manifest.full_macs
    lost = last - 100.0 * found.accuracy
    cost = manifest.metrics.cost
    times = {time.name: time.mean_milliseconds for time in cost.times}
    clock = times["segments with early termination"] / times["plain network"]
    more = cost.whole_bytes / cost.plain_bytes - 1
    rows = [
        [
            "94% right at the last exit, fine-tuned",
            f"{last:.2f}%",
            _verdict(last >= 94.0),
        ],
        [
            "within a point of it at 50% of the MACs (β chosen on validation images)",
            f"{compared(-lost)} at {share:.1%}",
            _verdict(lost <= 1.0 and share <= 0.5),
        ],
        [
            "the same at 55% of the plain network's milliseconds, int8",
            f"{clock:.1%}",
            _verdict(lost <= 1.0 and clock <= 0.55),
        ],
        [
            f"{len(manifest.segments)} exits for 6% of the plain network's bytes, int8",
            f"{more:.1%}",
            _verdict(more <= 0.06),
        ],
    ]
    return table(["aim", "found", ""], rows)


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def _exits(metrics: dict, before: ExitStates, after: ExitStates) -> str:
    rows = [
        [
            str(number),
            f"`{exit['layer']}`",
            f"{exit['cumulative_macs'] / metrics['full_macs']:.1%}",
            f"{frozen:.1%}",
            f"{tuned:.1%}",
            f"{exit['accuracy']:.2%}",
        ]
        for number, (exit, frozen, tuned) in enumerate(
            zip(
                metrics["exits"],
                before.correct.mean(axis=0),
                after.correct.mean(axis=0),
                strict=True,
            ),
            start=1,
        )
    ]
    head = ["exit", "layer", "MACs", "frozen", "fine-tuned", "test"]
    return (
        "Accuracy on validation images before and after fine-tuning, and on test "
        f"images.\n\n{table(head, rows)}"
    )


def _policies(metrics: dict) -> str:
    names = list(metrics["policies"])
    rows = []
    for i, learned in enumerate(metrics["policies"]["epnet"]):
        beta = learned["beta"]
        points = f"{beta:g} ({beta * metrics['full_macs']:.3g} points)"
        cells = [f"`{metrics['shipped'][i]['policy']}`"]
        for name in names:
            row = metrics["policies"][name][i]
            share = row["mean_cost"] / metrics["full_macs"]
            cells.append(f"{row['benefit']:.2f}; {row['accuracy']:.2%} at {share:.0%}")
        rows.append([points, *cells])
    head = ["β (running it all)", "shipped", *(f"`{name}`" for name in names)]
    return (
        "On test images: benefit in points; accuracy, and share of the plain network's "
        "multiply-adds. What is shipped is decided on validation images.\n\n"
        f"{table(head, rows)}"
    )


def _accuracy_against_macs(metrics: dict, manifest: Manifest) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    full = metrics["full_macs"]

    def draw(rows, macs: str, label: str, **style):
        points = sorted((100 * r[macs] / full, 100 * r["accuracy"]) for r in rows)
        axes.plot(*np.transpose(points), label=label, **style)

    exits = metrics["exits"]
    draw(exits, "cumulative_macs", "each exit for all", color="0.5", marker="|", ls=":")
    for name, style in (
        ("softmax-gate-tuned", {"color": "#2171b5", "marker": "v"}),
        ("softmax-per-exit", {"color": "#31a354", "marker": "^"}),
        ("epnet", {"color": "#d62728", "marker": "o", "lw": 2.2}),
    ):
        draw(metrics["policies"][name], "mean_cost", name, **style)
    ring = {"color": "black", "marker": "o", "ms": 12, "mfc": "none", "ls": "none"}
    draw(shipped_rows(metrics), "mean_cost", "shipped", **ring)
    axes.set(
        xlabel="mean multiply-adds of an image (% of the plain network)",
        ylabel="accuracy on test images (%)",
        title=f"{manifest.name}: accuracy for compute",
        xlim=(0, None),
        ylim=(100 * exits[-1]["accuracy"] - 30, None),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _int8(bundle: pathlib.Path) -> str:
    """What the bundle's own report says of it beside the plain network."""
    text = (bundle / report.REPORT).read_text(encoding="utf-8")
    sections = re.split("^## ", text, flags=re.MULTILINE)
    (found,) = (s for s in sections if s.startswith("Beside the plain network"))
    return found.partition("\n\n")[2]
