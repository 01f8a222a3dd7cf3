"""Controllers of a case: trained now, or as they were kept."""

import json
import os
import pathlib
import time

import keras
import numpy as np

from epnet_tf import policies
from epnet_tf.experiments import recipes
from epnet_tf.experiments.case import Case
from epnet_tf.model import EPNet
from epnet_tf.policies.learned import ControllerWeights
from epnet_tf.training import train_controllers


def trained_controllers(
    case: Case, name: str, model: EPNet | None = None, betas: tuple[float, ...] = ()
) -> tuple[list[list[ControllerWeights]], float]:
    """Controllers for some β from all seeds, trained now or as they were kept.

    What is kept, and scored, is rounded to half precision: a third of a megabyte for
    one β and three seeds.

    Args:
        case: The case.
        name: Name of the files.
        model: The `EPNet` whose controllers are meant, if not the case's.
        betas: Cost sensitivities; by default all of the plan.

    Returns:
        For each β, for each seed, the weights; and the seconds that a training of all
        β took.
    """
    model, betas = model or case.model, betas or case.plan.all_betas
    found = []
    for seed in range(case.seeds):
        recipe = case.recipe | {
            "betas": betas,
            "seed": seed,
            "epochs": case.controller_epochs,
            "controller": model.get_config()["controller"],
        }
        file = case.folder / f"{name}-{seed}.npz"
        text = json.dumps(recipe, sort_keys=True)
        if recipes.recipe_of(file) != text:
            _write(file, text, *_train(case, model, betas, seed))
        found.append(_read(file))
    weights = [list(of_seeds) for of_seeds in zip(*(w for w, _ in found), strict=True)]
    return weights, float(np.median([seconds for _, seconds in found]))


def kept_controllers(
    folder: str | os.PathLike, name: str, seed: int
) -> dict[float, ControllerWeights]:
    """Controllers as they were kept, whatever they were trained on.

    Args:
        folder: The case's folder for controllers.
        name: As in `trained_controllers`.
        seed: The seed.

    Returns:
        For each β the weights.
    """
    file = pathlib.Path(folder) / f"{name}-{seed}.npz"
    weights, _ = _read(file)
    return dict(zip(json.loads(recipes.recipe_of(file))["betas"], weights, strict=True))


def kept_model(workdir: str | os.PathLike, beta: float, seed: int = 0) -> EPNet:
    """A folder's network with controllers that its evaluation has kept.

    Args:
        workdir: Folder that `train.py` filled, and `evaluate.py` has controllers in.
        beta: One of the β that they were trained for.
        seed: The controllers' seed.

    Returns:
        The model.

    Raises:
        ValueError: If there are no controllers for β.
    """
    workdir = pathlib.Path(workdir)
    kept = kept_controllers(workdir / "controllers", "epnet", seed)
    if beta not in kept:
        raise ValueError(
            f"Expected one of the beta with controllers in '{workdir}': "
            f"{', '.join(f'{beta:g}' for beta in kept)}. Received: beta={beta:g}."
        )
    model = keras.saving.load_model(workdir / "classifiers.keras")
    policies.assign_controllers(model, kept[beta])
    model.beta = beta
    return model


def _train(case, model, betas, seed) -> tuple[list[ControllerWeights], float]:
    start = time.perf_counter()
    sweep = train_controllers(
        model, case.train, betas, seed, case.controller_epochs, verbose=0
    )
    seconds = time.perf_counter() - start
    weights = []
    for i in range(len(betas)):
        sweep.assign(i)
        weights.append(policies.controller_weights(model))
    return weights, seconds


def _write(file, recipe: str, weights: list[ControllerWeights], seconds: float):
    arrays: dict = {
        f"{i}/{exit_number}/{kind}/{k}": array.astype("float16") if not kind else array
        for i, of_beta in enumerate(weights)
        for exit_number, of_exit in enumerate(of_beta)
        for kind, of_kind in enumerate(of_exit)
        for k, array in enumerate(of_kind)
    }
    arrays["seconds"] = np.array(seconds)
    recipes.write(file, recipe, arrays, np.savez_compressed)


def _read(file: pathlib.Path) -> tuple[list[ControllerWeights], float]:
    """What was written, in single precision: for each β the weights; the seconds."""
    weights: dict[int, dict[int, tuple[list, list]]] = {}
    with np.load(file) as kept:
        for key in kept.files:
            if "/" in key:
                i, exit_number, kind, _ = map(int, key.split("/"))
                array = kept[key]
                of_exit = weights.setdefault(i, {}).setdefault(exit_number, ([], []))
                of_exit[kind].append(array if kind else array.astype("float32"))
        seconds = float(kept["seconds"])
    return [list(of_beta.values()) for of_beta in weights.values()], seconds
