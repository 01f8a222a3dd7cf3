"""From files and seeds to images: data sets, how they are composed, and batches."""

from epnet_tf.data.augmentation import crop_and_flip, vary_photos
from epnet_tf.data.dataset import DEFAULT_SHAPE, Dataset, load_dataset
from epnet_tf.data.fingerprints import fingerprint
from epnet_tf.data.pipeline import (
    pixel_moments,
    steps_per_epoch,
    training_pipeline,
)
from epnet_tf.data.split import Split
from epnet_tf.data.streams import StreamedImages, batches

__all__ = [
    "DEFAULT_SHAPE",
    "Dataset",
    "Split",
    "StreamedImages",
    "batches",
    "crop_and_flip",
    "fingerprint",
    "load_dataset",
    "pixel_moments",
    "steps_per_epoch",
    "training_pipeline",
    "vary_photos",
]
