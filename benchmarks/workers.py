"""How many images a second a bundle classifies, by the number of workers.

    python benchmarks/workers.py --bundle=runs/maxmin/bundle --dataset=maxmin

Test images are classified by one worker, by two, and so on in turn, so that a machine
that is slow for a while is slow for all. The table has medians over the rounds.
"""

import time

import numpy as np
from absl import flags

from epnet_tf import cli
from epnet_tf.runtime.runner import SegmentRunner

_BUNDLE = flags.DEFINE_string("bundle", None, "The bundle.")
_DATASET = flags.DEFINE_string("dataset", None, "As in train.py.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_BETA = flags.DEFINE_float("beta", None, "For bundles whose controllers take it.")
_WORKERS = flags.DEFINE_multi_integer(
    "workers", [1, 2], "Numbers of workers; others are compared with the first."
)
_IMAGES = flags.DEFINE_integer("images", 1000, "Images in a call.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Calls that count.", lower_bound=1)


def main(_) -> None:
    """Times all numbers of workers, and prints the table."""
    runner = SegmentRunner(_BUNDLE.value)
    # Not before the bundle is known to be one: this takes seconds.
    from epnet_tf import data

    dataset = data.load_dataset(_DATASET.value, _DATA_DIR.value)
    images = dataset.test.images[: _IMAGES.value]
    # A first round opens all that the others need.
    seconds = [
        [_seconds(runner, images, workers) for workers in _WORKERS.value]
        for _ in range(1 + _ROUNDS.value)
    ][1:]
    medians = np.median(seconds, axis=0)
    print(f"{'workers':>8}{'images/s':>11}{'ratio':>8}")
    for workers, median in zip(_WORKERS.value, medians, strict=True):
        print(f"{workers:8d}{len(images) / median:11.0f}{medians[0] / median:8.2f}")


def _seconds(runner: SegmentRunner, images: np.ndarray, workers: int) -> float:
    start = time.perf_counter()
    runner.predict(images, _BETA.value, num_workers=workers)
    return time.perf_counter() - start


if __name__ == "__main__":
    flags.mark_flags_as_required(["bundle", "dataset"])
    cli.run(main)
