"""What the loop of fit_distributed costs on one device, against Keras's fit.

    python benchmarks/own_loop.py

Epochs of both are timed in turn, so that a machine that is slow for a while is slow
for both, by the clock and by the processor's time, which other work disturbs less.
Weights have to be the same to the bit at the end.
"""

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from epochs import EpochClock

import epnet_tf
from epnet_tf import cli
from epnet_tf.training import fit_distributed

_BACKBONE = flags.DEFINE_enum("backbone", "resnet10", ["resnet10", "resnet12"], "")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a batch.")
_STEPS = flags.DEFINE_integer("steps", 20, "Steps of an epoch.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 5, "Turns, of three epochs that count.", lower_bound=1
)


def main(_) -> None:
    """Times both, and prints the medians."""
    dataset = epnet_tf.load_dataset("digits")
    count = _STEPS.value * _BATCH_SIZE.value
    pairs = (dataset.train.images[:count], dataset.train.labels[:count])
    batches = tf.data.Dataset.from_tensor_slices(pairs).batch(_BATCH_SIZE.value)
    trainers = [_trainer(dataset) for _ in range(2)]

    ways = {
        "fit": lambda trainer, **kwargs: trainer.fit(batches, **kwargs),
        "fit_distributed": lambda trainer, **kwargs: fit_distributed(
            trainer, batches, **kwargs
        ),
    }
    times: dict[str, list] = {name: [] for name in ways}
    for _ in range(_ROUNDS.value):
        for (name, way), trainer in zip(ways.items(), trainers, strict=True):
            epochs = EpochClock()
            way(trainer, epochs=4, callbacks=[epochs], verbose=0)
            times[name] += epochs.times[1:]  # Functions are traced in the first.
    medians = {name: np.median(each, axis=0) for name, each in times.items()}
    print(f"{'ms a step':<16}{'clock':>8}{'':8}{'processor':>10}")
    for name, (clock, processor) in medians.items():
        ratios = medians[name] / medians["fit"]
        print(
            f"{name:<16}{clock / _STEPS.value * 1e3:8.2f}{ratios[0]:8.3f}"
            f"{processor / _STEPS.value * 1e3:10.2f}{ratios[1]:8.3f}"
        )
    weights = [trainer.model.get_weights() for trainer in trainers]
    same = all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
    print(f"weights are {'the same' if same else 'NOT the same'}")


def _trainer(dataset) -> epnet_tf.ClassifierTrainer:
    keras.utils.set_random_seed(0)
    backbone = getattr(epnet_tf, _BACKBONE.value)(dataset.image_shape)
    model = epnet_tf.EPNet(backbone, 10, preprocessing=keras.layers.Rescaling(1 / 255))
    trainer = epnet_tf.ClassifierTrainer(model)
    trainer.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    return trainer


if __name__ == "__main__":
    cli.run(main)
