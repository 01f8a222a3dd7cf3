"""Exit states in shards on disk, which several workers compute side by side."""

import os
import pathlib

import numpy as np

from epnet_tf.data import Split
from epnet_tf.experiments import recipes
from epnet_tf.model import EPNet, ExitStates, compute_states
from epnet_tf.model.states import joined
from epnet_tf.runtime.prediction import numbered

# Images in a shard: what is lost when a worker is killed is one of these.
_SHARD = 4096


def write(
    folder: pathlib.Path,
    recipe: str,
    model: EPNet,
    split: Split,
    worker: int,
    workers: int,
    verbose="auto",
) -> None:
    """Computes those shards of a worker's that are not there yet.

    Which images are in a shard does not depend on the number of workers: another
    number of them goes on with what is there.

    Args:
        folder: Where the split's shards are.
        recipe: What states depend on, beside the images: `recipes.of_file` of the
            trained classifiers.
        model: The `EPNet` with trained classifiers.
        split: All images and labels.
        worker: This worker's number, from 0.
        workers: Number of workers.
        verbose: As in `keras.Model.predict`.
    """
    for start in range(worker * _SHARD, len(split), workers * _SHARD):
        file = _file(folder, start)
        if recipes.recipe_of(file) == recipe:
            continue
        part = slice(start, start + _SHARD)
        states = compute_states(
            model, split.images[part], split.labels[part], verbose=verbose
        )
        arrays = {"logits": states.logits, "labels": states.labels}
        arrays |= {f"pooled_{i:02d}": m for i, m in enumerate(states.pooled, 1)}
        recipes.write(file, recipe, arrays)


def read(folder: pathlib.Path, recipe: str, count: int) -> ExitStates:
    """The states of all images, from all shards.

    Args:
        folder: Where the split's shards are.
        recipe: As in `write`.
        count: Number of images.

    Raises:
        ValueError: If a shard is missing or of another network.
    """
    parts = []
    for start in range(0, count, _SHARD):
        file = _file(folder, start)
        if recipes.recipe_of(file) != recipe:
            raise ValueError(
                "Expected the exit states that another worker has written, in a "
                f"--workdir that all workers see. Received: none in '{file}'."
            )
        with np.load(file) as kept:
            pooled = tuple(kept[name] for name in numbered(kept.files, "pooled"))
            parts.append(ExitStates(pooled, kept["logits"], kept["labels"]))
    return joined(parts)


def _file(folder: str | os.PathLike, start: int) -> pathlib.Path:
    return pathlib.Path(folder) / f"{start:09d}.npz"
