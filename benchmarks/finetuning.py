"""Whether main branch and heads trained on for the benefit are worth more.

    python benchmarks/finetuning.py --folder=models/cifar10 --workdir=runs/finetuning

After the controllers, all is trained on with each image's cross-entropies weighted by
the probability that it leaves there, floor + (1 − floor) · N · q_i with q stopped, and
controllers are trained anew. Against it stands as long a training with the plain sum:
floor 1. The table, `finetuning.md` in --results, has, for each β and floor, the exits'
accuracies on the validation images, and the benefit there of controllers (trained on
training images, varied anew) and of a softmax threshold per exit (tuned on four fifths,
scored on the rest, five times). Rows are kept in the workdir: run again, it resumes.
"""

import json
import pathlib

import begun
import keras
from absl import flags
from keras import ops

from epnet_tf import cli, data, objective, policies
from epnet_tf.evaluation import markdown
from epnet_tf.experiments.config import passes_for
from epnet_tf.files import write_whole
from epnet_tf.model import EPNet, compute_states
from epnet_tf.model.loading import save_model
from epnet_tf.training import ClassifierTrainer, train_controllers

_FOLDER = flags.DEFINE_string("folder", None, "Folder of train.py to go on from.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the rows of the table.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_RESULTS = flags.DEFINE_string("results", "results", "Folder for the table.")
_EPOCHS = flags.DEFINE_integer("epochs", 3, "Epochs of each row.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.01, "Highest learning rate.")
_BETA = flags.DEFINE_multi_float("beta", [2.5e-6, 5e-6], "Cost sensitivities.")
_FLOOR = flags.DEFINE_multi_float("floor", [1.0, 0.1], "Of the weights; 1: plain sum.")
_STATES = flags.DEFINE_integer(
    "states", 20_000, "Training images for controllers.", lower_bound=1
)


class BenefitTrainer(ClassifierTrainer):
    """Weighs each image's cross-entropies by where its controllers let it leave.

    Args:
        model: The `EPNet`, its controllers trained.
        floor: Weight of exits that an image never leaves through; 1 for the plain sum.
        **kwargs: Arguments of `ClassifierTrainer`.
    """

    def __init__(self, model: EPNet, floor: float, **kwargs):
        super().__init__(model, **kwargs)
        self.floor = floor

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The weighted sum of the exits' cross-entropies, mean over the batch."""
        targets, logits = self.targets(y), self.logits(y_pred)
        stops = [
            self.model.get_layer(f"controller_{i:02d}")(
                [y_pred[f"pooled_{i:02d}"], logits[i - 1]], training=False
            )
            for i in range(1, self.model.num_exits)
        ]
        q = ops.exp(objective.log_exit_distribution(ops.concatenate(stops, axis=-1)))
        spread = (1 - self.floor) * self.model.num_exits
        weights = self.floor + spread * ops.stop_gradient(q)
        losses = [
            ops.categorical_crossentropy(targets, z, from_logits=True) for z in logits
        ]
        return self.mean_loss(
            ops.sum(weights * ops.stack(losses, axis=-1), axis=-1), sample_weight
        )


def main(_) -> None:
    """For each β, as it is and with every floor; writes the table."""
    folder, workdir = pathlib.Path(_FOLDER.value), pathlib.Path(_WORKDIR.value)
    config, dataset = begun.begin_from(
        folder,
        workdir,
        _DATA_DIR.value,
        epochs=_EPOCHS.value,
        learning_rate=_LEARNING_RATE.value,
        states=_STATES.value,
    )
    wanted = [(beta, floor) for beta in _BETA.value for floor in (None, *_FLOOR.value)]
    rows = []
    for beta, floor in wanted:
        name = "before" if floor is None else f"floor {floor:g}"
        file = workdir / f"{name}, {beta:g}.json"
        if not file.exists():
            # The plain sum knows nothing of β.
            network = workdir / f"{name}{'' if floor == 1 else f', {beta:g}'}.keras"
            if not network.exists():
                model = keras.saving.load_model(folder / "classifiers.keras")
                if floor is not None:
                    _fine_tune(model, beta, floor, dataset, config["schedule"])
                save_model(model, network)
            row = _row(keras.saving.load_model(network), beta, dataset)
            with write_whole(file) as path:
                path.write_text(json.dumps(row))
        accuracies, controllers, thresholds = json.loads(file.read_text())
        cells = [*(f"{a:.1f}" for a in accuracies), f"{controllers:.2f}"]
        rows.append([f"{beta:g}", name, *cells, f"{thresholds:.2f}"])
        print(*rows[-1], flush=True)
    with write_whole(pathlib.Path(_RESULTS.value) / "finetuning.md") as path:
        path.write_text(_text(rows, config["dataset"]))


def _text(rows: list[list[str]], dataset: str) -> str:
    """The table, as Markdown."""
    exits = range(1, len(rows[0]) - 3)
    return (
        f"# Fine-tuning for the benefit, {dataset}\n\n{_EPOCHS.value} epochs more for "
        f"main branch and heads, highest learning rate {_LEARNING_RATE.value:g}, by "
        "`benchmarks/finetuning.py`: each image's cross-entropies weighted by the "
        "probability that it leaves there, above a floor; floor 1 is the plain sum. On "
        "validation images: per cent that each exit is right on, and the benefit of "
        "new controllers and of a softmax threshold per exit.\n\n"
        + markdown.table(["β", "", *map(str, exits), "controllers", "thresholds"], rows)
    )


def _row(model: EPNet, beta: float, dataset: data.Dataset):
    """Exits' accuracies, benefit of controllers and of thresholds."""
    _learn(model, beta, dataset)
    split = dataset.validation
    validation = compute_states(model, split.images, split.labels, verbose=0)
    return (
        (100 * validation.correct.mean(axis=0)).tolist(),
        policies.score(policies.epnet(model), validation).benefit(beta),
        policies.score_folded(
            lambda tuned: policies.softmax_per_exit(tuned, model.exit_costs, beta),
            validation,
        ).benefit(beta),
    )


def _learn(model: EPNet, beta: float, dataset: data.Dataset) -> None:
    """Trains controllers for a β, on training images, varied anew."""
    unseen = dataset.unseen()
    count = min(_STATES.value, len(unseen))
    train = compute_states(
        model, unseen.images[:count], unseen.labels[:count], verbose=0
    )
    sweep = train_controllers(
        model, train, [beta], epochs=passes_for(len(train)), verbose=0
    )
    sweep.assign(beta=beta)


def _fine_tune(
    model: EPNet, beta: float, floor: float, dataset: data.Dataset, schedule: dict
) -> None:
    """Trains main branch and heads on, in gradient equilibrium."""
    if floor < 1:
        _learn(model, beta, dataset)
    keras.utils.set_random_seed(0)
    steps = data.steps_per_epoch(dataset.train, schedule["batch_size"])
    optimizer = begun.going_on(_LEARNING_RATE.value, steps * _EPOCHS.value, schedule)
    trainer = BenefitTrainer(model, floor, equilibrium=True)
    trainer.compile(optimizer)
    trainer.fit(
        data.training_pipeline(
            dataset.train,
            schedule["batch_size"],
            seed=0,
            augment=dataset.augment,
            recompose=dataset.recompose if schedule["recompose"] else None,
        ),
        steps_per_epoch=steps,
        epochs=_EPOCHS.value,
        shuffle=False,
        verbose=0,
    )


if __name__ == "__main__":
    flags.mark_flags_as_required(["folder", "workdir"])
    cli.run(main)
