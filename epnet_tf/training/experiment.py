"""An experiment: both stages on one data set, in one folder, from one configuration."""

import dataclasses
import json
import os
import pathlib

import keras

from epnet_tf import data, policies
from epnet_tf.evaluation import figures, reports
from epnet_tf.files import write_whole
from epnet_tf.model import BACKBONES, EPNet
from epnet_tf.training.checkpoint import Checkpoint
from epnet_tf.training.classifiers import ClassifierTrainer
from epnet_tf.training.states import ExitStates, compute_states
from epnet_tf.training.sweep import train_controllers


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the two stages are trained on one data set.

    Attributes:
        backbone: Name of the main branch, or a .keras file with a headless or
            classifying functional model.
        epochs: Epochs of stage one; the learning rate of SGD with momentum 0.9 rises
            during the first and falls to 0 along a half cosine.
        batch_size: Images in a batch of stage one.
        learning_rate: Highest learning rate of stage one.
        weight_decay: Decoupled, stage one; L2 regularization of a tenth of it has the
            same pull.
        controller_epochs: Passes over the cached states in stage two.
    """

    backbone: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    controller_epochs: int


# Batch size and learning rate are the paper's (5.3) on its data sets; the epochs are
# what two cores do in an hour or two.
SCHEDULES = {
    "digits": Schedule("resnet10", 12, 64, 0.05, 5e-3, 50),
    "maxmin": Schedule("resnet12", 30, 64, 0.1, 1e-3, 10),
    "multiscale": Schedule("resnet12", 40, 128, 0.1, 1e-3, 10),
    "cifar10": Schedule("resnet10", 100, 128, 0.1, 5e-3, 10),
    "npz": Schedule("resnet10", 30, 64, 0.05, 5e-3, 10),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All that an experiment's results depend on.

    Attributes:
        dataset: A name, or a .npz file (see `epnet_tf.data.load_dataset`).
        schedule: How to train.
        betas: Cost sensitivities, percentage points per MAC; one set of controllers
            for each.
        seed: Seed of data, weights, order and augmentation.
        controller_seeds: Trainings of the controllers from as many seeds; the table
            has their mean, the first is saved.
        precision: Keras's dtype policy in stage one, such as `mixed_bfloat16`; what is
            saved is in float32 all the same.
    """

    dataset: str
    schedule: Schedule
    betas: tuple[float, ...]
    seed: int = 0
    controller_seeds: int = 1
    precision: str = "float32"

    def as_json(self) -> dict:
        """The configuration as it stands in `config.json`."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def schedule_for(dataset: str, **changes) -> Schedule:
    """The default schedule of a data set, with changes.

    Args:
        dataset: A name, or a .npz file.
        **changes: Fields of `Schedule`; None leaves the default.
    """
    known = {k: v for k, v in changes.items() if v is not None}
    return dataclasses.replace(SCHEDULES.get(dataset, SCHEDULES["npz"]), **known)


def run(
    config: Config,
    workdir: str | os.PathLike,
    data_dir: str | None = None,
    verbose="auto",
) -> dict:
    """Runs an experiment, or what is left of one that was stopped.

    Writes `config.json`, `classifiers.keras`, `beta-*/model.keras` for each β (or
    `model.keras` for a β range), `exits.png` and, last, `metrics.json`. Stage one goes
    on from its last complete epoch; stage two takes seconds and starts over.

    Args:
        config: The configuration.
        workdir: The experiment's folder.
        data_dir: Folder of the data sets' files (see `epnet_tf.data.load_dataset`).
        verbose: As in `keras.Model.fit`.

    Returns:
        What `metrics.json` holds (see `epnet_tf.evaluation.reports`).

    Raises:
        ValueError: If the folder holds an experiment with another stage one, or data
            or backbone are not as they should be.
    """
    workdir = pathlib.Path(workdir)
    metrics_file = workdir / "metrics.json"
    if _claim(workdir, config) and metrics_file.exists():
        return json.loads(metrics_file.read_text())
    dataset = data.load_dataset(config.dataset, data_dir, config.seed)
    model = trained_classifiers(config, dataset, workdir, verbose)
    train, validation, test = (
        compute_states(model, split.images, split.labels, verbose=verbose)
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    scores = {"epnet": _train_controllers(config, model, train, test, workdir, verbose)}
    for beta in config.betas:
        for policy in (
            policies.softmax_gate_tuned(validation, model.exit_costs, beta),
            policies.static(validation, model.exit_costs, beta),
            policies.resnet(model.exit_costs),
        ):
            scores.setdefault(policy.name, []).append([policies.score(policy, test)])
    metrics = reports.metrics(model, dataset.name, test, config.betas, scores)
    metrics["settings"] = config.as_json()
    _draw_exits(model, dataset, test, config.betas, workdir)
    with write_whole(metrics_file) as path:
        path.write_text(json.dumps(metrics, indent=1))
    return metrics


def trained_classifiers(
    config: Config, dataset: data.Dataset, workdir: pathlib.Path, verbose="auto"
) -> EPNet:
    """Stage one: from the seed, from where it was killed, or as it was saved.

    Args:
        config: The configuration.
        dataset: The data set.
        workdir: Folder for `classifiers.keras`, the checkpoint and TensorBoard logs.
        verbose: As in `keras.Model.fit`.

    Returns:
        The trained `EPNet` with untrained controllers, in float32.
    """
    saved = workdir / "classifiers.keras"
    if saved.exists():
        return keras.saving.load_model(saved)
    schedule, train = config.schedule, dataset.train
    steps = data.steps_per_epoch(train, schedule.batch_size)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    model = build_model(schedule.backbone, dataset)
    trainer = ClassifierTrainer(model)
    trainer.compile(_classifier_optimizer(schedule, steps))
    checkpoint = Checkpoint(workdir / "classifiers.weights.h5", steps)
    epoch = checkpoint.restore(trainer)
    trainer.fit(
        data.training_pipeline(
            train, schedule.batch_size, config.seed, epoch, dataset.augment
        ),
        validation_data=(dataset.validation.images, dataset.validation.labels),
        validation_batch_size=256,
        steps_per_epoch=steps,
        initial_epoch=epoch,
        epochs=schedule.epochs,
        callbacks=[checkpoint, keras.callbacks.TensorBoard(workdir / "logs")],
        verbose=verbose,
        shuffle=False,
    )
    keras.config.set_dtype_policy("float32")
    if config.precision != "float32":
        weights = model.get_weights()
        model = build_model(schedule.backbone, dataset)
        model.set_weights(weights)
    with write_whole(saved) as path:
        model.save(path)
    checkpoint.path.unlink(missing_ok=True)
    return model


def build_model(backbone: str, dataset: data.Dataset, **kwargs) -> EPNet:
    """An untrained EPNet for a data set.

    Args:
        backbone: `resnet10` or `resnet12`, for which images are centred and scaled
            within the model by the training data's mean and standard deviation of
            each channel; or a .keras file, whose model gets the raw values.
        dataset: The data set.
        **kwargs: Further arguments of `EPNet`.

    Returns:
        The model.

    Raises:
        ValueError: If there is no such backbone, or it does not take such images.
    """
    if backbone not in BACKBONES:
        return EPNet(_load_backbone(backbone, dataset), dataset.num_classes, **kwargs)
    images = dataset.train.images.astype("float32")
    preprocessing = keras.layers.Normalization(
        mean=images.mean(axis=(0, 1, 2)), variance=images.var(axis=(0, 1, 2))
    )
    return EPNet(
        BACKBONES[backbone](dataset.image_shape),
        dataset.num_classes,
        preprocessing=preprocessing,
        **kwargs,
    )


def _load_backbone(file: str, dataset: data.Dataset) -> keras.Model:
    if not (file.endswith(".keras") and pathlib.Path(file).is_file()):
        raise ValueError(
            f"Expected as backbone one of {', '.join(BACKBONES)} or an existing .keras "
            f"file. Received: '{file}'."
        )
    model = keras.saving.load_model(file)
    if model.input_shape[1:] != dataset.image_shape:
        raise ValueError(
            f"Expected a backbone for images of shape {list(dataset.image_shape)}. "
            f"Received: '{file}' for {list(model.input_shape[1:])}."
        )
    return model


def _claim(workdir: pathlib.Path, config: Config) -> bool:
    """Writes `config.json`; says whether just this experiment was there already."""
    workdir.mkdir(parents=True, exist_ok=True)
    file, new = workdir / "config.json", config.as_json()
    old = json.loads(file.read_text()) if file.exists() else None
    stage_two = ("betas", "controller_seeds")
    for key, value in (old or {}).items():
        if key not in stage_two and value != new.get(key):
            raise ValueError(
                f"Expected in {workdir} an experiment with {key}={value}, as it was "
                f"begun there. Received: {key}={new.get(key)}; use another --workdir."
            )
    if old != new:
        (workdir / "metrics.json").unlink(missing_ok=True)
        with write_whole(file) as path:
            path.write_text(json.dumps(new, indent=1))
    return old == new


def _classifier_optimizer(schedule: Schedule, steps: int) -> keras.optimizers.Optimizer:
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps * max(schedule.epochs - 1, 1),
        warmup_target=schedule.learning_rate,
        warmup_steps=steps,
    )
    optimizer = keras.optimizers.SGD(
        learning_rate, momentum=0.9, weight_decay=schedule.weight_decay
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _train_controllers(
    config: Config, model: EPNet, train: ExitStates, test: ExitStates, workdir, verbose
) -> list[list[policies.Score]]:
    """Stage two: saves a model for each β, and gives each β's score of every seed."""
    scores: list[list[policies.Score]] = [[] for _ in config.betas]
    for repeat in range(config.controller_seeds):
        sweep = train_controllers(
            model,
            train,
            config.betas,
            seed=config.seed + repeat,
            epochs=config.schedule.controller_epochs,
            verbose=verbose,
        )
        for i, beta in enumerate(config.betas):
            sweep.assign(i)
            scores[i].append(policies.score(policies.epnet(model), test))
            if repeat == 0:
                with write_whole(model_file(workdir, beta)) as path:
                    model.save(path)
    return scores


def model_file(workdir: pathlib.Path, beta: float) -> pathlib.Path:
    """Where the model for one β is: `beta-5e-07/model.keras` in the folder."""
    return workdir / f"beta-{beta:g}" / "model.keras"


def _draw_exits(model, dataset, test, betas, workdir):
    """The picture of who left where, for the first β."""
    model = keras.saving.load_model(model_file(workdir, betas[0]))
    exits = policies.epnet(model).decide(test)
    groups = {
        name: exits[dataset.test.difficulty == i]
        for i, name in enumerate(dataset.difficulties)
    } or {"all images": exits}
    figures.save(
        figures.cumulative_exit_rates(groups, model.num_exits, beta=betas[0]),
        workdir / "exits.png",
    )
