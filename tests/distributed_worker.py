"""What the tests of distribution run in processes of their own.

    python tests/distributed_worker.py mirrored 2 classifiers controllers
    TF_CONFIG=... python tests/distributed_worker.py multi_worker 1 classifiers

Trains each case under the strategy and, in the chief, by Keras's own `fit` on one
device on the same global batches; prints what the tests look at as JSON.
"""

import contextlib
import json
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from small_models import small_images

import epnet_tf
from epnet_tf import cluster
from epnet_tf.training.distributed import fit_distributed, is_chief, strategy_for

BATCH = 32
IMAGES, LABELS = small_images(320)  # Ten batches; twice makes 20 steps.


class SharewiseNormalization(layers.BatchNormalization):
    """On one device: each replica's share of the batch by its own statistics."""

    shares = 1

    def call(self, inputs, training=None, mask=None):
        if not training:
            return super().call(inputs, training=False)
        parts = tf.split(inputs, self.shares)
        moments = [tf.nn.moments(part, [0, 1, 2]) for part in parts]
        for average, index in ((self.moving_mean, 0), (self.moving_variance, 1)):
            mean = sum(moment[index] for moment in moments) / self.shares
            average.assign(average * self.momentum + mean * (1 - self.momentum))
        normal = [
            tf.nn.batch_normalization(part, *moment, self.beta, self.gamma, 1e-3)
            for part, moment in zip(parts, moments, strict=True)
        ]
        return tf.concat(normal, 0)


class PlainController:
    """A controller that looks at each image alone: no batch statistics, no dropout."""

    def build(self, name, channels, num_classes, beta_range=None):
        pooled, logits = keras.Input([channels]), keras.Input([num_classes])
        x = layers.Concatenate(dtype="float32")([pooled, logits])
        x = layers.Dense(8, "tanh", dtype="float32")(x)
        stop = layers.Dense(1, name="stop", dtype="float32")(x)
        return keras.Model([pooled, logits], stop, name=name)

    def get_config(self):
        return {}


def backbone(normalization=None):
    image = keras.Input((12, 12, 1))
    x = image
    for i, stride in enumerate((1, 2, 2)):
        x = layers.Conv2D(6, 3, stride, use_bias=normalization is None)(x)
        if normalization is not None:
            x = normalization(name=f"normalization{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
    return keras.Model(image, x)


def synchronized(name):
    return layers.BatchNormalization(synchronized=True, name=name)


def trainer_of(case, one_device):
    """The compiled stage of a case."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16" if case == "overflow" else "float32")
    normalization = {
        "synchronized": synchronized,
        "per replica": (
            SharewiseNormalization if one_device else layers.BatchNormalization
        ),
    }.get(case)
    model = epnet_tf.EPNet(
        backbone(normalization),
        3,
        exits=["relu0", "relu1"],
        controller=PlainController(),
        # Ours scales by batch statistics, which each replica takes of its share.
        classifier=epnet_tf.PaperClassifier(),
        preprocessing=layers.Rescaling(1 / 255),
    )
    if case == "controllers":
        trainer = epnet_tf.ControllerTrainer(model, 1e-4)
    else:
        trainer = epnet_tf.ClassifierTrainer(model)
    trainer.compile(keras.optimizers.SGD(0.02, momentum=0.9))
    return trainer


def batches_of(case):
    images = IMAGES.astype("float32")
    if case == "overflow":
        # An image in the last replica's share of the first batch.
        images[BATCH - 1] = 1e9
    pairs = tf.data.Dataset.from_tensor_slices((images, LABELS))
    return pairs.batch(BATCH, drop_remainder=True)


def report(case, strategy):
    with strategy.scope():
        trainer = trainer_of(case, one_device=False)
    history = fit_distributed(
        trainer,
        batches_of(case),
        epochs=2,
        validation_data=(IMAGES[:51], LABELS[:51]),
        verbose=0,
    ).history
    if not is_chief(strategy):
        return {"history": history}
    replicas = strategy.num_replicas_in_sync
    SharewiseNormalization.shares = replicas
    reference = trainer_of(case, one_device=True)
    expected = reference.fit(
        batches_of(case),
        epochs=2,
        validation_data=(IMAGES[:51], LABELS[:51]),
        verbose=0,
    ).history
    pairs = list(zip(trainer.model.weights, reference.model.weights, strict=True))
    found = {
        "replicas": replicas,
        "difference": max(float(np.abs(np.subtract(*pair)).max()) for pair in pairs),
        "moved": float(np.abs(reference.model.weights[0]).max()),
        "history": history,
        "expected": expected,
    }
    if case == "overflow":
        found["scales"] = [
            float(t.optimizer.dynamic_scale.numpy()) for t in (trainer, reference)
        ]
        found["steps"] = [
            int(t.optimizer.iterations.numpy()) for t in (trainer, reference)
        ]
    return found


def main(name, devices, *cases):
    config = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [config] * int(devices)
    )
    with contextlib.ExitStack() as stack:
        if name == "multi_worker":
            team = cluster.Team(cluster.read_tf_config(), {}, seconds=120)
            stack.enter_context(team)
        strategy = strategy_for(name)
        found = {case: report(case, strategy) for case in cases}
    print("FOUND" + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
