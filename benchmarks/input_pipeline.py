"""Images a second: the pipeline that reads photos, and the training step that waits.

    python benchmarks/input_pipeline.py --dataset=photos --backbone=MobileNetV2

Stage one reads, decodes and resizes the next batches while it trains on one. What is
printed is what either does alone, the step on one batch that is there already, and what
both do together. The pipeline is fast enough where "both" is near the step alone. Last
comes the most memory that the process has had, all photos of an epoch read: it should
not depend on how many there are.
"""

import itertools
import resource
import time
from collections.abc import Callable

import keras
from absl import flags

from epnet_tf import cli

_DATASET = flags.DEFINE_string("dataset", None, "A folder of photos, or TFRecords.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 96, "Side.", lower_bound=8)
_BACKBONE = flags.DEFINE_string("backbone", "MobileNetV2", "As train.py's.")
_EXITS = flags.DEFINE_integer("exits", 8, "Number of exits.", lower_bound=2)
_FREEZE = flags.DEFINE_bool("freeze", False, "Train heads alone, which is quicker.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "As train.py's.", lower_bound=1)
_BATCHES = flags.DEFINE_integer("batches", 20, "To time.", lower_bound=1)


def main(_) -> None:
    """Times, reads an epoch, and prints four lines."""
    # Not before the flags are known to be right: this takes seconds.
    from epnet_tf import data
    from epnet_tf.experiments import experiment
    from epnet_tf.training import ClassifierTrainer

    shape = (_IMAGE_SIZE.value, _IMAGE_SIZE.value, 3)
    dataset = data.load_dataset(_DATASET.value, image_shape=shape)
    model = experiment.build_model(_BACKBONE.value, dataset, "none", exits=_EXITS.value)
    model.frozen = _FREEZE.value
    trainer = ClassifierTrainer(model)
    trainer.compile(optimizer=keras.optimizers.SGD(1e-3, momentum=0.9))
    pipeline = data.training_pipeline(
        dataset.train, _BATCH_SIZE.value, seed=0, augment=dataset.augment
    )
    batches = iter(pipeline)
    batch = next(batches)
    for name, step in (
        ("pipeline", lambda: next(batches)),
        ("training step", lambda: trainer.train_on_batch(*batch)),
        ("both", lambda: trainer.train_on_batch(*next(batches))),
    ):
        print(f"{name:14s}{images_a_second(step):8.0f} images/s", flush=True)
    for _ in range(data.steps_per_epoch(dataset.train, _BATCH_SIZE.value)):
        next(batches)
    # Kilobytes on Linux.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'memory':14s}{most:8.0f} MB, {len(dataset.train)} photos", flush=True)


def images_a_second(step: Callable) -> float:
    """Of a step on a batch, the first ones, which prepare, left out."""
    for _ in range(2):
        step()
    start = time.perf_counter()
    for _ in itertools.repeat(None, _BATCHES.value):
        step()
    return _BATCHES.value * _BATCH_SIZE.value / (time.perf_counter() - start)


if __name__ == "__main__":
    flags.mark_flag_as_required("dataset")
    cli.run(main)
