"""Which part brings what: from the paper's heads and controllers to ours.

    python benchmarks/parts.py --models=models --results=results

Writes `parts.md`: for each data set one row per step, with the test accuracy of each
exit and the benefit at three β on the test images. Thresholds are tuned on validation
images; controllers are those that the evaluation keeps, means over seeds, so that
nothing is trained here. A network whose controllers nobody has trained has thresholds
alone.
"""

import dataclasses
import pathlib

import numpy as np
from absl import flags

from epnet_tf import cli

_MODELS = flags.DEFINE_string("models", "models", "Folder of the trained networks.")
_RESULTS = flags.DEFINE_string("results", "results", "Folder for what comes out.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds of the controllers.", lower_bound=1)

# Data set to the β that are told, and to networks between the paper's, in the folder's
# `paper`, and the folder's own: name of the folder, and what it is.
DATASETS = {
    "maxmin": ((2e-7, 4e-7, 1e-6), {}),
    "multiscale": ((2e-7, 4e-7, 1e-6), {}),
    "cifar10": (
        (5e-7, 2.5e-6, 5e-6),
        {"cifar10-grid": "our heads, from the network above, 15 epochs more"},
    ),
}
# Policies to what the tables call them.
POLICIES = {
    "softmax-per-exit": "a threshold per exit",
    "epnet-paper": "the paper's controllers",
    "epnet": "our controllers",
}


def main(_) -> None:
    """Scores every step on every data set, and writes the tables."""
    # Not before the flags are known to be right: this takes seconds.
    from epnet_tf.evaluation import markdown
    from epnet_tf.experiments.case import load_case
    from epnet_tf.files import write_whole
    from epnet_tf.model.loading import load_model

    models, results = pathlib.Path(_MODELS.value), pathlib.Path(_RESULTS.value)
    parts = [_INTRODUCTION]
    for name, (betas, between) in DATASETS.items():
        ours = load_case(models / name, _DATA_DIR.value, seeds=_SEEDS.value, verbose=0)
        steps = [("the paper's heads and sum", ours.paper)]
        for folder, what in between.items():
            model = load_model(models / folder / "classifiers.keras")
            case = dataclasses.replace(
                ours, model=model, folder=models / folder / "controllers"
            )
            steps.append((what, case))
        steps.append((_recipe(models / name), ours))
        rows = [row for step in steps for row in _rows(*step, betas)]
        head = ["network", "its exits, % right", "policy"]
        head += [f"β = {beta:g}" for beta in betas]
        parts += [f"## {name}\n", markdown.table(head, rows)]
        print(parts[-1], flush=True)
    with write_whole(results / "parts.md") as path:
        path.write_text("\n".join(parts))


_INTRODUCTION = (
    "# Which part brings what\n\n"
    "Made by `python benchmarks/parts.py`. Test images; the benefit is in points, that "
    "of controllers a mean of three seeds. A network that goes on from another has had "
    "its epochs too, so that a step between networks is not its heads alone.\n"
)


def _recipe(folder: pathlib.Path) -> str:
    """How the network was trained, in words, from its configuration."""
    from epnet_tf.experiments.config import read_settings

    schedule = read_settings(folder / "config.json")["schedule"]
    told = [f"our heads, {schedule['epochs']} epochs"]
    if schedule.get("equilibrium"):
        told.append("gradient equilibrium")
    if schedule.get("freeze"):
        told.append("main branch frozen")
    if schedule.get("weights"):
        told.append("going on from an earlier network")
    return ", ".join(told)


def _rows(name: str, case, betas) -> list[list[str]]:
    """The rows of one network: a policy each, of which there is something to tell."""
    from epnet_tf import policies
    from epnet_tf.experiments.case_controllers import kept_controllers

    accuracies = " ".join(f"{100 * a:.1f}" for a in case.test.correct.mean(axis=0))
    costs = case.model.exit_costs
    thresholds = [
        [policies.softmax_per_exit(case.validation, costs, beta)] for beta in betas
    ]
    found = {"softmax-per-exit": thresholds}
    papers = case.model.with_new_controllers(case.plan.paper_controller)
    for key, model in (("epnet-paper", papers), ("epnet", case.model)):
        files = [case.folder / f"{key}-{seed}.npz" for seed in range(case.seeds)]
        if all(file.exists() for file in files):
            kept = [kept_controllers(case.folder, key, s) for s in range(case.seeds)]
            found[key] = [
                [policies.epnet(model, weights=weights[beta]) for weights in kept]
                for beta in betas
            ]
    return [
        [name, accuracies, POLICIES[key], *_benefits(of_betas, case.test, betas)]
        for key, of_betas in found.items()
    ]


def _benefits(of_betas, states, betas) -> list[str]:
    from epnet_tf import policies

    return [
        f"{np.mean([policies.score(p, states).benefit(beta) for p in seeds]):.2f}"
        for seeds, beta in zip(of_betas, betas, strict=True)
    ]


if __name__ == "__main__":
    cli.run(main)
