"""Exit states on disk: of more images than memory has room for."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from epnet_tf.files import write_whole
from epnet_tf.model.exit_states import ExitStates, joined

_FILE = "states.json"
# Images in a shard: whole batches, some tens of megabytes with 1,000 classes.
_SHARD = 4096
_LARGEST = float(np.finfo(np.float16).max)


class StoredStates:
    """States as `ExitStates`, in half precision, in shards in a folder.

    Args:
        directory: The folder, as `compute_states` leaves it.
        memory: Bytes of states that are in memory at a time while they are trained on.

    Attributes:
        labels: int32 [n].

    Raises:
        ValueError: If there are no states, or not all of them.
    """

    def __init__(self, directory: str | os.PathLike, memory: int = 1 << 30):
        self.directory, self.memory = pathlib.Path(directory), memory
        if not _description(self.directory).get("complete"):
            raise ValueError(
                "Expected a folder of all exit states, as compute_states leaves it. "
                f"Received: {directory}"
            )
        self._shards = _shards(self.directory)
        self.labels = np.concatenate([np.load(s / "labels.npy") for s in self._shards])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def load(self) -> ExitStates:
        """All of them in memory, in single precision."""
        return joined(list(self.parts()))

    def parts(self) -> Iterator[ExitStates]:
        """All of them in single precision, shard by shard."""
        return map(_read, self._shards)

    def batches(self, batch_size: int, seed: int) -> tf.data.Dataset:
        """Endless shuffled batches, as a `ControllerSweep` is trained on.

        As many shards as `memory` has room for, others in each epoch, are shuffled
        together.

        Args:
            batch_size: Images in a batch; the last one of an epoch may have fewer.
            seed: Of the order, which it and the epoch alone decide.

        Returns:
            `tf.data.Dataset` of (`ExitStates.inputs`, correct float32 [b, N]).
        """

        def forever():
            epoch = 0
            while True:
                rng = np.random.default_rng([seed, epoch])
                for states in self._epoch(batch_size, rng):
                    yield states.inputs, states.correct.astype("float32")
                epoch += 1

        first = _read(self._shards[0]).take(slice(1))
        like = first.inputs, first.correct.astype("float32")
        specs = tf.nest.map_structure(
            lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), like
        )
        return tf.data.Dataset.from_generator(forever, output_signature=specs).prefetch(
            2
        )

    def _epoch(self, batch_size: int, rng: np.random.Generator) -> Iterator[ExitStates]:
        """Batches of one epoch; what does not fill one goes on with the next group."""
        rest: list[ExitStates] = []
        for group in self._groups(rng):
            states = joined([*rest, *(_read(shard) for shard in group)])
            order = rng.permutation(len(states))
            whole = len(states) - len(states) % batch_size
            for first in range(0, whole, batch_size):
                yield states.take(order[first : first + batch_size])
            rest = [states.take(order[whole:])]
        if len(rest[0]):
            yield rest[0]

    def _groups(self, rng: np.random.Generator) -> Iterator[list[pathlib.Path]]:
        """The shards in random order, as many together as there is memory for."""
        group: list[pathlib.Path] = []
        size = 0
        for i in rng.permutation(len(self._shards)):
            # In single precision, twice: in shards and joined.
            needed = 4 * sum(f.stat().st_size for f in self._shards[i].iterdir())
            if group and size + needed > self.memory:
                yield group
                group, size = [], 0
            group.append(self._shards[i])
            size += needed
        yield group


def begin(directory: str | os.PathLike, predictor: keras.Model) -> np.ndarray:
    """Begins to store a model's states, or goes on where it was stopped.

    Args:
        directory: The folder.
        predictor: What computes the states.

    Returns:
        The labels, int32 [k], of the images whose states are there.

    Raises:
        ValueError: If the folder has states of another model, or something else.
    """
    folder = pathlib.Path(directory)
    digest = hashlib.sha256()
    for weight in predictor.get_weights():
        digest.update(weight.tobytes())
    found = _description(folder)
    if not found:
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(
                f"Expected a new folder for exit states, or one that has some. "
                f"Received: {directory}"
            )
        found = {"model": digest.hexdigest(), "complete": False}
        _describe(folder, found)
    if found["model"] != digest.hexdigest():
        raise ValueError(
            "Expected a folder for exit states of this model. "
            f"Received: {directory}, with those of another one."
        )
    shards = [np.load(shard / "labels.npy") for shard in _shards(folder)]
    return np.concatenate([np.empty(0, np.int32), *shards])


def store(directory: str | os.PathLike, parts: Iterator[ExitStates]) -> None:
    """Stores the states that are missing, and says that they are all there.

    Args:
        directory: The folder, from `begin`.
        parts: The states of the images that follow, batch by batch.
    """
    folder, waiting = pathlib.Path(directory), []
    for states in parts:
        waiting.append(states)
        if sum(map(len, waiting)) >= _SHARD:
            _write(folder, joined(waiting))
            waiting = []
    if waiting:
        _write(folder, joined(waiting))
    _describe(folder, _description(folder) | {"complete": True})


def _shards(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("shard-*"))


def _write(folder: pathlib.Path, states: ExitStates) -> None:
    shard = folder / f"shard-{len(_shards(folder)):06d}"
    arrays = {"labels": states.labels, "logits": _half(states.logits)}
    arrays |= {f"pooled_{i:02d}": _half(m) for i, m in enumerate(states.pooled, 1)}
    with write_whole(shard) as path:
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)


def _half(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)


def _read(shard: pathlib.Path) -> ExitStates:
    count = len(list(shard.glob("pooled_*.npy")))
    pooled = (shard / f"pooled_{i:02d}.npy" for i in range(1, count + 1))
    return ExitStates(
        tuple(np.load(file).astype(np.float32) for file in pooled),
        np.load(shard / "logits.npy").astype(np.float32),
        np.load(shard / "labels.npy"),
    )


def _description(folder: pathlib.Path) -> dict:
    file = folder / _FILE
    return json.loads(file.read_text()) if file.is_file() else {}


def _describe(folder: pathlib.Path, content: dict) -> None:
    with write_whole(folder / _FILE) as path:
        path.write_text(json.dumps(content))
