"""Images a second that N workers on this host train, each with the same share.

    python benchmarks/scaling.py --workers=1 --workers=2 --workers=4

Every worker is a process with one thread for TensorFlow, on 127.0.0.1, and has the same
work however many there are: at an efficiency of 1, N workers train N times as many
images a second.
"""

import json
import os
import subprocess
import sys
import time

import keras
import numpy as np
from absl import flags
from addresses import free_addresses

import epnet_tf
from epnet_tf import cli, cluster, data
from epnet_tf.training import fit_distributed
from epnet_tf.training.distributed import is_chief, strategy_for

_WORKERS = flags.DEFINE_multi_integer("workers", [1, 2, 4], "Numbers of workers.")
_SHARE = flags.DEFINE_integer("share", 64, "Images of a batch on each worker.")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps of an epoch.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Epochs that count.", lower_bound=1)
_ROLE = flags.DEFINE_bool("as_worker", False, "For the processes that this starts.")


def main(_) -> None:
    """Starts all numbers of workers one after the other, and prints the table."""
    if _ROLE.value:
        work()
        return
    print(f"{'workers':>8}{'images/s':>11}{'efficiency':>12}{'MB a step':>12}")
    first = None
    for count in _WORKERS.value:
        found = run(count)
        first = first or found["rate"] / count
        print(
            f"{count:8d}{found['rate']:11.0f}{found['rate'] / count / first:12.2f}"
            f"{found['bytes'] / 1e6:12.1f}",
            flush=True,
        )


def run(count: int) -> dict:
    """What the chief of so many workers measured."""
    addresses = free_addresses(count)
    threads = dict.fromkeys(
        ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"], "1"
    )
    processes = []
    for i in range(count):
        task = {"type": "worker", "index": i}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        processes.append(
            subprocess.Popen(
                [sys.executable, *sys.argv, "--as_worker"],
                env={**os.environ, **threads, "TF_CONFIG": config},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    output, *_ = [process.communicate()[0] for process in processes]
    if "FOUND" not in output:
        raise ValueError(f"Expected {count} workers that train. Received: an error.")
    return json.loads(output.split("FOUND")[1])


class _Epochs(keras.callbacks.Callback):
    """Times epochs."""

    def __init__(self):
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def work() -> None:
    """Trains as one of the workers; the chief prints what it measured."""
    with cluster.Team(cluster.read_tf_config(), {}):
        strategy = strategy_for("multi_worker")
        dataset = epnet_tf.load_dataset("digits")
        batch = _SHARE.value * strategy.num_replicas_in_sync
        with strategy.scope():
            model = epnet_tf.EPNet(
                epnet_tf.resnet10(dataset.image_shape),
                dataset.num_classes,
                preprocessing=keras.layers.Rescaling(1 / 255),
            )
            trainer = epnet_tf.ClassifierTrainer(model)
            trainer.compile(keras.optimizers.SGD(0.01, momentum=0.9))
        epochs = _Epochs()
        fit_distributed(
            trainer,
            lambda context: data.training_pipeline(
                dataset.train, batch, seed=0, context=context
            ),
            steps_per_epoch=_STEPS.value,
            epochs=1 + _ROUNDS.value,
            callbacks=[epochs],
            verbose=0,
        )
        seconds = float(np.median(epochs.seconds[1:]))
        weights = sum(int(np.prod(w.shape)) for w in trainer.trainable_weights)
    if is_chief(strategy):
        # A ring sends each gradient 2 (N - 1) / N times from each worker.
        workers = strategy.num_replicas_in_sync
        found = {
            "rate": batch * _STEPS.value / seconds,
            "bytes": 4 * weights * 2 * (workers - 1) / workers,
        }
        print("FOUND" + json.dumps(found))


if __name__ == "__main__":
    cli.run(main)
