"""Seconds that ten β take on the cached states of 60,000 resnet12 images.

    python benchmarks/sweep.py

The states are drawn at random, as their values do not matter for the time; shapes,
number of images, epochs and batch size are those of Max-Min and `train_controllers`.
"""

import time

import numpy as np

from epnet_tf import cli


def main(_) -> None:
    """Trains the controllers of ten β and prints the time."""
    # Not before the flags are known to be right: this takes seconds.
    import epnet_tf
    from epnet_tf.model import ExitStates
    from epnet_tf.training import train_controllers

    model = epnet_tf.EPNet(epnet_tf.resnet12(), num_classes=10)
    rng, images = np.random.default_rng(0), 60_000
    channels = [
        c.shape[-1] for c in (model.get_layer(n).output for n in model.exit_layers)
    ]
    states = ExitStates(
        pooled=tuple(rng.random([images, c], "float32") for c in channels[:-1]),
        logits=rng.normal(size=[images, model.num_exits, 10]).astype("float32"),
        labels=rng.integers(0, 10, images),
    )
    start = time.perf_counter()
    train_controllers(model, states, np.linspace(1e-7, 1e-6, 10))
    print(f"Ten β on {images} images: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    cli.run(main)
