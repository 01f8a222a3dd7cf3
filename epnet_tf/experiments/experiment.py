"""An experiment: both stages on one data set, in one folder, from one configuration."""

import dataclasses
import json
import os
import pathlib
import shutil

import keras
import tensorflow as tf

from epnet_tf import data, policies
from epnet_tf.cluster import Team, agree
from epnet_tf.evaluation import curve, figures
from epnet_tf.experiments import (
    cross_fitted,
    promised,
    recipes,
    stage_two,
    state_shards,
)
from epnet_tf.experiments.config import (
    SCHEDULES,
    Config,
    Schedule,
    check_files,
    completed,
    draws_for,
    exits_to_choose,
    load_dataset,
    passes_for,
    read_settings,
    schedule_for,
)
from epnet_tf.experiments.stage_one import (
    build_model,
    trained_classifiers,
    trained_file,
    untrained,
)
from epnet_tf.experiments.stage_two import model_file, range_file
from epnet_tf.files import write_whole
from epnet_tf.model import EPNet
from epnet_tf.model.loading import save_model
from epnet_tf.model.states import ExitStates, StoredStates, compute_states
from epnet_tf.policies import budget
from epnet_tf.training.distributed import is_chief

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
    config = _as_begun(config, begun)
    metrics = _finished(metrics_file) if begun == config.as_json() else None
    agree(team, "whether --workdir has the results", metrics is not None)
    if metrics is not None:
        shutil.rmtree(workdir / _STATES, ignore_errors=True)  # If killed before.
        return metrics
    dataset = load_dataset(config.as_json(), data_dir)
    config = _for_data(config, dataset)
    if begun != config.as_json():
        _check(workdir, config, dataset, strategy)
        if is_chief(strategy):
            _begin(workdir, config)
    model = _first_stage(config, dataset, workdir, verbose, strategy, team)
    states = _exit_states(config, model, dataset, workdir, verbose, team)
    if states is not None:
        _second_stage(config, model, dataset, states, workdir, verbose)
        shutil.rmtree(workdir / _STATES, ignore_errors=True)
    agree(team, "that metrics.json is written", True)
    return json.loads(metrics_file.read_text())


def _as_begun(config: Config, begun: dict | None) -> Config:
    """The configuration with what it leaves open as it was when it was begun."""
    if begun is None:
        return config
    same_costs = begun["costs"] == config.as_json()["costs"]
    betas = tuple(begun["betas"]) if same_costs else ()
    return _filled(config, betas, begun["schedule"]["controller_epochs"])


def _for_data(config: Config, dataset: data.Dataset) -> Config:
    """The configuration with what it leaves to data and network."""
    if not _has_betas(config):
        model = untrained(config.schedule, dataset)
        model.costs = config.costs
        config = _filled(config, promised.betas_for_size(model.exit_costs.full))
    return _filled(config, controller_epochs=passes_for(len(dataset.train)))


def _first_stage(config: Config, dataset, workdir, verbose, strategy, team) -> EPNet:
    """The model with trained classifiers, at the exits that were asked for."""
    model = trained_classifiers(config, dataset, workdir, verbose, strategy, team)
    model.costs = config.costs
    count = exits_to_choose(config.schedule.exits)
    if count:
        file = workdir / "classifiers.keras"
        if is_chief(strategy):
            model = _chosen_exits(config, model, count, dataset, verbose)
            save_model(model, file)
        agree(team, "that the chosen exits are written", True)
        if not is_chief(strategy):  # Else another processor might choose otherwise.
            model = keras.saving.load_model(file)
    return model


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


def _chosen_exits(config: Config, model, count: int, dataset, verbose) -> EPNet:
    """The model with the exits that pay at the experiment's β.

    Where these are yet to be found for promises, at those that suit the network.
    """
    betas = config.betas or promised.betas_for_size(model.exit_costs.full)
    split = dataset.validation
    states = compute_states(model, split.images, split.labels, verbose=verbose)
    if verbose:
        print(model.exit_summary(states))
    return model.with_exits(policies.select_exits(model, states, betas, count))


def _exit_states(
    config: Config,
    model: EPNet,
    dataset: data.Dataset,
    workdir: pathlib.Path,
    verbose,
    team: Team | None,
) -> tuple[ExitStates | StoredStates, ExitStates, ExitStates] | None:
    """States of training, validation and test images; with a team, the chief's alone.

    Streamed training images may be many: their states are on disk.
    """
    if team is not None:
        return _shared_exit_states(config, model, dataset, workdir, verbose, team)

    def computed(split: data.Split) -> ExitStates:
        return compute_states(model, split.images, split.labels, verbose=verbose)

    def learned_from() -> ExitStates | StoredStates:
        if cross_fitted.applies(config.schedule, dataset):
            return _cross_fitted(config, model, dataset, verbose)
        unseen = dataset.unseen_draws(draws_for(dataset))
        if not isinstance(unseen.images, data.StreamedImages):
            return computed(unseen)
        return compute_states(
            model,
            unseen.images,
            unseen.labels,
            verbose=verbose,
            directory=workdir / _STATES / "train",
        )

    return learned_from(), computed(dataset.validation), computed(dataset.test)


def _shared_exit_states(
    config: Config,
    model: EPNet,
    dataset: data.Dataset,
    workdir: pathlib.Path,
    verbose,
    team: Team,
) -> tuple[ExitStates, ExitStates, ExitStates] | None:
    """States of training, validation and test images, by several workers.

    Workers but the chief get none: what is left is the chief's, cross-fitting, which is
    for few images, included.
    """
    is_cross_fitted = cross_fitted.applies(config.schedule, dataset)
    splits = {"validation": dataset.validation, "test": dataset.test}
    if not is_cross_fitted:
        splits["train"] = dataset.unseen_draws(draws_for(dataset))
    folder = workdir / _STATES
    recipe = recipes.of_file(workdir / "classifiers.keras")
    worker, workers = team.cluster.index, len(team.cluster.workers)
    for name, split in splits.items():
        state_shards.write(
            folder / name, recipe, model, split, worker, workers, verbose
        )
    team.agree("that exit states are written", True)
    if not team.cluster.is_chief:
        return None
    found = {
        name: state_shards.read(folder / name, recipe, len(split))
        for name, split in splits.items()
    }
    if is_cross_fitted:
        found["train"] = _cross_fitted(config, model, dataset, verbose)
    return found["train"], found["validation"], found["test"]


def _cross_fitted(config: Config, model, dataset, verbose) -> ExitStates:
    draws = draws_for(dataset)
    return cross_fitted.states(
        model, dataset, config.schedule, draws, config.seed, verbose
    )


def _has_betas(config: Config) -> bool:
    return bool(config.betas or config.budgets or config.accuracy_drops)


def _filled(
    config: Config, betas: tuple[float, ...] = (), controller_epochs: int = 0
) -> Config:
    """The configuration with β and passes where it leaves them open."""
    schedule = config.schedule
    if not schedule.controller_epochs:
        schedule = dataclasses.replace(schedule, controller_epochs=controller_epochs)
    betas = config.betas if _has_betas(config) else betas
    return dataclasses.replace(config, schedule=schedule, betas=betas)


def _begun(workdir: pathlib.Path, config: Config) -> dict | None:
    """The configuration with which the folder's experiment was begun, if any.

    Raises:
        ValueError: If it differs in more than stage two, which can start over, is no
            experiment's, or a user's own files are others than they were.
    """
    file, new = workdir / "config.json", config.as_json()
    if not file.exists():
        return None
    begun = completed(read_settings(file))
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
    check_files(begun, workdir)
    begun.pop("files", None)
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
    if len(dataset.validation) < 2:
        raise ValueError(
            "Expected at least 2 validation images, to tune thresholds on one and "
            "score them on another. "
            f"Received: {len(dataset.validation)} for {dataset.name}."
        )
    trained = trained_file(workdir, config)
    if not trained.exists():
        data.steps_per_epoch(
            dataset.train, config.schedule.batch_size, strategy.num_replicas_in_sync
        )
        model = untrained(config.schedule, dataset)
    elif config.costs is not None or config.budgets:
        model = keras.saving.load_model(trained)
    else:
        return
    model.costs = config.costs
    for text in config.budgets:
        budget.parse(text, model.exit_costs)


def _begin(workdir: pathlib.Path, config: Config) -> None:
    """Takes away what was, and writes `config.json`."""
    (workdir / "metrics.json").unlink(missing_ok=True)
    if exits_to_choose(config.schedule.exits):  # For another β, others may be chosen.
        shutil.rmtree(workdir / _STATES, ignore_errors=True)
    with write_whole(workdir / "config.json") as path:
        files = {"files": data.fingerprint(config.dataset)}
        path.write_text(json.dumps(config.as_json() | files, indent=1))


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
