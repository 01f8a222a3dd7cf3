"""Controllers and exits for milliseconds against those for multiply-adds.

    python benchmarks/clock.py --workdir=models/maxmin --workdir=models/cifar10

Each folder is one that `train.py` has filled. What leaving through each exit takes is
measured on this machine: run it where nothing else runs. Controllers are trained for
three prices, at which running all of the plain network costs as many points in either
unit, once more with the exits that `select_exits` keeps under the measured costs, and
for two budgets in milliseconds. All is converted, without a refit, and runs on the test
images, one by one and in turn. A table and a picture for each data set go to
`results/clock`.
"""

import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Iterable, Sequence

import keras
import numpy as np
from absl import flags
from clock_report import (
    Contender,
    Run,
    budget_table,
    chain_table,
    exit_picture,
    exit_table,
    network_name,
    price_table,
)
from matplotlib.figure import Figure

import epnet_tf
from epnet_tf import cli, data, policies
from epnet_tf.conversion.timing import one_image, time_in_turn
from epnet_tf.data.streams import blocks
from epnet_tf.evaluation import figures, promises
from epnet_tf.experiments import promised
from epnet_tf.experiments.config import load_dataset, passes_for, read_settings
from epnet_tf.files import write_whole
from epnet_tf.model import EPNet, ExitStates, compute_states
from epnet_tf.quantization import modes
from epnet_tf.runtime import bundle, latency
from epnet_tf.runtime.cost_table import CostTable, read_costs
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.runner import SegmentRunner
from epnet_tf.tflite import joining

_WORKDIR = flags.DEFINE_multi_string("workdir", None, "Folder that train.py filled.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_RESULTS = flags.DEFINE_string("results", "results/clock", "Folder to write to.")
_BUNDLES = flags.DEFINE_string(
    "bundles", None, "Folder to keep the bundles in, for android_demo/build.sh clock."
)
_STATES = flags.DEFINE_integer(
    "states", 20_000, "Training images for controllers.", lower_bound=1
)
_IMAGES = flags.DEFINE_integer("images", 10_000, "Test images to run.", lower_bound=20)

_QUANTIZATION = "int8"
# What running all of the plain network costs at the three prices, in points.
_POINTS = (3, 10, 30)
_BUDGETS = ("45%", "30%")  # Of the plain network's time.
_EXITS = 8  # To keep at most.
_PASSES = 3  # Over the test images; of each image the median counts.


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with the states of its images.

    Attributes:
        dataset: The data set.
        model: The `EPNet`.
        train: States that controllers are trained on.
        validation: States of held-out images.
        epochs: Passes over the training states.
        folder: Where bundles go.
    """

    dataset: data.Dataset
    model: EPNet
    train: ExitStates
    validation: ExitStates
    epochs: int
    folder: pathlib.Path

    def with_exits(self, names: Sequence[str]) -> "Trained":
        """The same with some of its exits, whose states are among those of all."""
        model = self.model.with_exits(names)
        at = [self.model.exit_layers.index(layer) for layer in model.exit_layers]
        train, validation = (
            ExitStates(tuple(s.pooled[i] for i in at[:-1]), s.logits[:, at], s.labels)
            for s in (self.train, self.validation)
        )
        return dataclasses.replace(
            self, model=model, train=train, validation=validation
        )


def main(_) -> None:
    """Studies each folder, and writes its table and its picture."""
    results = pathlib.Path(_RESULTS.value)
    for workdir in _WORKDIR.value:
        with tempfile.TemporaryDirectory() as temporary:
            trained = load(workdir, pathlib.Path(_BUNDLES.value or temporary))
            text, figure = study(trained)
        name = trained.dataset.name
        with write_whole(results / f"{name}.md") as path:
            path.write_text(text)
        figures.save(figure, results / f"{name}.png")
        print(text, flush=True)


def load(workdir: str, folder: pathlib.Path) -> Trained:
    """Loads what `train.py` left, and computes the states of its images."""
    config = read_settings(pathlib.Path(workdir) / "config.json")
    dataset = load_dataset(config, _DATA_DIR.value)
    model = keras.saving.load_model(pathlib.Path(workdir) / "classifiers.keras")
    unseen, validation = dataset.unseen(), dataset.validation
    count = min(_STATES.value, len(unseen))
    train = compute_states(
        model, unseen.images[:count], unseen.labels[:count], verbose=0
    )
    held_out = compute_states(model, validation.images, validation.labels, verbose=0)
    folder = folder / dataset.name
    return Trained(dataset, model, train, held_out, passes_for(count), folder)


def study(trained: Trained) -> tuple[str, Figure]:
    """Measures, trains, converts and runs; gives the text and the picture."""
    model = trained.model
    costs = measured(trained, "all-exits")
    in_macs = [points / model.exit_macs.full for points in _POINTS]
    prices = {points: points / costs.full for points in _POINTS}
    in_ms = list(prices.values())
    found = {"MACs": contenders(trained, in_macs, "macs", costs)}
    model.costs = costs
    found["ms"] = contenders(trained, in_ms, "ms", costs)
    kept, refused = budgets(trained)
    names = policies.select_exits(model, trained.validation, in_ms, _EXITS)
    few = trained.with_exits(names)
    few.model.costs = measured(few, "chosen-exits")
    found["ms, exits too"] = contenders(few, in_ms, "chosen", few.model.costs)
    every = [contender for prices in found.values() for contender in prices]
    static = {contender.path: static_exit(contender, trained) for contender in every}
    promised_too = [contender for _, contender in kept]
    runs = run([*every, *promised_too], {*static.values(), model.num_exits}, trained)
    plain = runs[network_name(model.num_exits)]
    text = [
        f"# {trained.dataset.name}: controllers for milliseconds\n",
        f"{_QUANTIZATION}, without a refit, from Python, one thread. The plain network "
        f"takes {costs.full:.4f} ms by the measured costs, {plain.clock:.4f} ms among "
        f"the others, and is right on {plain.accuracy:.2%} of "
        f"{min(_IMAGES.value, len(trained.dataset.test)):,} test images.\n",
        exit_table(model, few.model),
        f"![Cost of each exit in both units]({trained.dataset.name}.png)\n",
        "## Benefit by the clock\n",
        price_table(found, prices, runs),
        "## The chain\n",
        chain_table(found, static, prices, runs),
        "## Budgets in milliseconds\n",
        budget_table(kept, runs),
        *refused,
    ]
    return "\n".join(text), exit_picture(
        model, few.model, f"{trained.dataset.name}, {_QUANTIZATION}"
    )


def measured(trained: Trained, name: str) -> CostTable:
    """What leaving through each exit takes here, whatever the controllers say."""
    trained.model.beta = 0.0
    runner = SegmentRunner(converted(trained, name))
    network = cut(trained.folder / name, trained.model.num_exits)
    report = latency.measure(runner, network, rounds=2000)
    file = trained.folder / f"{name}.json"
    file.write_text(json.dumps(report, indent=1))
    return read_costs(file)


def contenders(
    trained: Trained, betas: Sequence[float], name: str, costs: CostTable
) -> list[Contender]:
    """Bundles with controllers for each β, in the unit that the model has costs in."""
    sweep = epnet_tf.train_controllers(
        trained.model, trained.train, betas, epochs=trained.epochs, verbose=0
    )
    found = []
    for i, points in enumerate(_POINTS):
        sweep.assign(i)
        found.append(contender(trained, f"{name}-{points}", costs))
    return found


def budgets(trained: Trained) -> tuple[list[tuple[dict, Contender]], list[str]]:
    """Promises in milliseconds, chosen on validation images, and their bundles.

    Returns:
        The promises with their contenders, and what is said of those that nobody can
        keep.
    """
    model = trained.model
    sweeps, tried = promised.candidates(model, trained.train, trained.epochs, verbose=0)
    found, refused = [], []
    for i, text in enumerate(_BUDGETS):
        try:
            chosen = promises.choose(model, tried, trained.validation, [text])
        except ValueError as error:
            refused.append(f"{text}: {error}\n")
            continue
        for promise, choice in chosen:
            sweeps[choice.parameter].assign(beta=choice.parameter)
            found.append((promise, contender(trained, f"budget-{i + 1}", model.costs)))
    return found, refused


def contender(trained: Trained, name: str, costs: CostTable) -> Contender:
    """The model as it is."""
    score = policies.score(policies.epnet(trained.model), trained.validation)
    path = converted(trained, name)
    return Contender(path, np.array(costs.costs), score.accuracy)


def converted(trained: Trained, name: str) -> pathlib.Path:
    """The bundle of the model as it is."""
    return epnet_tf.convert(
        trained.model,
        modes.calibration_sample(trained.dataset.train.images),
        trained.folder / name,
        quantization=_QUANTIZATION,
        name=name,
        formats="segments",
        overwrite=True,
    ).path


def cut(folder: pathlib.Path, exit_number: int) -> bytes:
    """The network up to an exit, in one piece and without the exits before it."""
    segments = bundle.read_manifest(folder).segments
    contents = [bundle.read_tflite(folder, entry) for entry in segments]
    return joining.cut(joining.join(contents), [f"logits_{exit_number:02d}"])


def static_exit(contender: Contender, trained: Trained) -> int:
    """The exit, for all images, whose accuracy on validation images is nearest."""
    accuracies = trained.validation.correct.mean(axis=0)
    return int(np.abs(accuracies - contender.accuracy).argmin()) + 1


def run(
    found: Sequence[Contender], exits: Iterable[int], trained: Trained
) -> dict[str, Run]:
    """Runs all bundles, and the network up to some exits, image by image, in turn.

    Returns:
        By the names of the bundles and of the networks (`network_name`).
    """
    test = trained.dataset.test
    labels = test.labels[: _IMAGES.value]
    images = np.concatenate(list(blocks(test.images[: len(labels)], 256)))
    if _BUNDLES.value:
        write_images(trained.folder / "test_images", images, labels)
    runners = {c.path.name: SegmentRunner(c.path) for c in found}
    networks = {
        network_name(k): LiteRTModel(cut(trained.folder / "all-exits", k))
        for k in sorted(exits)
    }
    answers = {name: runner.predict(images) for name, runner in runners.items()}
    right = {name: answer.label == labels for name, answer in answers.items()}
    right |= {n: labels_of(model, images) == labels for n, model in networks.items()}
    entered = {name: runner.run_image for name, runner in runners.items()}
    entered |= {name: one_image(model) for name, model in networks.items()}
    passes = [
        time_in_turn(entered, images, rounds=len(images) // 10) for _ in range(_PASSES)
    ]
    expected = {
        c.path.name: c.milliseconds[answers[c.path.name].exit - 1].mean() for c in found
    }
    runs = {}
    for name in entered:
        seconds = np.median([timings[name].seconds for timings in passes], axis=0)
        runs[name] = Run(
            float(right[name].mean()),
            1e3 * float(seconds.mean()),
            1e3 * float(np.quantile(seconds, 0.9)),
            float(expected.get(name, 0.0)),
        )
    return runs


def write_images(folder: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes pixels and labels for other runtimes, as the app has its test images."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "images.bin").write_bytes(images.astype(np.uint8).tobytes())
    described = {"shape": list(images.shape[1:]), "labels": labels.tolist()}
    (folder / "images.json").write_text(json.dumps(described))


def labels_of(model: LiteRTModel, images: np.ndarray) -> np.ndarray:
    """The classes that a network in one piece names."""
    classify, (logits,) = one_image(model), model.outputs.values()
    labels = np.empty(len(images), int)
    for i, image in enumerate(images):
        classify(image)
        labels[i] = logits.argmax()
    return labels


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
