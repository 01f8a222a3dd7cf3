"""Stage two of an experiment: controllers for each β, for a range, and their scores."""

import pathlib
from collections.abc import Collection, Sequence

from epnet_tf import policies
from epnet_tf.evaluation import curve, reports
from epnet_tf.experiments import shipped
from epnet_tf.experiments.config import Config
from epnet_tf.model import EPNet
from epnet_tf.model.loading import save_model
from epnet_tf.model.states import ExitStates, StoredStates
from epnet_tf.training.sweep import train_controllers

# For each β, a score for each seed.
Scores = list[list[policies.Score]]

# Controllers for a range see each β in a part of the images only.
_RANGE_EPOCHS = 2


def run(
    config: Config,
    model: EPNet,
    dataset: str,
    states: tuple[ExitStates | StoredStates, ExitStates, ExitStates],
    workdir: pathlib.Path,
    verbose="auto",
    promised: Collection[float] = (),
) -> dict:
    """Trains controllers, scores them and other policies, and saves the better.

    Args:
        config: The configuration.
        model: The `EPNet` with trained classifiers.
        dataset: Name of the data set.
        states: Exit states of the training, validation and test images.
        workdir: Folder for the models.
        verbose: As in `keras.Model.fit`.
        promised: β whose controllers a promise was made for.

    Returns:
        As `epnet_tf.evaluation.reports.metrics`, and `shipped`: for each β which policy
        is, as from `shipped.choose`. With a range of β, `epnet` is the one model for
        the range, `epnet-dedicated` has controllers for each β alone, `curve` is what
        `epnet_tf.evaluation.curve.curve` gathers, and `behind` what `shipped.behind`.
    """
    train, validation, test = states
    betas, beta_range = config.betas, config.beta_range
    alone, choices = dedicated(config, model, states, workdir, verbose, promised)
    if beta_range is None:
        scores = {"epnet": alone} | baselines(model, validation, test, betas)
        metrics = reports.metrics(model, dataset, test, betas, scores)
        return metrics | {"shipped": choices}
    model = model.with_new_controllers(beta_range=beta_range)
    points = curve.curve_betas(beta_range)
    both = for_range(config, model, train, test, (*betas, *points), workdir, verbose)
    learned = {"epnet": both[: len(betas)], "epnet-dedicated": alone}
    scores = learned | baselines(model, validation, test, betas)
    metrics = reports.metrics(model, dataset, test, betas, scores)
    metrics["shipped"] = choices
    metrics["behind"] = shipped.behind(model, validation, betas)
    others = baselines(model, validation, test, points)
    metrics["curve"] = curve.curve(beta_range, {"epnet": both[len(betas) :]} | others)
    return metrics


def dedicated(
    config: Config,
    model: EPNet,
    states: tuple[ExitStates | StoredStates, ExitStates, ExitStates],
    workdir: pathlib.Path,
    verbose="auto",
    promised: Collection[float] = (),
) -> tuple[Scores, list[dict]]:
    """Trains controllers for each β alone, and saves a model for each.

    It is of the first seed, with thresholds instead where they are better.

    Args:
        config: The configuration.
        model: The `EPNet` with trained classifiers.
        states: Exit states of the training, validation and test images.
        workdir: Folder for the models.
        verbose: As in `keras.Model.fit`.
        promised: β whose controllers a promise was made for.

    Returns:
        The controllers' scores on the test images; and for each β what is saved, as
        from `shipped.choose`.
    """
    train, validation, test = states
    scores: Scores = [[] for _ in config.betas]
    choices = []
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
                is_promised = beta in promised
                better, choice = shipped.choose(model, validation, beta, is_promised)
                save_model(better, model_file(workdir, beta))
                choices.append(choice)
    return scores, choices


def for_range(
    config: Config,
    model: EPNet,
    train: ExitStates | StoredStates,
    test: ExitStates,
    betas: Sequence[float],
    workdir: pathlib.Path,
    verbose="auto",
) -> Scores:
    """Trains one set of controllers for all β, and saves the model of the first seed.

    Args:
        config: The configuration.
        model: The `EPNet` with trained classifiers and `beta_range`.
        train: States of the training images.
        test: States of the test images.
        betas: Cost sensitivities to score at, points per unit of cost.
        workdir: Folder for the model.
        verbose: As in `keras.Model.fit`.

    Returns:
        The scores on the test images.
    """
    scores: Scores = [[] for _ in betas]
    for repeat in range(config.controller_seeds):
        sweep = train_controllers(
            model,
            train,
            seed=config.seed + repeat,
            epochs=_RANGE_EPOCHS * config.schedule.controller_epochs,
            verbose=verbose,
        )
        sweep.assign()
        for of_beta, beta in zip(scores, betas, strict=True):
            of_beta.append(policies.score(policies.epnet(model, beta), test))
        if repeat == 0:
            save_model(model, range_file(workdir))
    return scores


def baselines(
    model: EPNet, validation: ExitStates, test: ExitStates, betas: Sequence[float]
) -> dict[str, Scores]:
    """Scores what EPNet has to beat: tuned thresholds, the best exit, the last exit.

    Args:
        model: The `EPNet` with trained classifiers.
        validation: States to tune on.
        test: States of the test images.
        betas: Cost sensitivities, points per unit of cost.

    Returns:
        For each policy, its scores on the test images.
    """
    scores: dict[str, Scores] = {}
    for beta in betas:
        for policy in (
            policies.softmax_per_exit(validation, model.exit_costs, beta),
            policies.softmax_gate_tuned(validation, model.exit_costs, beta),
            policies.static(validation, model.exit_costs, beta),
            policies.resnet(model.exit_costs),
        ):
            scores.setdefault(policy.name, []).append([policies.score(policy, test)])
    return scores


def model_file(workdir: pathlib.Path, beta: float) -> pathlib.Path:
    """Where the model for one β is: `beta-5e-07/model.keras` in the folder."""
    return workdir / f"beta-{beta:g}" / "model.keras"


def range_file(workdir: pathlib.Path) -> pathlib.Path:
    """Where the one model for a range of β is: `model.keras` in the folder."""
    return workdir / "model.keras"
