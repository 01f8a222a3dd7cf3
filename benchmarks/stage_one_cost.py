"""What exits add to training: stage one, by the plain sum and in equilibrium, against
the plain network in Keras's `fit`.

    python benchmarks/stage_one_cost.py

Epochs of all are timed in turn, by the clock and by the processor's time. The pixels
are noise, of which training takes as long as of pictures.
"""

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from epochs import EpochClock

import epnet_tf
from epnet_tf import cli

_STEPS = flags.DEFINE_integer("steps", 12, "Steps of an epoch.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 4, "Turns, of an epoch each.", lower_bound=1)

# What is trained on CIFAR-10 and on Max-Min: image shape, images in a batch.
NETWORKS = {"resnet10": ((32, 32, 3), 128), "resnet12": ((50, 50, 1), 64)}
CLASSES = 10


def main(_) -> None:
    """Times all ways on both networks, and prints the medians."""
    print(f"{'ms an image':24}{'clock':>8}{'':8}{'processor':>10}")
    for name, (shape, batch_size) in NETWORKS.items():
        batches = _noise(shape, batch_size)
        ways = {
            "plain": _plain(name, shape),
            "stage one": _stage_one(name, shape),
            "equilibrium": _stage_one(name, shape, equilibrium=True),
        }
        clocks = {way: EpochClock() for way in ways}
        for model in ways.values():  # Functions are traced.
            model.fit(batches.take(1), shuffle=False, verbose=0)
        for _ in range(_ROUNDS.value):
            for way, model in ways.items():
                model.fit(batches, shuffle=False, callbacks=[clocks[way]], verbose=0)
        medians = {way: np.median(c.times, axis=0) for way, c in clocks.items()}
        images = batch_size * _STEPS.value
        for way, (clock, processor) in medians.items():
            ratios = medians[way] / medians["plain"]
            print(
                f"{name:12}{way:12}{clock / images * 1e3:8.3f}{ratios[0]:8.3f}"
                f"{processor / images * 1e3:10.3f}{ratios[1]:8.3f}",
                flush=True,
            )


def _noise(shape, batch_size: int) -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    count = batch_size * _STEPS.value
    images = rng.integers(0, 256, (count, *shape)).astype("float32")
    labels = rng.integers(0, CLASSES, count)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)


def _plain(name: str, shape) -> keras.Model:
    """The network with its own classifier, as Keras trains it."""
    backbone = getattr(epnet_tf, name)(shape)
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    image = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 255)(image)
    logits = keras.layers.Dense(CLASSES)(keras.Model(backbone.input, pooled)(x))
    model = keras.Model(image, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(_sgd(), loss, metrics=["accuracy"])
    return model


def _stage_one(name: str, shape, **how) -> epnet_tf.ClassifierTrainer:
    """The same with exits, in stage one."""
    backbone = getattr(epnet_tf, name)(shape)
    scaling = keras.layers.Rescaling(1 / 255)
    model = epnet_tf.EPNet(backbone, CLASSES, preprocessing=scaling)
    trainer = epnet_tf.ClassifierTrainer(model, **how)
    trainer.compile(_sgd())
    return trainer


def _sgd() -> keras.optimizers.SGD:
    return keras.optimizers.SGD(0.01, momentum=0.9)


if __name__ == "__main__":
    cli.run(main)
