"""Augmentation: other images of the same classes, as a function of a seed alone."""

import tensorflow as tf

# How far photos are shifted, as a share of their sides, and how much lighter and richer
# in contrast they get at most: what another hand, and another hour, would have done.
_SHIFT, _LIGHT, _CONTRAST = 1 / 8, 0.1, 1.25


def crop_and_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Random crops and flips, the paper's augmentation of CIFAR-10.

    Each image is padded with 4 black pixels on every side, cropped back to its size
    at a random place, and flipped horizontally with a probability of one half.

    Args:
        images: `[batch, h, w, c]`, raw pixels.
        seed: int `[2]`; it alone decides the crops and flips.

    Returns:
        Tensor of the shape and dtype of `images`.
    """
    shape = tf.shape(images)
    count, height, width = shape[0], shape[1], shape[2]
    # One draw per image: the crop's row and column (0 to 8), and whether to flip.
    draw = tf.random.stateless_uniform([count, 1], seed, 0, 9 * 9 * 2, tf.int32)
    row, column, flip = draw // 18, draw // 2 % 9, draw % 2 == 1
    rows = row + tf.range(height)
    columns = column + tf.where(flip, tf.range(width)[::-1], tf.range(width))
    padded = tf.pad(images, [[0, 0], [4, 4], [4, 4], [0, 0]])
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def vary_photos(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Random crops, flips, light and contrast of photos.

    Each image is shifted by up to an eighth of its sides, its edges mirrored, flipped
    horizontally with a probability of one half, and made lighter or darker, richer or
    poorer in contrast.

    Args:
        images: `[batch, h, w, c]`, raw pixels.
        seed: int `[2]`; it alone decides.

    Returns:
        Tensor of the shape and dtype of `images`, pixels within 0 to 255.
    """
    shape, seeds = tf.shape(images), tf.random.split(seed, 5)
    per_image = [shape[0], 1, 1, 1]
    light = tf.random.stateless_uniform(per_image, seeds[0], -_LIGHT, _LIGHT)
    contrast = tf.random.stateless_uniform(per_image, seeds[1], -1.0, 1.0)
    x = tf.cast(images, tf.float32)
    mean = tf.reduce_mean(x, axis=(1, 2), keepdims=True)
    x = (x - mean) * _CONTRAST**contrast + mean + 255.0 * light
    x = tf.clip_by_value(x, 0.0, 255.0)
    if images.dtype.is_integer:
        x = tf.round(x)
    x = tf.cast(x, images.dtype)
    flip = tf.random.stateless_uniform([shape[0], 1], seeds[2]) < 0.5
    rows = _shifted(shape[0], shape[1], seeds[3])
    columns = _shifted(shape[0], shape[2], seeds[4])
    columns = tf.where(flip, columns[:, ::-1], columns)
    x = tf.gather(x, rows, axis=1, batch_dims=1)
    return tf.gather(x, columns, axis=2, batch_dims=1)


def _shifted(count: tf.Tensor, side: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Where pixels come from, mirrored at the edges: int32 [count, side]."""
    most = tf.cast(_SHIFT * tf.cast(side, tf.float32), tf.int32)
    shift = tf.random.stateless_uniform([count, 1], seed, -most, most + 1, tf.int32)
    place = tf.abs(tf.range(side) + shift)
    return tf.minimum(place, 2 * (side - 1) - place)
