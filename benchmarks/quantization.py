"""What every quantization does to size, time and policy; a table for each data set.

    python benchmarks/quantization.py --workdir=models/maxmin --workdir=models/cifar10

Each folder is one that `train.py` has filled. `int8` is measured at three β, the other
modes at the one in the middle. The folder's models for these β are taken; where there
is none, controllers are trained on the states of the training images. All is measured
on the test images, and written to `results/quantization.md`, where sections of other
data sets stay.
"""

import dataclasses
import pathlib
import re
import tempfile

import keras
from absl import flags

import epnet_tf
from epnet_tf import cli, data
from epnet_tf.evaluation.markdown import table
from epnet_tf.experiments.config import load_dataset, read_settings
from epnet_tf.experiments.plans import plan_for
from epnet_tf.experiments.stage_two import model_file
from epnet_tf.files import write_whole
from epnet_tf.quantization import modes
from epnet_tf.runtime.bundle import Manifest
from epnet_tf.runtime.metrics import Metrics

_WORKDIR = flags.DEFINE_multi_string("workdir", None, "Folder that train.py filled.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_MODE = flags.DEFINE_multi_enum(
    "mode", list(modes.MODES), list(modes.MODES), "Quantization; default: all."
)
_BETA = flags.DEFINE_multi_float(
    "beta", [], "Three cost sensitivities; default: the folder's, or the plan's."
)
_RESULTS = flags.DEFINE_string("results", "results/quantization.md", "What to write.")

_MIDDLE = 1  # Of three β.
_INTRODUCTION = """# Quantization

Made by `python benchmarks/quantization.py`, on the test images. Size is that of all
segments, time that of the model in one piece and of all segments in a row, without
early termination, on one thread, both as shares of float32, whose time is that of the
model in one piece. Agreement is with the float32 Keras model.
"""
_HEAD = ("quantization", "β", "size", "time", "segments", "accuracy")
_HEAD += ("benefit, float32", "before refit", "bundle")
_HEAD += ("same exit", "same label", "both", "both before refit")


@dataclasses.dataclass(frozen=True)
class Aim:
    """What int8 is to reach, and how far it came at each β.

    Attributes:
        text: What it is.
        found: Numbers.
        reached: Whether all of them will do.
    """

    text: str
    found: list[str]
    reached: bool


def main(_) -> None:
    """Converts, measures, writes."""
    if len(_BETA.value) not in (0, 3):
        raise ValueError(f"Expected three --beta, or none. Received: {_BETA.value}.")
    results = pathlib.Path(_RESULTS.value)
    for workdir in _WORKDIR.value:
        section = measured(pathlib.Path(workdir))
        text = (
            results.read_text(encoding="utf-8") if results.exists() else _INTRODUCTION
        )
        with write_whole(results) as path:
            path.write_text(with_section(text, section), encoding="utf-8")
    print(results)


def with_section(text: str, section: str) -> str:
    """A Markdown text with one section put in, instead of an older one of its name."""
    introduction, *sections = re.split("^(?=## )", text, flags=re.MULTILINE)
    by_title = {s.splitlines()[0]: s.rstrip("\n") for s in (*sections, section)}
    return "\n\n".join([introduction.rstrip("\n"), *by_title.values()]) + "\n"


def measured(workdir: pathlib.Path) -> str:
    """The section of one data set, with its title."""
    config = read_settings(workdir / "config.json")
    dataset = load_dataset(config, _DATA_DIR.value)
    found: dict[str, list[Manifest]] = {mode: [] for mode in _MODE.value}
    for number, model in enumerate(models(workdir, config, dataset)):
        for mode in found:
            if mode != "int8" and number != _MIDDLE:
                continue
            found[mode].append(converted(model, dataset, mode))
            print(f"{dataset.name}:", *row(found[mode][-1]), flush=True)
    rows = [row(manifest) for of_mode in found.values() for manifest in of_mode]
    parts = [f"## {dataset.name}\n", table(_HEAD, rows)]
    if "int8" in found:
        verdicts = [
            [aim.text, ", ".join(aim.found), "reached" if aim.reached else "**missed**"]
            for aim in aims(found)
        ]
        parts.append(table(["aim", "found", ""], verdicts))
    return "\n".join(parts)


def models(workdir: pathlib.Path, config: dict, dataset: data.Dataset):
    """The trained models, one for each β."""
    betas = sorted(_BETA.value or config["betas"])
    if len(betas) != 3:
        planned = plan_for(config["dataset"]).betas
        betas = [planned[0], planned[len(planned) // 2], planned[-1]]
    missing = [beta for beta in betas if not model_file(workdir, beta).exists()]
    model = sweep = None
    if missing:
        model = keras.saving.load_model(workdir / "classifiers.keras")
        train = dataset.unseen()
        states = epnet_tf.compute_states(model, train.images, train.labels)
        epochs = config["schedule"]["controller_epochs"]
        sweep = epnet_tf.train_controllers(
            model, states, missing, seed=config["seed"], epochs=epochs, verbose=0
        )
    for beta in betas:
        if beta in missing:
            sweep.assign(missing.index(beta))
            yield model
        else:
            yield keras.saving.load_model(model_file(workdir, beta))


def converted(model: epnet_tf.EPNet, dataset: data.Dataset, mode: str) -> Manifest:
    """Converts as `convert.py` does; gives the manifest alone."""
    unseen = dataset.unseen()
    with tempfile.TemporaryDirectory() as folder:
        return epnet_tf.convert(
            model,
            modes.calibration_sample(dataset.train.images),
            pathlib.Path(folder) / "bundle",
            quantization=mode,
            training_data=(unseen.images, unseen.labels),
            evaluation_data=(dataset.test.images, dataset.test.labels),
        ).manifest


def row(manifest: Manifest) -> list[str]:
    """A mode at one β."""
    metrics = manifest.metrics
    before, cost = metrics.before_refit, metrics.cost
    return [
        manifest.quantization,
        f"{metrics.beta:g}",
        f"{cost.bundle_bytes / cost.float_bytes:.3f}",
        *(f"{time.ratio:.2f}" for time in cost.times[1:3]),
        f"{metrics.bundle.accuracy:.2%}",
        f"{metrics.float.benefit:.2f}",
        f"{before.bundle.benefit:.2f}" if before else "",
        f"{metrics.bundle.benefit:.2f}",
        f"{metrics.same_exit:.1%}",
        f"{metrics.same_label:.1%}",
        f"{metrics.same_answer:.1%}",
        f"{before.same_answer:.1%}" if before else "",
    ]


def aims(found: dict[str, list[Manifest]]) -> list[Aim]:
    """Whether int8, and qat beside it, come where we want them."""
    int8 = [manifest.metrics for manifest in found["int8"]]
    losses = [m.float.benefit - m.bundle.benefit for m in int8]
    same = [m.same_answer for m in int8]
    times = [m.cost.times[1].ratio for m in int8]
    sizes = [m.cost.bundle_bytes / m.cost.float_bytes for m in int8]
    reached = [
        Aim(
            "int8 loses at most 0.3 points of benefit",
            [f"{loss:+.2f}" for loss in losses],
            max(losses) <= 0.3,
        ),
        Aim(
            "int8 has the same exit and label for 98%",
            [f"{share:.1%}" for share in same],
            min(same) >= 0.98,
        ),
        Aim(
            "int8 is 3 times as fast",
            [f"{1 / ratio:.1f}" for ratio in times],
            max(times) <= 1 / 3,
        ),
        Aim(
            "int8 has 0.34 of the size",
            [f"{size:.3f}" for size in sizes],
            max(sizes) <= 0.34,
        ),
    ]
    if "qat" in found:
        qat: Metrics = found["qat"][0].metrics
        lead = qat.bundle.benefit - int8[_MIDDLE].bundle.benefit
        reached.append(Aim("qat is no worse than int8", [f"{lead:+.2f}"], lead >= 0))
    return reached


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
