"""Images that stay where they are until they are asked for: in files, on disk."""

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# Images that are read at a time where one after the other is wanted.
_BLOCK = 64


class StreamedImages:
    """Images that take no memory: an array's place is taken by how to read them.

    An index gives one image, as of an array; a slice or an array of indices the same
    for some of them, still unread. `np.asarray` reads them all.

    Args:
        read: Reads the image of an index, [h, w, c]; several threads call it.
        shape: Number of images, height, width and channels.
        dtype: Of the pixels.
        indices: Which of the images these are, in this order; None for all.

    Attributes:
        shape: Number of these images, height, width and channels.
        dtype: Of the pixels.
    """

    ndim = 4

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        shape: tuple[int, ...],
        dtype: npt.DTypeLike = np.uint8,
        indices: np.ndarray | None = None,
    ):
        self._read = read
        self._indices = np.arange(shape[0]) if indices is None else indices
        self.shape = (len(self._indices), *shape[1:])
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._indices)

    def __getitem__(self, index):
        """One image [h, w, c], or several, to be read later."""
        if isinstance(index, (int, np.integer)):
            return self._read(int(self._indices[index]))
        chosen = self._indices[index]
        return StreamedImages(self._read, self.shape, self.dtype, chosen)

    def __iter__(self) -> Iterator[np.ndarray]:
        """One image after the other; some are read ahead."""
        for block in blocks(self, _BLOCK):
            yield from block

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All of them in memory."""
        images = np.empty(self.shape, self.dtype)
        if len(self) <= 1:
            images[:] = [self[i] for i in range(len(self))]
        else:
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                for i, image in enumerate(
                    threads.map(self.__getitem__, range(len(self)))
                ):
                    images[i] = image
        return images if dtype is None else images.astype(dtype)


Images = np.ndarray | StreamedImages


def streamed(images: Images) -> StreamedImages:
    """Images of either kind, as streamed ones."""
    if isinstance(images, StreamedImages):
        return images
    images = np.asarray(images)
    return StreamedImages(images.__getitem__, images.shape, images.dtype)


def labelled_batches(dataset: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """A user's data set of images with labels, in batches.

    Args:
        dataset: Of (image [h, w, c], label), or of batches of them.
        batch_size: Images in a batch, if they come one by one.

    Raises:
        ValueError: If it has no end, or no labels.
    """
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(
            "Expected a data set of images with labels, (image, label). "
            f"Received: elements {spec}."
        )
    return _batched(dataset, spec[0], batch_size)


def spooled(dataset: tf.data.Dataset) -> tuple[StreamedImages, np.ndarray]:
    """A user's data set, gone through once, to be read in any order and repeatedly.

    Args:
        dataset: As in `labelled_batches`.

    Returns:
        The images, which stay in a temporary file as long as they are referred to, and
        the labels.

    Raises:
        ValueError: If it has no end, no labels or no images, or they differ in size.
    """
    file = tempfile.TemporaryFile()
    labels = []
    shape: tuple[int, ...] | None = None
    for images, of_images in labelled_batches(dataset, 256).as_numpy_iterator():
        if shape not in (None, images.shape[1:]):
            raise ValueError(
                "Expected a data set of images of one size. "
                f"Received: {list(images.shape[1:])} after {list(shape)}."
            )
        shape = images.shape[1:]
        file.write(np.ascontiguousarray(images).data)
        labels.append(of_images)
    if shape is None:
        raise ValueError("Expected a data set of at least one image. Received: none.")
    file.flush()
    dtype = images.dtype
    size = math.prod(shape) * dtype.itemsize

    def read(index: int) -> np.ndarray:
        # Unlike seek and read, in one call: threads share the file.
        content = os.pread(file.fileno(), size, index * size)
        return np.frombuffer(content, dtype).reshape(shape)

    found = np.concatenate(labels)
    return StreamedImages(read, (len(found), *shape), dtype), found


def in_batches(images, batch_size: int = 256):
    """Images as `keras.Model.predict` takes them, without all of them in memory.

    Args:
        images: An array, `StreamedImages`, or a `tf.data.Dataset` of images, or of
            images with labels, one by one or in batches.
        batch_size: Images in a batch, unless the data set has batches.

    Returns:
        An array as it is; all else as a `tf.data.Dataset` of batches [b, h, w, c].

    Raises:
        ValueError: If a data set has no end, or holds something else.
    """
    if isinstance(images, StreamedImages):
        return batches(images, batch_size=batch_size)
    if not isinstance(images, tf.data.Dataset):
        return images
    if isinstance(images.element_spec, tuple):
        images = images.map(lambda image, *_: image)
    return _batched(images, images.element_spec, batch_size)


def _batched(dataset: tf.data.Dataset, image, batch_size: int) -> tf.data.Dataset:
    rank = image.shape.rank if isinstance(image, tf.TensorSpec) else None
    if rank not in (3, 4):
        raise ValueError(
            "Expected a data set of images [h, w, c], or of batches [b, h, w, c]. "
            f"Received: elements {image}."
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("Expected a data set that ends. Received: an endless one.")
    return dataset.batch(batch_size) if rank == 3 else dataset


def blocks(images: Images, size: int) -> Iterator[np.ndarray]:
    """Images in arrays of `size`, the last one smaller, without more in memory."""
    for first in range(0, len(images), size):
        yield np.asarray(images[first : first + size])


def gather(images, index: tf.Tensor) -> tf.Tensor:
    """Some of the images, within a pipeline.

    Args:
        images: A tensor [n, h, w, c], or `StreamedImages`.
        index: int [b].

    Returns:
        [b, h, w, c].
    """
    if not isinstance(images, StreamedImages):
        return tf.gather(images, index)

    def read(indices):
        # In this thread: the pipeline asks for several batches at a time.
        return np.stack([images[i] for i in indices])

    batch = tf.numpy_function(read, [index], images.dtype)
    return tf.ensure_shape(batch, [*index.shape, *images.shape[1:]])


def parallel_calls(images) -> int | None:
    """Batches that a pipeline makes at a time; None for images in memory."""
    return os.cpu_count() if isinstance(images, StreamedImages) else None


def batches(
    images: StreamedImages, labels: np.ndarray | None = None, batch_size: int = 256
) -> tf.data.Dataset:
    """Streamed images in their order, decoded in parallel.

    Args:
        images: The images.
        labels: One for each; None for images alone.
        batch_size: Images in a batch; the last one may have fewer.

    Returns:
        `tf.data.Dataset` of images [b, h, w, c], or of (images, labels [b]).
    """
    index = tf.data.Dataset.range(len(images)).batch(batch_size)
    if labels is not None:
        of = tf.data.Dataset.from_tensor_slices(labels).batch(batch_size)
        index = tf.data.Dataset.zip(index, of)

    def read(index, *labels):
        return (gather(images, index), *labels) if labels else gather(images, index)

    return index.map(read, num_parallel_calls=parallel_calls(images)).prefetch(2)
