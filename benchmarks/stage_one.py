"""What ways to train stage one are worth, each against the plain sum, in one run.

    python benchmarks/stage_one.py --folder=models/cifar10/paper --workdir=runs/one

Every option goes on from the trained main branch of the folder, with new branch
classifiers, by the same schedule, seed and images. The table, `stage_one.md` in
--results, has each exit's accuracy on the validation images, and, for three β, the
benefit of a softmax threshold per exit, tuned on four fifths of these images and scored
on the rest, five times. Rows are kept in the workdir with the networks: run again, it
resumes.
"""

import functools
import json
import pathlib

import begun
import keras
from absl import flags
from keras import layers, ops

from epnet_tf import cli, data, policies
from epnet_tf.evaluation import markdown
from epnet_tf.files import write_whole
from epnet_tf.model import (
    BranchClassifier,
    EPNet,
    ExitStates,
    PaperClassifier,
    compute_states,
)
from epnet_tf.model.cost import ExitCosts
from epnet_tf.model.loading import save_model
from epnet_tf.training import ClassifierTrainer

_FOLDER = flags.DEFINE_string("folder", None, "Folder of train.py to go on from.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the rows of the table.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_RESULTS = flags.DEFINE_string("results", "results", "Folder for the table.")
_EPOCHS = flags.DEFINE_integer("epochs", 3, "Epochs of each option.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.03, "Highest learning rate.")
_BETA = flags.DEFINE_multi_float("beta", [5e-7, 2.5e-6, 5e-6], "Cost sensitivities.")
_OPTION = flags.DEFINE_multi_string("option", None, "Options; default: all.")

# Distillation: temperature, as many recipes have it.
_TEMPERATURE = 3.0


class Distilled(ClassifierTrainer):
    """Every exit also follows the last one's softened probabilities, stopped."""

    def teacher(self, logits):
        """The logits to follow."""
        return logits[-1]

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The plain sum, and the exits' divergences from the teacher."""
        plain = super().compute_loss(x, y, y_pred, sample_weight, training)
        logits = self.logits(y_pred)
        wanted = ops.softmax(ops.stop_gradient(self.teacher(logits)) / _TEMPERATURE)
        divergences = [
            ops.categorical_crossentropy(wanted, z / _TEMPERATURE, from_logits=True)
            for z in logits[:-1]
        ]
        return plain + _TEMPERATURE**2 * self.mean_loss(sum(divergences), sample_weight)


class DistilledFromEnsemble(Distilled):
    """The teacher is the mean of all exits' logits."""

    def teacher(self, logits):
        """The ensemble's logits."""
        return sum(logits) / len(logits)


class Boosted(ClassifierTrainer):
    """The loss of an exit is on its logits added to the stopped sum of those before."""

    def logits(self, y_pred):
        """What the exits answer: the sum of the logits up to each."""
        own = super().logits(y_pred)
        sums = [own[0]]
        for z in own[1:]:
            sums.append(ops.stop_gradient(sums[-1]) + z)
        return sums


class MainBranchFirst(ClassifierTrainer):
    """For half of the steps the last exit alone is trained, then all of them."""

    def logits(self, y_pred):
        """Logits; those of the earlier exits have no gradient at first."""
        *earlier, last = super().logits(y_pred)
        # A half cosine is at half of its height after half of the steps.
        half = self.optimizer.learning_rate < _LEARNING_RATE.value / 2
        share = ops.cast(half, "float32")
        stopped = map(ops.stop_gradient, earlier)
        shown = [s + share * (z - s) for z, s in zip(earlier, stopped, strict=True)]
        return [*shown, last]


class Smoothed(ClassifierTrainer):
    """A tenth of each label is spread over all classes."""

    def targets(self, y):
        """Labels, smoothed."""
        return 0.9 * super().targets(y) + 0.1 / self.model.num_classes


def _cut_mix(num_classes):
    mix = layers.CutMix(seed=0)
    return lambda x, y: _parts(
        mix({"images": x, "labels": ops.one_hot(y, num_classes)}, training=True)
    )


def _parts(mixed):
    return mixed["images"], mixed["labels"]


def _rand_augment(num_classes):
    augment = layers.RandAugment((0, 255), num_ops=1, factor=0.3, seed=0)
    return lambda x, y: (augment(x, training=True), y)


# Option to branch classifiers, trainer, arguments of SGD, and what becomes of a batch.
OPTIONS = {
    "paper's heads": (PaperClassifier(), ClassifierTrainer, {}, None),
    "plain sum": (BranchClassifier(), ClassifierTrainer, {}, None),
    "equilibrium": (
        BranchClassifier(),
        functools.partial(ClassifierTrainer, equilibrium=True),
        {},
        None,
    ),
    "distillation": (BranchClassifier(), Distilled, {}, None),
    "from ensemble": (BranchClassifier(), DistilledFromEnsemble, {}, None),
    "boosting": (BranchClassifier(), Boosted, {}, None),
    "averaged weights": (
        BranchClassifier(),
        ClassifierTrainer,
        {"use_ema": True, "ema_momentum": 0.99},
        None,
    ),
    "main branch first": (BranchClassifier(), MainBranchFirst, {}, None),
    "label smoothing": (BranchClassifier(), Smoothed, {}, None),
    "CutMix": (BranchClassifier(), ClassifierTrainer, {}, _cut_mix),
    "RandAugment": (BranchClassifier(), ClassifierTrainer, {}, _rand_augment),
}


def main(_) -> None:
    """Trains with every option, and writes the table."""
    folder, workdir = pathlib.Path(_FOLDER.value), pathlib.Path(_WORKDIR.value)
    config, dataset = begun.begin_from(
        folder,
        workdir,
        _DATA_DIR.value,
        epochs=_EPOCHS.value,
        learning_rate=_LEARNING_RATE.value,
        betas=_BETA.value,
    )
    trained = keras.saving.load_model(folder / "classifiers.keras")
    rows = {}
    for option in _OPTION.value or OPTIONS:
        file = workdir / f"{option}.json"
        if not file.exists():
            model, row = _row(option, trained, dataset, config["schedule"])
            save_model(model, file.with_suffix(".keras"))
            with write_whole(file) as path:
                path.write_text(json.dumps(row))
        rows[option] = accuracies, benefits = json.loads(file.read_text())
        print(option, *(f"{v:.2f}" for v in (*accuracies, *benefits)), flush=True)
    with write_whole(pathlib.Path(_RESULTS.value) / "stage_one.md") as path:
        path.write_text(_text(rows, trained.num_exits, config["dataset"]))


def _text(rows: dict, num_exits: int, dataset: str) -> str:
    """The table, as Markdown."""
    lines = []
    for option, (accuracies, benefits) in rows.items():
        cells = [f"{value:.1f}" for value in accuracies]
        lines.append([option, *cells, *(f"{value:.2f}" for value in benefits)])
    head = ["", *map(str, range(1, num_exits + 1)), *(f"β={b:g}" for b in _BETA.value)]
    return (
        f"# Ways to train stage one, {dataset}\n\nEach for {_EPOCHS.value} epochs "
        f"(highest learning rate {_LEARNING_RATE.value:g}) from the same trained main "
        "branch, with new branch classifiers, in one run of `benchmarks/stage_one.py`. "
        "On validation images: per cent that each exit is right on, and the benefit of "
        "a softmax threshold per exit, tuned and scored on different ones.\n\n"
        + markdown.table(head, lines)
    )


def _row(option: str, trained: EPNet, dataset: data.Dataset, schedule: dict):
    """Trains with one option; the network, accuracies of the exits, and benefits."""
    classifier, trainer_class, optimizer, change = OPTIONS[option]
    keras.utils.set_random_seed(0)
    model = trained.with_new_classifiers(classifier)
    steps = data.steps_per_epoch(dataset.train, schedule["batch_size"])
    trainer = trainer_class(model)
    trainer.compile(
        begun.going_on(
            _LEARNING_RATE.value, steps * _EPOCHS.value, schedule, **optimizer
        )
    )
    batches = data.training_pipeline(
        dataset.train,
        schedule["batch_size"],
        seed=0,
        augment=dataset.augment,
        recompose=dataset.recompose if schedule["recompose"] else None,
    )
    if change is not None:
        batches = batches.map(change(dataset.num_classes)).prefetch(2)
    trainer.fit(
        batches,
        steps_per_epoch=steps,
        epochs=_EPOCHS.value,
        shuffle=False,
        verbose=0,
    )
    validation = dataset.validation
    states = compute_states(model, validation.images, validation.labels, verbose=0)
    if trainer_class is Boosted:
        states = type(states)(
            states.pooled, states.logits.cumsum(axis=1), states.labels
        )
    benefits = [_benefit(states, model.exit_costs, beta) for beta in _BETA.value]
    return model, [(100 * states.correct.mean(axis=0)).tolist(), benefits]


def _benefit(states: ExitStates, costs: ExitCosts, beta: float) -> float:
    """Of a softmax threshold per exit, tuned on some images, scored on others."""
    return policies.score_folded(
        lambda tuned: policies.softmax_per_exit(tuned, costs, beta), states
    ).benefit(beta)


if __name__ == "__main__":
    flags.mark_flags_as_required(["folder", "workdir"])
    cli.run(main)
