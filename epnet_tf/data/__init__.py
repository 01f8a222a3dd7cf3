"""From files and seeds to images: data sets, how they are composed, and batches."""

from epnet_tf.data.dataset import Dataset, load_dataset
from epnet_tf.data.pipeline import crop_and_flip, steps_per_epoch, training_pipeline
from epnet_tf.data.split import Split

__all__ = [
    "Dataset",
    "Split",
    "crop_and_flip",
    "load_dataset",
    "steps_per_epoch",
    "training_pipeline",
]
