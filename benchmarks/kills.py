"""Kills one of two workers of train.py, again and again, and looks at what is left.

    python benchmarks/kills.py --workdir=runs/kills --kills=20

A run of two local workers is trained once without a kill, and then killed (a worker
drawn at random, with signal 9, at a random moment) and started again, over as many runs
as the kills take. After each kill the other worker has to end by itself, and every file
has to be whole; every finished run has to end with the weights and metrics of the run
without kills.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import h5py
import keras
import numpy as np
from absl import flags
from addresses import free_addresses

from epnet_tf import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the runs.")
_KILLS = flags.DEFINE_integer("kills", 20, "Kills in all.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of victims and moments.")
_EPOCHS = flags.DEFINE_integer("epochs", 6, "Epochs of stage one.", lower_bound=2)

_TRAIN = pathlib.Path(__file__).resolve().parents[1] / "train.py"
# How long the other worker may take to end.
_ENDS_WITHIN = 60.0


def main(_) -> None:
    """Trains, kills, compares, and prints a line for each kill."""
    folder = pathlib.Path(_WORKDIR.value)
    if folder.exists():
        raise ValueError(f"Expected a new folder as --workdir. Received: '{folder}'.")
    folder.mkdir(parents=True)
    dataset, backbone = _inputs(folder)

    def command(run: pathlib.Path) -> list[str]:
        return [
            sys.executable,
            str(_TRAIN),
            f"--dataset={dataset}",
            f"--backbone={backbone}",
            f"--workdir={run}",
            f"--epochs={_EPOCHS.value}",
            "--batch_size=32",
            "--controller_epochs=2",
            "--beta=1e-4",
            "--deterministic",
            "--distribute=multi_worker",
        ]

    rng = random.Random(_SEED.value)
    workers = _met(_start(command(folder / "whole"), folder), folder)
    start = time.monotonic()
    _expect(not any(_finished(workers)), f"a run that ends, not {_said(folder, 0)}")
    seconds = time.monotonic() - start
    print(f"without a kill: {seconds:.0f} s", flush=True)

    kills, runs, slowest = 0, 0, 0.0
    while kills < _KILLS.value:
        run = folder / f"run-{runs}"
        workers = _met(_start(command(run), folder), folder)
        moment, victim = rng.uniform(0, seconds), rng.randrange(2)
        if _wait(workers, moment):
            workers[victim].send_signal(signal.SIGKILL)
            killed = time.monotonic()
            codes = _finished(workers)
            took = time.monotonic() - killed
            slowest = max(slowest, took)
            kills += 1
            other = codes[1 - victim]
            sentence = _said(folder, 1 - victim)
            _expect(took < _ENDS_WITHIN, f"the other to end in time, not in {took:.0f}")
            # In the last moment it may be done.
            _expect(other == 0 or "error: " in sentence, f"a sentence, not {sentence}")
            left = _check_whole(run)
            print(
                f"kill {kills}: worker {victim} after {moment:.1f} s; the other ended "
                f"after {took:.1f} s; {left}; {sentence[:60]}",
                flush=True,
            )
        else:
            _expect(not any(_finished(workers)), _said(folder, 0))
            _compare(folder / "whole", run)
            runs += 1
    _expect(not any(_finished(_start(command(run), folder))), _said(folder, 0))
    _compare(folder / "whole", run)
    print(
        f"{kills} kills in {runs + 1} runs, all resumed, weights and metrics as "
        f"without a kill; the other worker ended within {slowest:.1f} s"
    )


def _inputs(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A small data set, images whose brightness tells their class, and a backbone."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 1200)
    images = rng.integers(0, 60, (1200, 12, 12, 1)) + 90 * labels[:, None, None, None]
    images = images.astype("uint8")
    np.savez(
        folder / "data.npz",
        x_train=images[:1000],
        y_train=labels[:1000],
        x_test=images[1000:],
        y_test=labels[1000:],
    )
    x = image = keras.Input((12, 12, 1))
    x = keras.layers.Rescaling(1 / 255)(x)
    for _ in range(3):
        x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    keras.Model(image, x).save(folder / "backbone.keras")
    return folder / "data.npz", folder / "backbone.keras"


def _start(command: list[str], folder: pathlib.Path) -> list[subprocess.Popen]:
    addresses = free_addresses(2)
    workers = []
    for i in range(2):
        task = {"type": "worker", "index": i}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        with open(folder / f"{i}.err", "w") as error:
            worker = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=error,
                env={**os.environ, "TF_CONFIG": config},
            )
        workers.append(worker)
    return workers


def _met(workers: list[subprocess.Popen], folder: pathlib.Path):
    """The workers, once they have met: before, who is late and who is dead is one."""
    while not all("have met" in (folder / f"{i}.err").read_text() for i in range(2)):
        _expect(all(w.poll() is None for w in workers), "workers that meet")
        time.sleep(0.05)
    return workers


def _wait(workers: list[subprocess.Popen], seconds: float) -> bool:
    """Waits; whether both workers still run then."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if any(worker.poll() is not None for worker in workers):
            return False
        time.sleep(0.01)
    return True


def _finished(workers: list[subprocess.Popen]) -> list[int]:
    """Exit codes, waited for at most ten minutes."""
    try:
        return [worker.wait(600) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


def _said(folder: pathlib.Path, worker: int) -> str:
    lines = (folder / f"{worker}.err").read_text().splitlines()
    return " ".join(line for line in lines if line.startswith("error: "))


def _check_whole(run: pathlib.Path) -> str:
    """Opens every file that has its own name; what there is."""
    found = []
    for file in sorted(run.rglob("*")):
        if any(part.startswith(".") for part in file.relative_to(run).parts):
            continue  # The place where a killed worker was writing.
        if file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".h5":
            with h5py.File(file) as weights:
                weights.visititems(
                    lambda _, item: item[()] if _is_array(item) else None
                )
        elif file.suffix == ".keras":
            with zipfile.ZipFile(file) as model:
                _expect(model.testzip() is None, f"a whole {file}")
        elif file.suffix == ".npz":
            with np.load(file) as arrays:
                _ = [arrays[name] for name in arrays.files]
        else:
            continue
        found.append(file.name)
    return ", ".join(found) or "nothing yet"


def _is_array(item) -> bool:
    return isinstance(item, h5py.Dataset)


def _compare(whole: pathlib.Path, run: pathlib.Path) -> None:
    """Expects metrics and the weights of stage one to be the same, bit by bit."""
    metrics, expected = (
        json.loads((folder / "metrics.json").read_text()) for folder in (run, whole)
    )
    _expect(metrics == expected, f"the metrics of {whole} in {run}")
    models = [
        keras.saving.load_model(folder / "classifiers.keras") for folder in (run, whole)
    ]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        _expect(np.array_equal(a, b), f"the weights of {whole} in {run}")
    shutil.rmtree(run)
    print(f"{run.name} has ended as without a kill", flush=True)


def _expect(true: bool, what: str) -> None:
    if not true:
        raise ValueError(f"Expected {what}.")


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
