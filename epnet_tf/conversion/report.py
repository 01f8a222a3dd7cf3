"""The report of a conversion for reading: `report.md` and `report.png` in a bundle."""

import os
import pathlib
from collections.abc import Iterator

from epnet_tf.conversion import measure, report_figure
from epnet_tf.evaluation import figures
from epnet_tf.evaluation.markdown import table
from epnet_tf.runtime import units
from epnet_tf.runtime.bundle import Manifest
from epnet_tf.runtime.metrics import BeforeRefit, Cost, Metrics, PolicyMetrics, measured

REPORT = "report.md"
FIGURE = "report.png"
# What stands at the end of every report.
_WORDS = """## Words

- **plain network**: the same network without exits, quantized alike: what the bundle is
  to be better than.
- **accuracy**: share of right answers. Of an exit: on all images, as if all left there.
- **MACs**: multiply-adds of an image, those of the exits that it passes included. **of
  full**: as a share of the plain network's.
- **benefit**: percentage points of accuracy, less β for each multiply-add, or unit of
  another cost, of the mean image. **β**, the cost sensitivity, says how many points one
  is worth.
- **exit rate**: share of the images that leave through an exit.
- **same exit**, **same label**, **both**: shares of the images that the bundle treats
  as the Keras model does.
- **confidence shift**: how much larger an exit's largest probability is in the bundle
  than in the Keras model, mean over all images.
- **benefit lost**: by images that leave the bundle there, against the Keras model;
  summed over the exits, the whole loss.
- **bundle before refit**: quantized without fitting heads to the quantized network
  anew.
- **time**: of one image on one thread of the machine that converted; all ran in turn.
  The mean counts easy and hard images as they come; the median is that of a typical
  one.
- **in one piece**: all exits computed, nothing left out. **segments**: a file for each
  exit; in a row, all of them, or with early termination, as in use.
"""
# Points of benefit; who loses more is warned.
_TOLERATED = 0.5


def write(manifest: Manifest, folder: str | os.PathLike) -> None:
    """Writes `report.md` and `report.png` into a bundle.

    Args:
        manifest: The manifest, with metrics.
        folder: The bundle.
    """
    (pathlib.Path(folder) / REPORT).write_text(text(manifest), encoding="utf-8")
    figure = report_figure.draw(manifest)
    figures.save(figure, pathlib.Path(folder) / FIGURE)


def warnings(metrics: Metrics | None) -> list[str]:
    """What the user has to know: benefit that the conversion lost.

    Args:
        metrics: From `epnet.json`.

    Returns:
        A sentence for each set of images with a drop of more than half a point.
    """
    sentences = []
    for name, found in measured(metrics).items():
        drop = found.float.benefit - found.bundle.benefit
        lost = found.lost or ()
        if drop > _TOLERATED and lost:
            worst = lost.index(max(lost))
            sentences.append(
                f"The bundle's benefit on the {name} images is {drop:.2f} points below "
                f"the Keras model's ({found.bundle.benefit:.2f} after "
                f"{found.float.benefit:.2f}); {lost[worst]:.2f} of them are lost "
                f"by images that leave through exit {worst + 1}."
            )
    return sentences


def text(manifest: Manifest) -> str:
    """The report.

    Args:
        manifest: The manifest, with metrics.

    Returns:
        Markdown.
    """
    sections = [f"# {manifest.name}: float32 and {manifest.quantization}\n"]
    sections += [f"**{sentence}**\n" for sentence in warnings(manifest.metrics)]
    if manifest.policy.confidence is not None:
        thresholds = ", ".join(f"{c:.4f}" for c in manifest.policy.confidence)
        sections.append(
            "An image leaves where its largest probability is above the exit's "
            f"threshold: {thresholds}.\n"
        )
    found = measured(manifest.metrics)
    if manifest.metrics and manifest.metrics.cost:
        images, metrics = list(found.items())[-1]
        sections.append(_beside_plain(manifest, manifest.metrics.cost, images, metrics))
    for name, metrics in found.items():
        sections += [
            f"## {metrics.images:,} {name} images, β = {metrics.beta:g}\n",
            _policies(manifest, metrics),
            _exits(manifest, metrics),
        ]
    if manifest.metrics and manifest.metrics.cost:
        sections += ["## Size and time\n", _cost(manifest, manifest.metrics.cost)]
    sections.append(f"![Accuracy, exit rates and confidence by exit]({FIGURE})\n")
    sections.append(_WORDS)
    return "\n".join(sections)


def _beside_plain(manifest: Manifest, cost: Cost, images: str, metrics: Metrics) -> str:
    """The bundle beside the network that it is made of; nothing in old bundles."""
    if cost.plain_bytes is None or cost.whole_bytes is None:
        return ""
    times = {time.name: time.mean_milliseconds for time in cost.times}
    last = (metrics.bundle.exit_accuracy or (0.0,))[-1]
    all_exits = float(manifest.cumulative_macs[-1])

    def row(name: str, accuracy: float, macs: float, size: int, timed: str):
        share, millions = f"{accuracy:.2%}", f"{macs / 1e6:.2f} M"
        return [name, share, millions, f"{size:,}", f"{times[timed]:.3f} ms"]

    plain, whole = (
        f"plain network, {_precision(manifest)}",
        "with all exits, none taken",
    )
    rows = [
        row(plain, last, manifest.full_macs, cost.plain_bytes, measure.PLAIN),
        row(whole, last, all_exits, cost.whole_bytes, measure.whole_name(manifest)),
    ]
    early = metrics.bundle.accuracy, metrics.bundle.mean_macs
    if manifest.segments:
        size = sum(entry.bytes for entry in manifest.segments)
        rows.append(row("bundle: segments", *early, size, measure.EARLY))
    if manifest.model:
        name, size = f"bundle: {manifest.model.file}", manifest.model.bytes
        rows.append(row(name, *early, size, measure.ONE_FILE))
    head = ["", f"accuracy, {images} images", "mean MACs", "bytes", "mean time"]
    return "## Beside the plain network\n\n" + table(head, rows)


def _precision(manifest: Manifest) -> str:
    return "float32" if manifest.quantization == "none" else manifest.quantization


def _policies(manifest: Manifest, metrics: Metrics) -> str:
    unit = manifest.paid_unit
    paid = [] if unit == units.MACS else [f"mean {unit}"]
    head = ["", "accuracy", "benefit", "mean MACs", *paid, "of full"]
    rows = [[*_policy(manifest, "Keras model, float32", metrics.float), "", "", ""]]
    if metrics.before_refit:
        before = metrics.before_refit
        rows.append(_policy(manifest, "bundle before refit", before.bundle, before))
    rows.append(_policy(manifest, "bundle", metrics.bundle, metrics))
    return table([*head, "same exit", "same label", "both"], rows)


def _policy(
    manifest: Manifest,
    name: str,
    policy: PolicyMetrics,
    same: Metrics | BeforeRefit | None = None,
) -> list[str]:
    agreement = (same.same_exit, same.same_label, same.same_answer) if same else ()
    cost, unit = policy.mean_cost, manifest.paid_unit
    return [
        name,
        f"{policy.accuracy:.2%}",
        f"{policy.benefit:.2f}",
        f"{policy.mean_macs / 1e6:.2f} M",
        *([] if cost is None else [units.shown(cost, unit)]),
        f"{policy.mean_paid / manifest.paid_in_full:.1%}",
        *("" if share is None else f"{share:.1%}" for share in agreement),
    ]


def _exits(manifest: Manifest, metrics: Metrics) -> str:
    head = ["exit", "after", "accuracy, float32", "bundle", "exit rate, float32"]
    head += ["bundle", "confidence shift (points)", "benefit lost (points)"]
    return table(head, list(_exit_rows(manifest, metrics)))


def _exit_rows(manifest: Manifest, metrics: Metrics) -> Iterator[list[str]]:
    ours, theirs = metrics.bundle, metrics.float
    shift, lost = metrics.confidence_shift or (), metrics.lost or ()
    columns = zip(
        manifest.exits,
        theirs.exit_accuracy or (),
        ours.exit_accuracy or (),
        theirs.exit_rates,
        ours.exit_rates,
        shift,
        lost,
        strict=True,
    )
    for number, (exit, *shares, moved, less) in enumerate(columns, start=1):
        yield [
            str(number),
            f"`{exit.layer}`",
            *(f"{share:.2%}" for share in shares),
            f"{100 * moved:+.2f}",
            f"{less:+.3f}",
        ]


def _cost(manifest: Manifest, cost: Cost) -> str:
    rows = [
        [time.name, f"{time.milliseconds:.3f} ms", f"{time.ratio:.2f}"]
        for time in cost.times
    ]
    same = "segments" if manifest.segments else "one file"
    size = (
        f"{cost.bundle_bytes / 1e6:.2f} MB, "
        f"{cost.bundle_bytes / cost.float_bytes:.2f} of the same {same} in float32"
    )
    if manifest.segments and manifest.model:
        size += f"; {manifest.model.file} has {manifest.model.bytes / 1e6:.2f} MB"
    return (
        f"{size}. "
        "Time for an image on one thread, median; all ran in turn.\n\n"
        + table(["", "time", "of float32"], rows)
    )
