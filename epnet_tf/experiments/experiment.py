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
from epnet_tf.experiments import promised, stage_two, state_shards
from epnet_tf.experiments.checkpoint import Checkpoint
from epnet_tf.experiments.config import (
    SCHEDULES,
    Config,
    Schedule,
    completed,
    draws_for,
    exits_to_choose,
    load_dataset,
    parse_exits,
    passes_for,
    schedule_for,
)
from epnet_tf.experiments.stage_two import model_file, range_file
from epnet_tf.files import write_whole
from epnet_tf.model import BACKBONES, EPNet, pretrained
from epnet_tf.model.loading import save_model, take_weights
from epnet_tf.model.states import ExitStates, StoredStates, compute_states
from epnet_tf.training.classifiers import ClassifierTrainer, depth_weights
from epnet_tf.training.distributed import fit_distributed, is_chief

__all__ = [
    "SCHEDULES",
    "Config",
    "Schedule",
    "build_model",
    "model_file",
    "run",
    "schedule_for",
    "trained_classifiers",
]

# The folder, in the experiment's, of states that workers compute side by side, or that
# memory may have no room for.
_STATES = "states"

# What may change in a folder whose stage one is done.
_STAGE_TWO = {
    *("betas", "beta_range", "controller_seeds", "controller_epochs"),
    *("budgets", "accuracy_drops", "costs"),
}

# Learning rate of fine-tuning as a share of that of the heads: the network is good
# already, and what the first steps ask of it is not.
_FINE_TUNING = 0.01


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

    Writes `config.json`, `classifiers.keras` (and `frozen.keras`, the network before
    it is fine-tuned, and `all_exits.keras`, before some are chosen),
    `beta-*/model.keras` for each β, `exits.png` and, last, `metrics.json`; with a range
    of β, also `model.keras`, one for all, and `curve.png`. Stage one goes on from its
    last complete epoch; stage two takes seconds and starts over. Prints the exits,
    with their accuracy on validation images.

    Args:
        config: The configuration.
        workdir: The experiment's folder.
        data_dir: Folder of the data sets' files (see `epnet_tf.data.load_dataset`).
        verbose: As in `keras.Model.fit`; 0 prints nothing.
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
    if begun:
        same_costs = begun["costs"] == config.as_json()["costs"]
        betas = tuple(begun["betas"]) if same_costs else ()
        config = _filled(config, betas, begun["schedule"]["controller_epochs"])
    metrics = _finished(metrics_file) if begun == config.as_json() else None
    _agree(team, "whether --workdir has the results", metrics is not None)
    if metrics is not None:
        return metrics
    dataset = load_dataset(config.as_json(), data_dir)
    if not _has_betas(config):
        untrained = _untrained(config.schedule, dataset)
        untrained.costs = config.costs
        full = untrained.exit_costs.full
        config = _filled(config, promised.betas_for_size(full))
    config = _filled(config, controller_epochs=passes_for(len(dataset.train)))
    if begun != config.as_json():
        _check(workdir, config, dataset, strategy)
        if is_chief(strategy):
            _begin(workdir, config)
    model = trained_classifiers(config, dataset, workdir, verbose, strategy, team)
    model.costs = config.costs
    count = exits_to_choose(config.schedule.exits)
    if count:
        model = _chosen_exits(config, model, count, dataset, verbose)
        if is_chief(strategy):
            save_model(model, workdir / "classifiers.keras")
        _agree(team, "that the chosen exits are written", True)
    states = _exit_states(model, dataset, workdir, verbose, strategy, team)
    if states is not None:
        _second_stage(config, model, dataset, states, workdir, verbose)
        shutil.rmtree(workdir / _STATES, ignore_errors=True)
    _agree(team, "that metrics.json is written", True)
    return json.loads(metrics_file.read_text())


def _second_stage(config: Config, model, dataset, states, workdir, verbose) -> None:
    """Controllers, promises, pictures and, last, `metrics.json`."""
    train, validation, test = states
    if verbose:
        print(model.exit_summary(validation))
    metrics: dict = {"settings": config.as_json()}
    # Several draws are passed over as many times less.
    passes = -(-config.schedule.controller_epochs // draws_for(dataset))
    schedule = dataclasses.replace(config.schedule, controller_epochs=passes)
    config = dataclasses.replace(config, schedule=schedule)
    promises = promised.betas_that_keep(config, model, train, validation, verbose)
    promised_betas = {promise["beta"] for promise in promises}
    if promises:
        metrics["promises"] = promises
        every = {*config.betas, *promised_betas}
        config = dataclasses.replace(config, betas=tuple(sorted(every)))
    metrics |= stage_two.run(
        config, model, dataset.name, states, workdir, verbose, promised_betas
    )
    _draw(config, metrics, dataset, test, workdir)
    with write_whole(workdir / "metrics.json") as path:
        path.write_text(json.dumps(metrics, indent=1))


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
        workdir: Folder for `classifiers.keras` (or `all_exits.keras`, of which some are
            then chosen), the checkpoint and TensorBoard logs.
        verbose: As in `keras.Model.fit`.
        strategy: What training is distributed by; None for one device.
        team: The workers, if there are several.

    Returns:
        The trained `EPNet` with untrained controllers, in float32, on one device.
    """
    strategy = strategy or tf.distribute.get_strategy()
    saved = _trained_file(workdir, config)
    trained = saved.exists()
    _agree(team, f"whether --workdir has {saved.name}", trained)
    if trained:
        return keras.saving.load_model(saved)
    phase = _Phase(config, dataset, workdir, verbose, strategy, team)
    if not config.schedule.unfreeze_epochs:
        model = _stage_one(phase)
    else:
        frozen = workdir / "frozen.keras"
        has_frozen = frozen.exists()
        _agree(team, f"whether --workdir has {frozen.name}", has_frozen)
        if not has_frozen:
            phase.save(_stage_one(phase), frozen)
        model = _fine_tuned(phase, frozen)
    phase.save(model, saved)
    if is_chief(strategy):
        for name in ("classifiers", "fine_tuning"):
            _checkpoint_file(workdir, name).unlink(missing_ok=True)
    return model


@dataclasses.dataclass(frozen=True)
class _Phase:
    """What every phase of stage one works with."""

    config: Config
    dataset: data.Dataset
    workdir: pathlib.Path
    verbose: str | int
    strategy: tf.distribute.Strategy
    team: Team | None

    def save(self, model: EPNet, file: pathlib.Path) -> None:
        """Lets the chief write a model, and all wait for it."""
        if is_chief(self.strategy):
            save_model(model, file)
        _agree(self.team, f"that {file.name} is written", True)


def _chosen_exits(config: Config, model, count: int, dataset, verbose) -> EPNet:
    """The model with the exits that pay at the experiment's β."""
    split = dataset.validation
    states = compute_states(model, split.images, split.labels, verbose=verbose)
    if verbose:
        print(model.exit_summary(states))
    return model.with_exits(policies.select_exits(model, states, config.betas, count))


def _stage_one(phase: _Phase) -> EPNet:
    """Main branch and classifiers, or heads alone, from the seed or a checkpoint."""
    config = phase.config
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    with phase.strategy.scope():
        model = _untrained(config.schedule, phase.dataset)
    return _fit(phase, model, "classifiers")


def _fine_tuned(phase: _Phase, frozen: pathlib.Path) -> EPNet:
    """What the frozen network's heads were trained for, main branch and all.

    As Keras's guide to transfer learning has it: a small learning rate, and batch
    normalizations that keep their statistics.
    """
    config = phase.config
    schedule = dataclasses.replace(
        config.schedule,
        epochs=config.schedule.unfreeze_epochs,
        learning_rate=_FINE_TUNING * config.schedule.learning_rate,
    )
    weights = keras.saving.load_model(frozen).get_weights()
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    with phase.strategy.scope():
        model = _untrained(schedule, phase.dataset)
        model.set_weights(weights)
        model.frozen = False
    config = dataclasses.replace(config, schedule=schedule)
    return _fit(dataclasses.replace(phase, config=config), model, "fine_tuning")


def _fit(phase: _Phase, model: EPNet, name: str) -> EPNet:
    """Trains a model made in the configuration's precision, under the strategy.

    Gives it in float32, on one device.
    """
    config, dataset, strategy = phase.config, phase.dataset, phase.strategy
    schedule, train = config.schedule, dataset.train
    steps = data.steps_per_epoch(
        train, schedule.batch_size, strategy.num_replicas_in_sync
    )
    checkpoint = Checkpoint(
        _checkpoint_file(phase.workdir, name), steps, keep=is_chief(strategy)
    )
    with strategy.scope():
        trainer = ClassifierTrainer(
            model,
            depth_weights(model.num_exits, schedule.exit_weight_power),
            frozen_statistics=name == "fine_tuning",
            equilibrium=schedule.equilibrium,
        )
        trainer.compile(_classifier_optimizer(schedule, steps))
        epoch = checkpoint.restore(trainer)
    _agree(phase.team, "the number of epochs done in --workdir", epoch)

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
        callbacks.append(keras.callbacks.TensorBoard(phase.workdir / "logs"))
    fit_distributed(
        trainer,
        batches,
        validation_data=(dataset.validation.images, dataset.validation.labels),
        steps_per_epoch=steps,
        initial_epoch=epoch,
        epochs=schedule.epochs,
        callbacks=callbacks,
        verbose=phase.verbose,
    )
    keras.config.set_dtype_policy("float32")
    one_device = strategy is tf.distribute.get_strategy()
    if config.precision == "float32" and one_device:
        return model
    weights, frozen = model.get_weights(), model.frozen
    model = _untrained(schedule, dataset)
    model.set_weights(weights)
    model.frozen = frozen
    return model


def _untrained(schedule: Schedule, dataset: data.Dataset) -> EPNet:
    """The model of a schedule, with the weights that it starts from."""
    return build_model(
        schedule.backbone,
        dataset,
        schedule.weights,
        exits=parse_exits(schedule.exits),
        frozen=schedule.freeze,
    )


def _trained_file(workdir: pathlib.Path, config: Config) -> pathlib.Path:
    """Where stage one ends; of all exits if some of them are then chosen."""
    choose = exits_to_choose(config.schedule.exits)
    return workdir / ("all_exits.keras" if choose else "classifiers.keras")


def _checkpoint_file(workdir: pathlib.Path, phase: str) -> pathlib.Path:
    return workdir / f"{phase}.weights.h5"


def _exit_states(
    model: EPNet,
    dataset: data.Dataset,
    workdir: pathlib.Path,
    verbose,
    strategy: tf.distribute.Strategy,
    team: Team | None,
) -> tuple[ExitStates | StoredStates, ExitStates, ExitStates] | None:
    """States of training, validation and test images; several workers share the work.

    Streamed training images may be many: their states are on disk. Workers but the
    chief get none: what is left is the chief's.
    """
    unseen = dataset.unseen_draws(draws_for(dataset))
    validation, test = dataset.validation, dataset.test
    folder = workdir / _STATES

    def computed(split: data.Split) -> ExitStates:
        return compute_states(model, split.images, split.labels, verbose=verbose)

    if team is None:
        train: ExitStates | StoredStates
        if isinstance(unseen.images, data.StreamedImages):
            train = compute_states(
                model,
                unseen.images,
                unseen.labels,
                verbose=verbose,
                directory=folder / "train",
            )
        else:
            train = computed(unseen)
        return train, computed(validation), computed(test)
    recipe = state_shards.recipe(workdir / "classifiers.keras")
    worker, workers = team.cluster.index, len(team.cluster.workers)
    splits = {"train": unseen, "validation": validation, "test": test}
    for name, split in splits.items():
        state_shards.write(
            folder / name, recipe, model, split, worker, workers, verbose
        )
    _agree(team, "that exit states are written", True)
    if not is_chief(strategy):
        return None
    train, *held_out = (
        state_shards.read(folder / name, recipe, len(split))
        for name, split in splits.items()
    )
    return train, held_out[0], held_out[1]


def _agree(team: Team | None, what: str, value) -> None:
    """Waits for all workers, and compares what they have; see `Team.agree`."""
    if team is not None:
        team.agree(what, value)


def build_model(
    backbone: str, dataset: data.Dataset, weights: str | None = None, **kwargs
) -> EPNet:
    """An untrained EPNet for a data set.

    Args:
        backbone: A name in `BACKBONES`, for which images are centred and scaled
            within the model by the training data's mean and standard deviation of
            each channel; a network of `keras.applications`, with its own preprocessing;
            or a .keras file, whose model gets the raw values.
        dataset: The data set.
        weights: `imagenet` (also None), `none` or a file, for a network of
            `keras.applications`; for a name in `BACKBONES`, an `EPNet` on it in a
            .keras file to go on from: see `take_weights`.
        **kwargs: Further arguments of `EPNet`.

    Returns:
        The model.

    Raises:
        ValueError: If there is no such backbone, or it does not take such images.
    """
    is_ours = backbone in BACKBONES
    is_random = weights == pretrained.NO_WEIGHTS or (is_ours and weights is None)
    if kwargs.get("frozen") and is_random:
        raise ValueError(
            "Expected to freeze a network that has been trained: one with weights, or "
            f"a .keras file. Received: '{backbone}', whose weights are random."
        )
    if backbone in pretrained.names():
        network = pretrained.pretrained(
            backbone, dataset.image_shape, weights or pretrained.IMAGENET
        )
        return EPNet(network, dataset.num_classes, **kwargs)
    if not is_ours:
        if weights is not None:
            raise ValueError(
                "Expected weights for a network with a name, such as resnet10 or "
                f"MobileNetV3Small. Received: weights={weights} for '{backbone}'."
            )
        return EPNet(_load_backbone(backbone, dataset), dataset.num_classes, **kwargs)
    mean, variance = data.pixel_moments(dataset.train)
    preprocessing = keras.layers.Normalization(
        mean=mean, variance=variance, name="normalization"
    )
    model = EPNet(
        BACKBONES[backbone](dataset.image_shape),
        dataset.num_classes,
        preprocessing=preprocessing,
        **kwargs,
    )
    if weights not in (None, pretrained.NO_WEIGHTS):
        take_weights(model, weights)
    return model


def _load_backbone(file: str, dataset: data.Dataset) -> keras.Model:
    if not (file.endswith(".keras") and pathlib.Path(file).is_file()):
        raise ValueError(
            f"Expected as backbone one of {', '.join(BACKBONES)}, a network of "
            "keras.applications, such as MobileNetV3Small, or an existing .keras file. "
            f"Received: '{file}'."
        )
    model = keras.saving.load_model(file)
    if model.input_shape[1:] != dataset.image_shape:
        raise ValueError(
            f"Expected a backbone for images of shape {list(dataset.image_shape)}. "
            f"Received: '{file}' for {list(model.input_shape[1:])}."
        )
    return model


def _has_betas(config: Config) -> bool:
    return bool(config.betas or config.budgets or config.accuracy_drops)


def _filled(
    config: Config, betas: tuple[float, ...] = (), controller_epochs: int = 0
) -> Config:
    """The configuration with what it leaves to data and network."""
    schedule = config.schedule
    if not schedule.controller_epochs:
        schedule = dataclasses.replace(schedule, controller_epochs=controller_epochs)
    betas = config.betas if _has_betas(config) else betas
    return dataclasses.replace(config, schedule=schedule, betas=betas)


def _begun(workdir: pathlib.Path, config: Config) -> dict | None:
    """The configuration with which the folder's experiment was begun, if any.

    Raises:
        ValueError: If it differs in more than stage two, which can start over.
    """
    file, new = workdir / "config.json", config.as_json()
    if not file.exists():
        return None
    begun = completed(json.loads(file.read_text()))
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


def _finished(metrics_file: pathlib.Path) -> dict | None:
    """What a finished experiment has written, if it is of after costs got units."""
    if not metrics_file.exists():
        return None
    metrics = json.loads(metrics_file.read_text())
    return metrics if "cost_unit" in metrics else None


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
    trained = _trained_file(workdir, config)
    if not trained.exists():
        data.steps_per_epoch(
            dataset.train, config.schedule.batch_size, strategy.num_replicas_in_sync
        )
        _untrained(config.schedule, dataset).costs = config.costs
    elif config.costs is not None:
        keras.saving.load_model(trained).costs = config.costs


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
        figures.save(curve.accuracy_against_cost(metrics), workdir / "curve.png")
