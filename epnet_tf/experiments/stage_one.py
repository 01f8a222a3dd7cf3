"""Stage one of an experiment: main branch and classifiers, from where it was killed."""

import dataclasses
import math
import pathlib

import keras
import tensorflow as tf

from epnet_tf import data
from epnet_tf.cluster import Team, agree
from epnet_tf.experiments.checkpoint import Checkpoint
from epnet_tf.experiments.config import (
    ALL_EXITS,
    Config,
    Schedule,
    exits_to_choose,
    parse_exits,
)
from epnet_tf.model import BACKBONES, EPNet, pretrained
from epnet_tf.model.loading import (
    load_model,
    load_weights,
    save_model,
    take_weights,
)
from epnet_tf.training.classifiers import ClassifierTrainer, depth_weights
from epnet_tf.training.distributed import fit_distributed, is_chief

# Learning rate of fine-tuning as a share of that of the heads: the network is good
# already, and what the first steps ask of it is not. Four and ten times as much left
# EfficientNet-Lite0, on 3,000 photos for two epochs, 2 and 11 points behind at the end.
_FINE_TUNING = 0.05


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
    saved = trained_file(workdir, config)
    trained = saved.exists()
    agree(team, f"whether --workdir has {saved.name}", trained)
    if trained:
        model = keras.saving.load_model(saved)
    else:
        phase = _Phase(config, dataset, workdir, verbose, strategy, team)
        policy = keras.config.dtype_policy()
        try:
            model = _all_phases(phase)
        finally:  # It is the process's, not ours.
            keras.config.set_dtype_policy(policy)
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
        agree(self.team, f"that {file.name} is written", True)


def _all_phases(phase: _Phase) -> EPNet:
    """All that stage one trains; afterwards the process computes in float32."""
    if not phase.config.schedule.unfreeze_epochs:
        return _stage_one(phase)
    frozen = phase.workdir / "frozen.keras"
    has_frozen = frozen.exists()
    agree(phase.team, f"whether --workdir has {frozen.name}", has_frozen)
    if not has_frozen:
        phase.save(_stage_one(phase), frozen)
    return _fine_tuned(phase, frozen)


def _stage_one(phase: _Phase) -> EPNet:
    """Main branch and classifiers, or heads alone, from the seed or a checkpoint."""
    config = phase.config
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    with phase.strategy.scope():
        model = untrained(config.schedule, phase.dataset)
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
        model = untrained(schedule, phase.dataset)
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
        trainer.compile(classifier_optimizer(schedule, steps))
        epoch = checkpoint.restore(trainer)
    agree(phase.team, "the number of epochs done in --workdir", epoch)

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

    callbacks: list[keras.callbacks.Callback] = [_Divergence(), checkpoint]
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
    model = untrained(schedule, dataset)
    model.set_weights(weights)
    model.frozen = frozen
    return model


class _Divergence(keras.callbacks.Callback):
    """Ends a training whose loss has become no number, before it is kept."""

    def on_epoch_end(self, epoch, logs):
        """Looks at the loss on validation images, of the weights as they are now."""
        if not math.isfinite(logs["val_loss"]):
            raise ValueError(
                "Expected a loss that is a finite number; another --workdir with a "
                f"smaller --learning_rate may help. Received: {logs['val_loss']} on "
                f"validation images after epoch {epoch + 1}."
            )


def untrained(schedule: Schedule, dataset: data.Dataset) -> EPNet:
    """The model of a schedule, with the weights that it starts from.

    Raises:
        ValueError: If it has one exit only, so that there is nothing to decide.
    """
    model = build_model(
        schedule.backbone,
        dataset,
        schedule.weights,
        exits=parse_exits(schedule.exits),
        frozen=schedule.freeze,
    )
    if model.num_exits < 2:
        raise ValueError(
            "Expected an exit before the last one, which is the network itself. "
            f"Received: none in '{schedule.backbone}' with exits="
            f"{schedule.exits or ALL_EXITS}."
        )
    return model


def trained_file(workdir: pathlib.Path, config: Config) -> pathlib.Path:
    """Where stage one ends; of all exits if some of them are then chosen."""
    choose = exits_to_choose(config.schedule.exits)
    return workdir / ("all_exits.keras" if choose else "classifiers.keras")


def _checkpoint_file(workdir: pathlib.Path, phase: str) -> pathlib.Path:
    return workdir / f"{phase}.weights.h5"


def classifier_optimizer(schedule: Schedule, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a schedule.

    Args:
        schedule: The schedule.
        steps: Training steps in an epoch.
    """
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps * max(schedule.epochs - 1, 1),
        warmup_target=schedule.learning_rate,
        warmup_steps=steps,
    )
    return decayed_sgd(learning_rate, schedule.weight_decay)


def decayed_sgd(learning_rate, weight_decay: float, **kwargs) -> keras.optimizers.SGD:
    """SGD with momentum 0.9 and decoupled decay of kernels alone.

    Args:
        learning_rate: A number, or a schedule of Keras's.
        weight_decay: Of the kernels; biases and normalizations have none.
        **kwargs: Further arguments of `keras.optimizers.SGD`.
    """
    optimizer = keras.optimizers.SGD(
        learning_rate, momentum=0.9, weight_decay=weight_decay, **kwargs
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


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
            .keras file to go on from: see `take_weights`. Images then go through what
            they went through there.
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
    source = load_weights(weights) if weights and not is_random else None
    model = EPNet(
        BACKBONES[backbone](dataset.image_shape),
        dataset.num_classes,
        preprocessing=source.preprocessing if source else _normalization(dataset),
        **kwargs,
    )
    if source:
        take_weights(model, source)
    return model


def _normalization(dataset: data.Dataset) -> keras.layers.Normalization:
    mean, variance = data.pixel_moments(dataset.train)
    return keras.layers.Normalization(
        mean=mean, variance=variance, name="normalization"
    )


def _load_backbone(file: str, dataset: data.Dataset) -> keras.Model:
    if not (file.endswith(".keras") and pathlib.Path(file).is_file()):
        raise ValueError(
            f"Expected as backbone one of {', '.join(BACKBONES)}, a network of "
            "keras.applications, such as MobileNetV3Small, or an existing .keras file. "
            f"Received: '{file}'."
        )
    model = load_model(file)
    # A subclassed model has no shape; `EPNet` says what it takes.
    shape = getattr(model, "input_shape", None)
    if shape is not None and shape[1:] != dataset.image_shape:
        raise ValueError(
            f"Expected a backbone for images of shape {list(dataset.image_shape)}. "
            f"Received: '{file}' for {list(shape[1:])}."
        )
    return model
