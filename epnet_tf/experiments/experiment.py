"""An experiment: both stages on one data set, in one folder, from one configuration."""

import dataclasses
import json
import os
import pathlib
import shutil

import keras
import tensorflow as tf

from epnet_tf import data, policies
from epnet_tf.cluster import Team
from epnet_tf.evaluation import curve, figures
from epnet_tf.experiments import stage_two, state_shards
from epnet_tf.experiments.checkpoint import Checkpoint
from epnet_tf.experiments.config import Config, Schedule, schedule_for
from epnet_tf.experiments.stage_two import model_file, range_file
from epnet_tf.files import write_whole
from epnet_tf.model import BACKBONES, EPNet
from epnet_tf.model.states import ExitStates, compute_states
from epnet_tf.training.classifiers import ClassifierTrainer, depth_weights
from epnet_tf.training.distributed import fit_distributed, is_chief

__all__ = [
    "Config",
    "Schedule",
    "build_model",
    "model_file",
    "run",
    "schedule_for",
    "trained_classifiers",
]

# The folder, in the experiment's, of states that workers compute side by side.
_STATES = "states"

# What may change in a folder whose stage one is done.
_STAGE_TWO = {"betas", "beta_range", "controller_seeds", "controller_epochs"}


def run(
    config: Config,
    workdir: str | os.PathLike,
    data_dir: str | None = None,
    verbose="auto",
    strategy: tf.distribute.Strategy | None = None,
    team: Team | None = None,
) -> dict:
    """Runs an experiment, or what is left of one that was stopped.

    With a team, every worker computes its share of stage one and of the exit states;
    the first one, the chief, writes all else, and trains stage two.

    Writes `config.json`, `classifiers.keras`, `beta-*/model.keras` for each β,
    `exits.png` and, last, `metrics.json`; with a range of β, also `model.keras`, one
    for all, and `curve.png`. Stage one goes on from its last complete epoch; stage two
    takes seconds and starts over.

    Args:
        config: The configuration.
        workdir: The experiment's folder.
        data_dir: Folder of the data sets' files (see `epnet_tf.data.load_dataset`).
        verbose: As in `keras.Model.fit`.
        strategy: What stage one is distributed by; None for one device.
        team: The workers, if there are several; they share the folder.

    Returns:
        What `metrics.json` holds (see `stage_two.run`).

    Raises:
        ValueError: If the folder holds an experiment with another stage one, data
            or backbone are not as they should be, or workers disagree.
    """
    workdir = pathlib.Path(workdir)
    strategy = strategy or tf.distribute.get_strategy()
    metrics_file = workdir / "metrics.json"
    begun = _begun(workdir, config)
    done = begun == config.as_json() and metrics_file.exists()
    _agree(team, "whether --workdir has the results", done)
    if done:
        return json.loads(metrics_file.read_text())
    dataset = data.load_dataset(config.dataset, data_dir, config.seed)
    if begun != config.as_json():
        _check(workdir, config, dataset, strategy)
        if is_chief(strategy):
            _begin(workdir, config)
    model = trained_classifiers(config, dataset, workdir, verbose, strategy, team)
    states = _exit_states(model, dataset, workdir, verbose, strategy, team)
    if is_chief(strategy):
        metrics = {"settings": config.as_json()}
        metrics |= stage_two.run(config, model, dataset.name, states, workdir, verbose)
        _draw(config, metrics, dataset, states[-1], workdir)
        with write_whole(metrics_file) as path:
            path.write_text(json.dumps(metrics, indent=1))
        shutil.rmtree(workdir / _STATES, ignore_errors=True)
    _agree(team, "that metrics.json is written", True)
    return json.loads(metrics_file.read_text())


def trained_classifiers(
    config: Config,
    dataset: data.Dataset,
    workdir: pathlib.Path,
    verbose="auto",
    strategy: tf.distribute.Strategy | None = None,
    team: Team | None = None,
) -> EPNet:
    """Stage one: from the seed, from where it was killed, or as it was saved.

    Args:
        config: The configuration.
        dataset: The data set.
        workdir: Folder for `classifiers.keras`, the checkpoint and TensorBoard logs.
        verbose: As in `keras.Model.fit`.
        strategy: What training is distributed by; None for one device.
        team: The workers, if there are several.

    Returns:
        The trained `EPNet` with untrained controllers, in float32, on one device.
    """
    saved = workdir / "classifiers.keras"
    strategy = strategy or tf.distribute.get_strategy()
    trained = saved.exists()
    _agree(team, "whether --workdir has classifiers.keras", trained)
    if trained:
        return keras.saving.load_model(saved)
    schedule, train = config.schedule, dataset.train
    steps = data.steps_per_epoch(
        train, schedule.batch_size, strategy.num_replicas_in_sync
    )
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    checkpoint = Checkpoint(
        workdir / "classifiers.weights.h5", steps, keep=is_chief(strategy)
    )
    with strategy.scope():
        model = build_model(schedule.backbone, dataset)
        trainer = ClassifierTrainer(
            model, depth_weights(model.num_exits, schedule.exit_weight_power)
        )
        trainer.compile(_classifier_optimizer(schedule, steps))
        epoch = checkpoint.restore(trainer)
    _agree(team, "the number of epochs done in --workdir", epoch)

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return data.training_pipeline(
            train,
            schedule.batch_size,
            config.seed,
            epoch,
            dataset.augment,
            dataset.recompose if schedule.recompose else None,
            context,
        )

    callbacks: list[keras.callbacks.Callback] = [checkpoint]
    if is_chief(strategy):
        callbacks.append(keras.callbacks.TensorBoard(workdir / "logs"))
    fit_distributed(
        trainer,
        batches,
        validation_data=(dataset.validation.images, dataset.validation.labels),
        steps_per_epoch=steps,
        initial_epoch=epoch,
        epochs=schedule.epochs,
        callbacks=callbacks,
        verbose=verbose,
    )
    keras.config.set_dtype_policy("float32")
    one_device = strategy is tf.distribute.get_strategy()
    if config.precision != "float32" or not one_device:
        weights = model.get_weights()
        model = build_model(schedule.backbone, dataset)
        model.set_weights(weights)
    if is_chief(strategy):
        with write_whole(saved) as path:
            model.save(path)
        checkpoint.path.unlink(missing_ok=True)
    _agree(team, "that classifiers.keras is written", True)
    return model


def _exit_states(
    model: EPNet,
    dataset: data.Dataset,
    workdir: pathlib.Path,
    verbose,
    strategy: tf.distribute.Strategy,
    team: Team | None,
) -> list[ExitStates]:
    """States of training, validation and test images; several workers share the work.

    Workers but the chief get none: what is left is the chief's.
    """
    splits = {
        "train": dataset.unseen(),
        "validation": dataset.validation,
        "test": dataset.test,
    }
    if team is None:
        return [
            compute_states(model, split.images, split.labels, verbose=verbose)
            for split in splits.values()
        ]
    recipe = state_shards.recipe(workdir / "classifiers.keras")
    worker, workers = team.cluster.index, len(team.cluster.workers)
    for name, split in splits.items():
        folder = workdir / _STATES / name
        state_shards.write(folder, recipe, model, split, worker, workers, verbose)
    _agree(team, "that exit states are written", True)
    if not is_chief(strategy):
        return []
    return [
        state_shards.read(workdir / _STATES / name, recipe, len(split))
        for name, split in splits.items()
    ]


def _agree(team: Team | None, what: str, value) -> None:
    """Waits for all workers, and compares what they have; see `Team.agree`."""
    if team is not None:
        team.agree(what, value)


def build_model(backbone: str, dataset: data.Dataset, **kwargs) -> EPNet:
    """An untrained EPNet for a data set.

    Args:
        backbone: A name in `BACKBONES`, for which images are centred and scaled
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


def _begun(workdir: pathlib.Path, config: Config) -> dict | None:
    """The configuration with which the folder's experiment was begun, if any.

    Raises:
        ValueError: If it differs in more than stage two, which can start over.
    """
    file, new = workdir / "config.json", config.as_json()
    if not file.exists():
        return None
    begun = json.loads(file.read_text())
    # Folders begun before there was a choice say nothing of it.
    fields = dataclasses.fields(Schedule)
    defaults = {
        f.name: f.default for f in fields if f.default is not dataclasses.MISSING
    }
    old, new = (defaults | c | c["schedule"] for c in (begun, new))
    for key in sorted(new.keys() - {"schedule", *_STAGE_TWO}):
        if old.get(key) != new[key]:
            raise ValueError(
                f"Expected in {workdir} an experiment with {key}={old.get(key)}, as it "
                f"was begun there. Received: {key}={new[key]}; use another --workdir."
            )
    return begun


def _check(
    workdir: pathlib.Path,
    config: Config,
    dataset: data.Dataset,
    strategy: tf.distribute.Strategy,
) -> None:
    """Checks what the run needs of data and backbone, before anything is written."""
    if config.schedule.recompose and dataset.recompose is None:
        raise ValueError(
            "Expected recompose for data sets whose images are composed of several. "
            f"Received: recompose=True for {dataset.name}."
        )
    if not (workdir / "classifiers.keras").exists():
        data.steps_per_epoch(
            dataset.train, config.schedule.batch_size, strategy.num_replicas_in_sync
        )
        build_model(config.schedule.backbone, dataset)


def _begin(workdir: pathlib.Path, config: Config) -> None:
    """Takes away what was, and writes `config.json`."""
    (workdir / "metrics.json").unlink(missing_ok=True)
    with write_whole(workdir / "config.json") as path:
        path.write_text(json.dumps(config.as_json(), indent=1))


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


def _draw(config: Config, metrics: dict, dataset: data.Dataset, test, workdir) -> None:
    """The pictures: who left where, for the first β; and the curve over a range."""
    beta, for_range = config.betas[0], config.beta_range is not None
    file = range_file(workdir) if for_range else model_file(workdir, beta)
    model = keras.saving.load_model(file)
    exits = policies.epnet(model, beta if for_range else None).decide(test)
    groups = {
        name: exits[dataset.test.difficulty == i]
        for i, name in enumerate(dataset.difficulties)
    } or {"all images": exits}
    figures.save(
        figures.cumulative_exit_rates(groups, model.num_exits, beta),
        workdir / "exits.png",
    )
    if for_range:
        figures.save(curve.accuracy_against_macs(metrics), workdir / "curve.png")
