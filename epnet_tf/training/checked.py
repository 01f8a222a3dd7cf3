"""What a stage is fitted to or evaluated on, checked as it comes in.

Within a step that is compiled, a label that no class has becomes a row of zeros, and on
a GPU nobody hears of it. So labels are looked at before: arrays at once, `tf.data`
batch by batch in its pipeline, which runs on the CPU whatever compiles the step.
"""

import functools
import types

import keras
import tensorflow as tf

from epnet_tf.data.labels import check_labels
from epnet_tf.data.pixels import warn_of_range
from epnet_tf.data.streams import StreamedImages


class DataCheck:
    """Checks labels, and warns of pixels, of whatever `keras.Model.fit` takes.

    Loaders of other libraries are let through.

    Args:
        num_classes: Number of classes.

    Attributes:
        error: What was found within a pipeline, and comes out of TensorFlow as an
            error of another kind; None if all is well.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.error: ValueError | None = None

    def __call__(self, data, labels=None, what: str = ""):
        """Checks data, now or when it is read.

        Args:
            data: Images [n, h, w, c], or states as `ExitStates.inputs` gives them; or
                both with labels, in a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
                generator of batches, or a function that makes a `tf.data.Dataset` of a
                `tf.distribute.InputContext`.
            labels: As `epnet_tf.data.labels.check_labels` takes them, with `soft`; of
                images or states.
            what: What data it is, in messages, such as `validation `.

        Returns:
            The data, to be read in place of what was given.

        Raises:
            ValueError: If labels are not so.
        """
        if isinstance(data, tf.data.Dataset):
            return data.enumerate().map(functools.partial(self._in_pipeline, what))
        if isinstance(data, types.FunctionType | functools.partial):
            return lambda context: self(data(context), what=what)
        if isinstance(data, keras.utils.PyDataset):
            return _CheckedPyDataset(data, functools.partial(self._batch, what))
        if isinstance(data, types.GeneratorType):
            return (self._batch(what, i, batch) for i, batch in enumerate(data))
        if labels is not None or isinstance(data, dict) or hasattr(data, "shape"):
            self._labels(labels, what)
            # Of streamed images the first: to look at all would be to read them.
            _pixels(data[:1] if isinstance(data, StreamedImages) else data, what)
        return data

    def _batch(self, what: str, index: int, batch):
        """A batch of arrays, checked."""
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
        self._labels(labels, what)
        if index == 0:
            _pixels(images, what)
        return batch

    @tf.autograph.experimental.do_not_convert
    def _in_pipeline(self, what: str, index, batch):
        """A batch of a pipeline, checked when it is read."""
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(batch)
        if not tf.is_tensor(labels):
            self._labels(labels, what)
        elif labels.dtype == tf.string:  # Known before there is a batch.
            self._labels(labels.dtype, what)

        # Of the first batch: it tells, and batches may be large.
        count = tf.where(index == 0, tf.shape(labels)[0], 0)
        some = [images[:count]] if tf.is_tensor(images) else []

        def look(labels, *some):
            self._labels(labels, what)
            for images in some:
                _pixels(images, what)
            return labels

        checked = tf.numpy_function(look, [labels, *some], labels.dtype)
        checked.set_shape(labels.shape)
        return keras.utils.pack_x_y_sample_weight(images, checked, weights)

    def _labels(self, labels, what: str) -> None:
        try:
            check_labels(labels, self.num_classes, what=f"{what}labels", soft=True)
        except ValueError as error:
            self.error = error
            raise


class _CheckedPyDataset(keras.utils.PyDataset):
    """A `PyDataset` whose batches go through a check."""

    def __init__(self, dataset, check):
        super().__init__(
            dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size
        )
        self.dataset, self.check = dataset, check

    @property
    def num_batches(self):
        return self.dataset.num_batches

    def __getitem__(self, index):
        return self.check(index, self.dataset[index])

    def on_epoch_begin(self):
        self.dataset.on_epoch_begin()

    def on_epoch_end(self):
        self.dataset.on_epoch_end()


def _pixels(images, what: str) -> None:
    if not isinstance(images, dict):
        warn_of_range(images, f"{what}images")
