"""The data sets: three splits of images, by name or from a user's own files."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from epnet_tf.data import photos, sources
from epnet_tf.data.augmentation import crop_and_flip, vary_photos
from epnet_tf.data.compose import (
    MAX_MIN_LEVELS,
    MULTI_SCALE_TYPES,
    compose_max_min,
    compose_multi_scale,
)
from epnet_tf.data.sources import Source
from epnet_tf.data.split import Split
from epnet_tf.data.streams import Images, StreamedImages

# What photos are brought to where nothing else is said. With resnet10, the main branch
# where nothing else is said, TensorFlow crashes on some processors at 80x80 and more.
DEFAULT_SHAPE = (64, 64, 3)

# Images of `digits` to train on, to validate on, and to test on.
_DIGITS_COUNTS = (12_000, 1_500, 2_000)

# Stage one sees the compositions of the epochs from 0 on, and never comes to this one,
# nor, for further draws, to every millionth after it.
_NO_EPOCH = -1


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images split for training, validation and test.

    Attributes:
        name: what the data set is called.
        labels: class names.
        train: images to train on.
        validation: images held out of the training data, to tune and compare on.
        test: images for the last report only.
        difficulties: names of the images' known difficulties, from easy to hard;
            empty where these are unknown.
        augment: augmentation that `training_pipeline` should apply, or `None`.
        recompose: composes other training images from the same sources, others for
            each epoch (int, counted from 0), or `None`.
        crop: whether pictures were cropped to the images' proportions, or stretched.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    difficulties: tuple[str, ...] = ()
    augment: Callable | None = None
    recompose: Callable[[int], Split] | None = None
    crop: bool = False

    def unseen(self, draw: int = 0) -> Split:
        """The training images as no network has seen them, to train controllers on.

        Composed or augmented anew; `train` itself where neither can be done. On the
        very images that it was fitted to, a network is surer of itself than it will be.

        Args:
            draw: Other numbers give other images, the same number the same ones.
        """
        if self.recompose is not None:
            return self.recompose(_NO_EPOCH + 1_000_000 * draw)
        if self.augment is None:
            return self.train
        images = _augmented(self.train.images, self.augment, draw)
        return Split(images, self.train.labels, self.train.difficulty)

    def unseen_draws(self, count: int) -> Split:
        """Several draws of `unseen`, one behind the other.

        Args:
            count: Number of draws, at least 1.
        """
        draws = [self.unseen(draw) for draw in range(count)]
        difficulty = [d.difficulty for d in draws if d.difficulty is not None]
        return Split(
            _joined([draw.images for draw in draws]),
            np.concatenate([draw.labels for draw in draws]),
            np.concatenate(difficulty) if difficulty else None,
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def load_dataset(
    name: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    image_shape: tuple[int, int, int] = DEFAULT_SHAPE,
    crop: bool = False,
    on_bad_image: str = "fail",
) -> Dataset:
    """Load a data set by name, or from a user's own files.

    - `digits`: Max-Min of scikit-learn's small digits, embedded; 24x24, 12,000 images
      for training, 1,500 for validation, 2,000 for the test.
    - `maxmin`: Max-Min MNIST; 50x50, 55,000 + 5,000 + 10,000.
    - `multiscale`: Multi-scale Fashion-MNIST; 50x50, 55,000 + 5,000 + 10,000.
    - `cifar10`: CIFAR-10; 32x32x3, 45,000 + 5,000 + 10,000.
    - a path that ends in `.npz`: see `epnet_tf.data.sources.read_npz`. A tenth of its
      training images, at most 5,000, is held out for validation, the same share of
      each class; at least one image of each is left to train on.
    - a folder of pictures, or a pattern of the names of TFRecord files: see
      `epnet_tf.data.photos.find`. The images are streamed from their files. What is
      not there, validation or test, is held out of the training pictures like this.

    Source images are split before anything is composed from them, so that no digit
    and no garment is in two splits. The same seed gives the same arrays, bit for bit.
    Another seed holds out, and composes, other images: evaluate a model on the seed
    that it was trained with.

    Args:
        name: name of the data set, or path of a .npz file, of a folder of pictures, or
            pattern of TFRecord files.
        data_dir: folder with mnist.npz, fashion_mnist.npz, cifar10.npz. Default: the
            environment variable EPNET_DATA_DIR; without either, `keras.datasets`
            downloads them.
        seed: non-negative int from which everything random is drawn.
        image_shape: of pictures: height and width to which they are brought, and 1
            (grayscale), 3 or 4 channels.
        crop: of pictures: whether they are cropped to the proportions of `image_shape`
            first, or stretched.
        on_bad_image: of pictures: `fail`, or `skip` to leave out, with a warning, files
            that cannot be read.

    Raises:
        ValueError: unknown name, missing file, or contents that are not a data set.
    """
    name = os.fspath(name)
    if seed < 0:
        raise ValueError(f"seed must be a non-negative integer. Received: {seed}")
    if name.endswith(".npz"):
        source = sources.read_npz(name)
        split = _hold_out_of_each_class(source.y_train, seed)
        # Digits, letters or spectra may have one channel, and other classes mirrored.
        augment = vary_photos if source.x_train.shape[-1] == 3 else None
        return _with_held_out(Path(name).stem, source, split, augment)
    if name == "cifar10":
        source = sources.read_keras_dataset("cifar10", data_dir)
        return _with_held_out(name, source, _hold_out(source, seed), crop_and_flip)
    if name == "digits":
        return _digits(seed)
    if name == "maxmin":
        source = sources.read_keras_dataset("mnist", data_dir)
        return _composed(name, source, compose_max_min, MAX_MIN_LEVELS, seed)
    if name == "multiscale":
        source = sources.read_keras_dataset("fashion_mnist", data_dir)
        return _composed(name, source, compose_multi_scale, MULTI_SCALE_TYPES, seed)
    if photos.is_pictures(name):
        return _of_pictures(name, seed, image_shape, crop, on_bad_image)
    raise ValueError(
        "The data set must be digits, maxmin, multiscale, cifar10, or the path of a "
        ".npz file, of a folder of pictures, or of .tfrecord files. "
        f"Received: {name}"
    )


def _augmented(images: Images, augment: Callable, draw: int) -> Images:
    """Images of a draw; streamed ones are augmented one by one, as they are read."""
    if isinstance(images, StreamedImages):
        # Of one image, operations that are called one by one take six times as long.
        varied = tf.function(augment)

        def read(index: int) -> np.ndarray:
            image = tf.constant(images[index][np.newaxis])
            return varied(image, tf.constant([draw, index]))[0].numpy()

        return StreamedImages(read, images.shape, images.dtype)
    parts = [
        augment(tf.constant(images[i : i + 1000]), [draw, i]).numpy()
        for i in range(0, len(images), 1000)
    ]
    return np.concatenate(parts)


def _joined(parts: list[Images]) -> Images:
    """As many images of each part, one part behind the other."""
    first, count = parts[0], len(parts[0])
    if not isinstance(first, StreamedImages):
        return np.concatenate([np.asarray(part) for part in parts])

    def read(index: int) -> np.ndarray:
        return parts[index // count][index % count]

    return StreamedImages(read, (len(parts) * count, *first.shape[1:]), first.dtype)


def _of_pictures(
    name: str, seed: int, shape: tuple[int, int, int], crop: bool, on_bad_image: str
) -> Dataset:
    photos.check_shape(shape)
    source = photos.find(name)
    parts = {
        part: photos.without_bad(pictures, shape, on_bad_image)
        for part, pictures in source.parts.items()
    }
    train = parts["train"]
    # The test first: other images are held out of what is left.
    for part in ("test", "validation"):
        if part not in parts:
            kept, held_out = _hold_out_of_each_class(train.labels, seed)
            parts[part], train = train.take(held_out), train.take(kept)
    parts["train"] = train
    for part, pictures in parts.items():
        missing = len(source.labels) - len(np.unique(pictures.labels))
        if not len(pictures.labels) or (part == "train" and missing):
            raise ValueError(
                f"Expected pictures of every class to train on, and some to validate "
                f"and to test on, in {name}. Received: {len(pictures.labels)} for "
                f"{part}, none of {missing} classes."
            )
    splits = {
        part: Split(photos.streamed(pictures, shape, crop), pictures.labels)
        for part, pictures in parts.items()
    }
    title = re.sub(r"[^\w.]+", "-", Path(name).resolve().stem).strip("-")
    return Dataset(
        title or "pictures",
        source.labels,
        splits["train"],
        splits["validation"],
        splits["test"],
        augment=vary_photos,
        crop=crop,
    )


def _with_held_out(
    name: str,
    source: Source,
    split: tuple[np.ndarray, np.ndarray],
    augment: Callable | None = None,
) -> Dataset:
    kept, held_out = split
    return Dataset(
        name,
        source.labels,
        train=Split(source.x_train[kept], source.y_train[kept]),
        validation=Split(source.x_train[held_out], source.y_train[held_out]),
        test=Split(source.x_test, source.y_test),
        augment=augment,
    )


def _composed(
    name: str,
    source: Source,
    composer: Callable,
    difficulties: tuple[str, ...],
    seed: int,
) -> Dataset:
    """As many composed images as there are source images in each split."""
    kept, held_out = _hold_out(source, seed)
    x_train, x_test = source.x_train[..., 0], source.x_test[..., 0]
    parts = (
        (x_train[kept], source.y_train[kept], len(kept)),
        (x_train[held_out], source.y_train[held_out], len(held_out)),
        (x_test, source.y_test, len(x_test)),
    )
    return _of_compositions(
        name, source.labels, composer, parts, difficulties, seed, canvas=50
    )


def _digits(seed: int) -> Dataset:
    """More images than source digits: each digit is in several compositions."""
    images, labels = sources.read_digits()
    order = _random_order(len(images), seed)
    parts = [
        (images[part], labels[part], count)
        for part, count in zip(
            np.split(order, [-700, -400]), _DIGITS_COUNTS, strict=True
        )
    ]
    return _of_compositions(
        "digits",
        sources.DIGIT_NAMES,
        compose_max_min,
        parts,
        MAX_MIN_LEVELS,
        seed,
        canvas=24,
    )


def _of_compositions(
    name, labels, composer, parts, difficulties, seed, canvas
) -> Dataset:
    """Composes each of (images, labels, count) from a random stream of its own."""

    def compose(part, stream) -> Split:
        x, y, count = part
        rng = np.random.default_rng(_sequence(seed, stream))
        images, labels, difficulty = composer(x, y, count, rng, canvas)
        return Split(images[..., np.newaxis], labels, difficulty)

    train, validation, test = map(compose, parts, (1, 2, 3))
    return Dataset(
        name,
        labels,
        train,
        validation,
        test,
        difficulties,
        recompose=lambda epoch: compose(parts[0], 5 + int(epoch)),
    )


def _hold_out(source: Source, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on, and of those held out."""
    order = _random_order(len(source.x_train), seed)
    held_out = _held_out_count(len(order))
    return order[held_out:], order[:held_out]


def _hold_out_of_each_class(
    labels: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `_hold_out`, the same share of each class, and never all of one."""
    order = _random_order(len(labels), seed)
    classes, of_class = np.unique(labels[order], return_inverse=True)
    held_out = min(_held_out_count(len(order)), len(order) - len(classes))
    if held_out < 1:
        raise ValueError(
            "Training data must hold at least two images of a class, one of them for "
            f"validation. Received: {len(labels)} images of {len(classes)} classes"
        )
    # What share of its class comes before an image; each class's last one stays.
    share = np.empty(len(order))
    for k in range(len(classes)):
        at = np.flatnonzero(of_class == k)
        share[at] = np.arange(0.5, len(at)) / len(at)
        share[at[-1]] = np.inf
    by_share = np.argsort(share, kind="stable")
    return order[np.sort(by_share[held_out:])], order[np.sort(by_share[:held_out])]


def _held_out_count(count: int) -> int:
    """A tenth, at most 5,000."""
    if count < 2:
        raise ValueError(
            "Training data must hold at least two images, one of them for validation. "
            f"Received: {count}"
        )
    return min(max(count // 10, 1), 5_000)


def _random_order(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(_sequence(seed, 0)).permutation(count)


def _sequence(seed: int, stream: int) -> np.random.SeedSequence:
    """Streams: 0 splits, 1 to 3 compose the splits, 4 and on other training images."""
    return np.random.SeedSequence(seed, spawn_key=(stream,))
