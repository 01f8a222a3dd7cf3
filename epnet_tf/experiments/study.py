"""The evaluation of one data set: from a trained network to report and figures."""

import contextlib
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Sequence

import numpy as np
from absl import logging
from matplotlib.figure import Figure

from epnet_tf.evaluation import (
    contest,
    exit_figures,
    figures,
    markdown,
    policy_figures,
    promises,
    reports,
    tables,
)
from epnet_tf.evaluation.contest import Outcomes
from epnet_tf.experiments import controller_tables, learning, sample
from epnet_tf.experiments.case import (
    Case,
    load_case,
    load_range_model,
)
from epnet_tf.experiments.case_controllers import trained_controllers
from epnet_tf.experiments.contestants import contestants, paper_contestants
from epnet_tf.files import write_whole
from epnet_tf.runtime.cost_table import read_costs

# Of a report, what no other program's has together.
_KEYS = {"dataset", "betas", "policies", "way_to_hindsight", "command"}


def evaluate(
    workdir: str | os.PathLike,
    results_dir: str | os.PathLike,
    data_dir: str | None = None,
    betas: tuple[float, ...] = (),
    seeds: int = 3,
    budgets: Sequence[str] = (),
    accuracy_drops: Sequence[float] = (),
    costs: str | None = None,
) -> dict:
    """Scores all policies on a trained network, and writes tables and figures.

    Writes `report.json`, `report.md`, the figures as PNG and SVG, and `sample.npz`, a
    few test images to redo scores on. Controllers are trained if `workdir` does not
    have them yet.

    Args:
        workdir: Folder with `config.json` and `classifiers.keras`, as `train.py`
            leaves it.
        results_dir: Folder of the results; that of the data set is made in it.
        data_dir: Folder of the data sets' files (see `epnet_tf.data.load_dataset`).
        betas: Cost sensitivities instead of the paper's.
        seeds: Trainings of the controllers to average.
        budgets: See `promises.keep`; these and the next need the folder's
            `model.keras`, for a range of β.
        accuracy_drops: See `promises.keep`.
        costs: A file of costs in another unit than MACs, see `epnet_tf.read_costs`;
            by default those that the folder was trained for.

    Returns:
        What `report.json` holds.

    Raises:
        ValueError: If the folder has no trained classifiers, there is no β, a promise
            cannot be kept, or costs are of another network or in another unit.
        OSError: If there can be no such folder of results.
    """
    start = time.perf_counter()
    promising = budgets or accuracy_drops
    range_model = load_range_model(workdir) if promising else None
    table = None if costs is None else read_costs(costs)
    case = load_case(workdir, data_dir, betas, seeds, verbose=0, costs=table)
    folder = pathlib.Path(results_dir) / case.dataset.name
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    if range_model is not None:
        range_model.costs = case.model.costs
        promises.check(range_model.exit_costs, budgets, accuracy_drops)
        kept = promises.keep(
            range_model, case.validation, case.test, budgets, accuracy_drops
        )
    report, drawings = study(case)
    report["promises"] = kept
    # The data's place is left out: it is not the same on another machine.
    report["command"] = " ".join(
        [
            f"python evaluate.py --workdir={workdir} --results={results_dir}",
            f"--seeds={seeds}",
            *([] if costs is None else [f"--costs={costs}"]),
            *(f"--beta={beta:g}" for beta in betas),
            *(f"--budget={text}" for text in budgets),
            *(f"--max_accuracy_drop={points:g}" for points in accuracy_drops),
        ]
    )
    report["sample"] = sample.write(case, folder / "sample.npz")
    report["seconds"] = time.perf_counter() - start
    for name, figure in drawings.items():
        for ending in ("png", "svg"):
            figures.save(figure, folder / f"{name}.{ending}")
    with write_whole(folder / "report.json") as path:
        path.write_text(json.dumps(report, indent=1))
    with write_whole(folder / "report.md") as path:
        path.write_text(markdown.report(report, sorted(drawings)))
    return report


def reports_in(results_dir: str | os.PathLike) -> dict[pathlib.Path, dict]:
    """The reports that `evaluate` has written; other files of their name are left out.

    Args:
        results_dir: As in `evaluate`.

    Returns:
        What the `report.json` of each data set holds, by their paths.
    """
    found = {}
    for file in sorted(pathlib.Path(results_dir).glob("*/report.json")):
        with contextlib.suppress(ValueError):
            content = json.loads(file.read_bytes())
            if isinstance(content, dict) and content.keys() >= _KEYS:
                found[file] = content
    return found


def study(case: Case) -> tuple[dict, dict[str, Figure]]:
    """All tables and figures of a case.

    Args:
        case: The case.

    Returns:
        The report, as `report.json` holds it (without promises, command and sample),
        and the figures by name.
    """
    found = contestants(case)
    papers = contest.outcomes(paper_contestants(case.paper), case.paper.test)
    logging.info("Policies are made.")
    learned = learning.compare(case)
    found["reinforce"] = {learned.beta: learned.policies["reinforce"]}
    logging.info("Learning is compared.")
    noise = learning.gradient_noise(case)
    results = contest.outcomes(found, case.test) | papers
    report = _report(case, results)
    report["learning"] = learned.summary(case.test) | {"gradient_noise": noise}
    report["sweep"] = sweep_speed(case)
    return report, _figures(case, results, report, learned)


def sweep_speed(case: Case) -> dict:
    """How long all β take on cached states, and one β on images.

    Args:
        case: The case.

    Returns:
        `betas`, `seconds` of the sweep as it was trained; from 50 steps each, now,
        `sweep_seconds`, `states_seconds` and, for one β and as many epochs,
        `seconds_on_images`; `times_faster` than images for all β, and
        `times_faster_with_states`, the time to compute these included.
    """
    _, seconds = trained_controllers(case, "epnet")
    per_image = learning.speed(case)
    passes = len(case.train) * case.controller_epochs
    sweep, one_beta = per_image["sweep"] * passes, per_image["images"] * passes
    states = per_image["states"] * (len(case.unseen) + len(case.validation))
    count = len(case.plan.all_betas)
    return {
        "betas": count,
        "seconds": seconds,
        "sweep_seconds": sweep,
        "states_seconds": states,
        "seconds_on_images": one_beta,
        "times_faster": one_beta * count / sweep,
        "times_faster_with_states": one_beta * count / (sweep + states),
    }


def _report(case: Case, results: Outcomes) -> dict:
    plan, test = case.plan, case.test
    betas = plan.all_betas
    scores = {
        name: [[o.score for o in of_betas[b]] for b in betas]
        for name, of_betas in results.items()
        if set(of_betas) == set(betas)
    }
    report = reports.metrics(case.model, case.dataset.name, test, betas, scores)
    for name in results.keys() - scores.keys():
        report["policies"][name] = [
            tables.mean_score(results, name, beta) for beta in results[name]
        ]
    report["classifiers"] = case.recipe["classifiers"]
    report["paper_network"] = {
        "classifiers": case.paper.recipe["classifiers"],
        "accuracies": case.paper.test.correct.mean(axis=0).tolist(),
    }
    report["settings"] = {
        "seeds": case.seeds,
        "controller_epochs": case.controller_epochs,
        "test_images": len(test),
        **dataclasses.asdict(plan),
        "benefits": sorted(plan.benefits.items()),
        "leads": sorted(plan.leads.items()),
    }
    report["betas"] = list(plan.betas)
    report["table1"] = tables.budget_table(
        results, plan.table_beta, case.dataset.num_classes, case.dataset.name
    )
    if case.dataset.name == "cifar10":
        report["table2"] = controller_tables.controller_table(case)
    report["way_to_hindsight"] = tables.way_to_hindsight(results)
    report["at_share"] = controller_tables.at_share(case)
    report["exit_profile"] = tables.exit_profile(
        test, results["epnet"][plan.table_beta][0].exits
    )
    report["calibration"] = tables.calibration(test)
    return report


def _figures(case: Case, results: Outcomes, report: dict, learned) -> dict:
    plan, name, test = case.plan, case.dataset.name, case.test
    count, unit = case.model.num_exits, case.model.exit_costs.unit
    exits = results["epnet"][plan.table_beta][0].exits
    answers = test.predictions[np.arange(len(test)), exits - 1]
    groups = {
        beta: _by_difficulty(case, results["epnet"][beta][0].exits)
        for beta in plan.exit_betas
    }
    drawn = {
        "benefit": policy_figures.benefit_against_beta([report]),
        "exit-profile": exit_figures.exit_profile(
            report["exit_profile"], name, plan.table_beta
        ),
        "learning": policy_figures.learning_curves(learned, name),
        "way-to-hindsight": policy_figures.way_to_hindsight(report),
        f"accuracy-against-{unit}": policy_figures.accuracy_against_cost(report),
        "calibration": exit_figures.calibration(report["calibration"], name),
        "examples": exit_figures.example_sheet(
            case.dataset.test, case.dataset.labels, exits, answers, count
        ),
    }
    if groups:
        drawn["exit-rates"] = figures.cumulative_exit_rate_panels(groups, count)
    return drawn


def _by_difficulty(case: Case, exits: np.ndarray) -> dict[str, np.ndarray]:
    difficulty = case.dataset.test.difficulty
    if difficulty is None:
        return {"all images": exits}
    return {
        name: exits[difficulty == i] for i, name in enumerate(case.dataset.difficulties)
    }
