"""Endless training batches that depend on the seed, the epoch and the step alone."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from epnet_tf.data.split import Split
from epnet_tf.data.streams import (
    StreamedImages,
    blocks,
    gather,
    parallel_calls,
)

# Streamed images whose pixels' moments stand for those of all: with 96x96 pixels in
# each, the mean of 2,000 is that of all to a few tenths of a gray value.
_MOMENT_IMAGES = 2_000
# Images that are summed up together.
_MOMENT_BLOCK = 64


def training_pipeline(
    split: Split,
    batch_size: int,
    seed: int,
    start_epoch: int = 0,
    augment: Callable | None = None,
    recompose: Callable[[int], Split] | None = None,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Shuffled batches without end, for `fit` with `steps_per_epoch`.

    What a batch holds is a pure function of (seed, epoch, step): training that is
    resumed with `start_epoch=k` sees exactly what an uninterrupted run would have seen
    from epoch k on. Each epoch visits every image at most once; what does not fill a
    batch is left out, other images each time.

    Args:
        split: images and labels to draw from.
        batch_size: images per batch.
        seed: int; another seed, another order and other augmentations.
        start_epoch: epoch to begin with, counted from 0.
        augment: stateless function of (images, seed) that returns images of the same
            shape, such as `crop_and_flip`; images are float32 `[batch, h, w, c]`, the
            seed is int64 `[2]`, different for each batch.
        recompose: pure function of the epoch that returns as many images and labels
            as `split` holds, to take in that epoch instead of them.
        context: the worker, of several that share each batch evenly; it gets the parts
            of its replicas in turn. The images of a batch stay the same, but `augment`
            draws for each part apart.

    Returns:
        `tf.data.Dataset` of (images float32 `[batch, h, w, c]` with raw pixels 0 to
        255, labels int32 `[batch]`).

    Raises:
        ValueError: the split does not fill one batch, or a batch cannot be shared.
    """
    context = context or tf.distribute.InputContext()
    replicas, (first, last) = context.num_replicas_in_sync, replicas_of(context)
    steps = steps_per_epoch(split, batch_size, replicas)
    part_size = batch_size // replicas
    with tf.device("CPU:0"):  # Batches are made there, and GPU memory is scarce.
        streamed = isinstance(split.images, StreamedImages)
        given = split.images if streamed else tf.constant(split.images)
        given_labels = tf.constant(split.labels)

    def images_of_epoch(epoch):
        if recompose is None:
            return (epoch,)
        like = given, given_labels
        dtypes = [tensor.dtype for tensor in like]
        made = tf.numpy_function(lambda e: _arrays(recompose(e)), [epoch], dtypes)
        return epoch, *map(tf.ensure_shape, made, [tensor.shape for tensor in like])

    def epoch_batches(epoch, images=given, labels=given_labels):
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(split)), epoch_seed
        )
        parts = [steps, replicas, part_size]
        order = tf.reshape(order[: steps * batch_size], parts)[:, first:last]
        order = tf.reshape(order, [-1, part_size])
        indices = tf.data.Dataset.from_tensor_slices(order).enumerate()
        return indices.map(
            lambda part, index: batch(
                epoch_seed, part, gather(images, index), tf.gather(labels, index)
            ),
            num_parallel_calls=parallel_calls(images),
        )

    def batch(epoch_seed, part, x, y):
        x = tf.cast(x, tf.float32)
        if augment is not None:
            step, replica = part // (last - first), first + part % (last - first)
            x = augment(
                x,
                tf.random.experimental.stateless_fold_in(
                    epoch_seed, step * replicas + replica
                ),
            )
            x = tf.ensure_shape(x, [part_size, *split.images.shape[1:]])
        return x, y

    # The next epoch's images are made while this one's are used.
    epochs = tf.data.Dataset.range(start_epoch, tf.int64.max).map(images_of_epoch)
    return epochs.prefetch(1).flat_map(epoch_batches).prefetch(2)


def replicas_of(context: tf.distribute.InputContext) -> tuple[int, int]:
    """The first of a worker's replicas, and the one after its last; from 0.

    Args:
        context: the worker, of several with as many replicas.
    """
    own = context.num_replicas_in_sync // context.num_input_pipelines
    return context.input_pipeline_id * own, (context.input_pipeline_id + 1) * own


def pixel_moments(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the pixels of each channel.

    Returns:
        float32 `[c]` each; of streamed images those of 2,000 of them.
    """
    images = split.images
    if isinstance(images, StreamedImages):
        order = np.random.default_rng(0).permutation(len(images))
        images = images[order[:_MOMENT_IMAGES]]
    sizes, means, squares = [], [], []
    for block in blocks(images, _MOMENT_BLOCK):
        # Summed in float32, millions of values stop growing, a quarter too low.
        pixels = block.astype("float64")
        sizes.append(len(pixels))
        means.append(pixels.mean(axis=(0, 1, 2)))
        squares.append((pixels**2).mean(axis=(0, 1, 2)))
    mean, square = (np.average(m, axis=0, weights=sizes) for m in (means, squares))
    variance = np.maximum(square - mean**2, 0.0)  # Rounding may lead below.
    return mean.astype("float32"), variance.astype("float32")


def _arrays(split: Split) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(split.images), split.labels


def steps_per_epoch(split: Split, batch_size: int, replicas: int = 1) -> int:
    """Number of whole batches in a split.

    Args:
        split: images to draw from.
        batch_size: images per batch.
        replicas: devices that share each batch.

    Raises:
        ValueError: there is none, or replicas cannot share them evenly.
    """
    if not 1 <= batch_size <= len(split):
        raise ValueError(
            "batch_size must be at least 1 and at most the number of images, "
            f"{len(split)}. Received: {batch_size}"
        )
    if batch_size % replicas:
        raise ValueError(
            f"batch_size must be a multiple of {replicas}, the number of replicas "
            f"that share a batch. Received: {batch_size}"
        )
    return len(split) // batch_size
