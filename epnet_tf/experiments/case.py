"""What an evaluation works on: data, a trained network, exit states."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Sequence

import keras
import numpy as np

from epnet_tf import data
from epnet_tf.experiments import cross_fitted, recipes
from epnet_tf.experiments.config import (
    Schedule,
    check_files,
    draws_for,
    given_costs,
    load_dataset,
    read_settings,
)
from epnet_tf.experiments.plans import PLANS, Plan, plan_for
from epnet_tf.model import EPNet, ExitStates, compute_states
from epnet_tf.model.states import joined
from epnet_tf.runtime.cost_table import CostTable


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A trained network on a data set.

    Exit states are computed when they are first asked for.

    Attributes:
        dataset: The data set.
        model: The `EPNet` with trained classifiers.
        plan: What is evaluated.
        folder: Where trained controllers are kept.
        recipe: What the controllers depend on, besides β and seed.
        schedule: How the classifiers were trained.
        seed: The experiment's.
        controller_epochs: Passes over the training states.
        seeds: Trainings of the controllers to average.
        verbose: As in `keras.Model.predict`.
        own_paper: The case that the paper's controllers have for themselves, if any.
    """

    dataset: data.Dataset
    model: EPNet
    plan: Plan
    folder: pathlib.Path
    recipe: dict
    schedule: Schedule
    seed: int
    controller_epochs: int = 10
    seeds: int = 3
    verbose: str | int = "auto"
    own_paper: "Case | None" = None

    @property
    def paper(self) -> "Case":
        """The case of the paper's controllers: their own, or this one.

        The paper describes them on a network whose exits see global averages alone.
        """
        return self.own_paper or self

    @property
    def unseen(self) -> ExitStates:
        """States of training images (`Dataset.unseen`), drawn as often as planned."""
        return self._training[0]

    @property
    def train(self) -> ExitStates:
        """States that controllers are trained on.

        They are `unseen`, and as the plan says, `validation` among them.
        """
        return self._training[1]

    @functools.cached_property
    def validation(self) -> ExitStates:
        """States that everything is tuned on."""
        return self._states(self.dataset.validation)

    @functools.cached_property
    def test(self) -> ExitStates:
        """States for the scores."""
        return self._states(self.dataset.test)

    @functools.cached_property
    def _training(self) -> tuple[ExitStates, ExitStates]:
        draws = self.plan.draws
        if cross_fitted.applies(self.schedule, self.dataset):
            unseen = cross_fitted.states(
                self.model,
                self.dataset,
                self.schedule,
                draws,
                self.seed,
                self.verbose,
            )
        else:
            unseen = self._states(self.dataset.unseen_draws(draws))
        held_out = [self.validation] * self.plan.validation_repeats
        return mixed([unseen]), mixed([unseen, *held_out])

    def _states(self, split: data.Split) -> ExitStates:
        return compute_states(
            self.model, split.images, split.labels, verbose=self.verbose
        )


def load_case(
    workdir: str | os.PathLike,
    data_dir: str | None = None,
    betas: tuple[float, ...] = (),
    seeds: int = 3,
    verbose="auto",
    costs: CostTable | None = None,
) -> Case:
    """Loads what `train.py` left in a folder.

    Args:
        workdir: Folder with `config.json` and `classifiers.keras`. It may have a folder
            `paper` with the same of a network for the paper's controllers.
        data_dir: Folder of the data sets' files (see `epnet_tf.data.load_dataset`).
        betas: Cost sensitivities instead of the plan's.
        seeds: Trainings of the controllers to average.
        verbose: As in `keras.Model.predict`.
        costs: What leaving costs in another unit than MACs; by default what the
            folder was trained for. With them, `paper` is left aside.

    Returns:
        The `Case`.

    Raises:
        ValueError: If the folder has no trained classifiers, costs are of another
            network, there is no β in their unit, the network of the paper's
            controllers is for another data set, or a user's own files are others than
            it was trained on.
    """
    workdir = pathlib.Path(workdir)
    config = _config(workdir)
    priced = costs or given_costs(config)
    dataset = load_dataset(config, data_dir)
    plan = _plan(workdir, config, dataset, betas, priced)
    loaded = functools.partial(
        _loaded,
        dataset=dataset,
        costs=priced,
        kept_in=_folder_name(betas, priced),
        seeds=seeds,
        verbose=verbose,
    )
    own_paper, folder = None, workdir / "paper"
    # Costs in another unit were measured on the folder's network alone.
    if folder.is_dir() and priced is None:
        papers = dataclasses.replace(plan, validation_repeats=plan.paper_repeats)
        own_paper = loaded(folder, _papers_config(folder, config), papers)
    return loaded(workdir, config, plan, own_paper=own_paper)


def _loaded(
    folder: pathlib.Path,
    config: dict,
    plan: Plan,
    *,
    dataset: data.Dataset,
    costs: CostTable | None,
    kept_in: str,
    own_paper: Case | None = None,
    **settings,
) -> Case:
    """The case of the network in one folder."""
    file = folder / "classifiers.keras"
    model = keras.saving.load_model(file)
    model.costs = costs
    schedule = Schedule(**config["schedule"])
    states = "unseen" if plan.draws == 1 else f"unseen {plan.draws} times"
    if cross_fitted.applies(schedule, dataset):
        states = f"cross-fitted, {states}"
    recipe = {
        "states": states,
        "classifiers": recipes.of_file(file),
        "validation_repeats": plan.validation_repeats,
    }
    if costs is not None:
        recipe["costs"] = dataclasses.asdict(costs)
    return Case(
        dataset,
        model,
        plan,
        folder / kept_in,
        recipe,
        schedule,
        config["seed"],
        controller_epochs=-(-schedule.controller_epochs // plan.draws),
        own_paper=own_paper,
        **settings,
    )


def _plan(workdir, config: dict, dataset, betas, costs: CostTable | None) -> Plan:
    """The data set's plan, for the β given or, without a plan, the experiment's own."""
    name, own = config["dataset"], given_costs(config)
    same_unit = (own and own.unit) == (costs and costs.unit)
    if same_unit and (name not in PLANS or costs is not None):
        betas = betas or _betas_of(workdir, config)
    plan = plan_for(name, betas, costs)
    if name in PLANS:
        return plan
    return dataclasses.replace(plan, draws=draws_for(dataset))


def _folder_name(betas: tuple[float, ...], costs: CostTable | None) -> str:
    """Where controllers are kept.

    Those for other β or costs do not replace the usual ones, which may be committed.
    """
    usual = ["controllers"] if costs is None else ["controllers", "costs"]
    return "-".join([*usual, *(f"{beta:g}" for beta in betas)])


def _papers_config(folder: pathlib.Path, beside: dict) -> dict:
    """The configuration of the network for the paper's controllers.

    Raises:
        ValueError: If it is for other data than the one beside it.
    """
    config = _config(folder)
    here, there = ((c["dataset"], c["seed"]) for c in (beside, config))
    if here != there:
        raise ValueError(
            f"Expected a network for data set and seed {here} in '{folder}'. "
            f"Received: {there}."
        )
    return config


def _config(workdir: pathlib.Path) -> dict:
    files = [workdir / name for name in ("classifiers.keras", "config.json")]
    if not all(file.is_file() for file in files):
        raise ValueError(
            "Expected a folder with classifiers.keras and config.json, as train.py "
            f"leaves it. Received: '{workdir}'."
        )
    config = read_settings(files[1])
    check_files(config, workdir)
    return config


def _betas_of(workdir: pathlib.Path, config: dict) -> tuple[float, ...]:
    """The β of an experiment: those given, and those that were found for promises."""
    file = workdir / "metrics.json"
    if not file.is_file():
        return tuple(config["betas"])
    rows = json.loads(file.read_text())["policies"]["epnet"]
    return tuple(row["beta"] for row in rows)


def load_range_model(workdir: str | os.PathLike) -> EPNet:
    """Loads the one model for a range of β from a folder of `train.py`.

    Args:
        workdir: The folder.

    Raises:
        ValueError: If there is none.
    """
    file = pathlib.Path(workdir) / "model.keras"
    if not file.is_file():
        raise ValueError(
            "Expected a folder with model.keras, as train.py --beta_range leaves it, "
            f"to keep a budget with. Received: '{workdir}'."
        )
    return keras.saving.load_model(file)


def mixed(parts: Sequence[ExitStates]) -> ExitStates:
    """The states of all parts, in random order."""
    states = joined(parts)
    return states.take(np.random.default_rng(0).permutation(len(states)))
