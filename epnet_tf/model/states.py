"""Exit states: all that the controllers see of an image, computed once."""

import os
from collections.abc import Iterator
from typing import overload

import keras
import numpy as np
import tensorflow as tf

from epnet_tf.data import streams
from epnet_tf.data.labels import check_labels
from epnet_tf.data.pixels import warn_of_range
from epnet_tf.model import graph, stored_states
from epnet_tf.model.exit_states import ExitStates, joined
from epnet_tf.model.stored_states import StoredStates

__all__ = ["ExitStates", "StoredStates", "compute_states", "joined", "state_model"]


def state_model(model: keras.Model) -> keras.Model:
    """The part of an EPNet that makes the states: main branch and classifiers.

    Args:
        model: An `EPNet`; its layers are shared.

    Returns:
        Images to a dict of `pooled_01` … (m_i, none for the last exit) and
        `logits_01` … (y_i).
    """
    image = model.input["image"] if model.beta_range else model.input
    outputs = {k: v for k, v in model.output.items() if k.startswith("logits_")}
    for i in range(1, model.num_exits):
        stop = graph.producer(model.output[f"stop_{i:02d}"])
        outputs[f"pooled_{i:02d}"] = stop.input_tensors[0]
    return keras.Model(image, outputs, name="states")


def split_state_model(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The parts of `state_model`, which can run in different modes.

    Args:
        model: An `EPNet`; its layers are shared.

    Returns:
        The main branch, images to the list of what each exit reads; and the heads,
        that list to the states.
    """
    states = state_model(model)
    features = list(model.exit_features)
    return keras.Model(states.input, features), keras.Model(features, states.output)


@overload
def compute_states(
    model: keras.Model, images, labels=..., batch_size: int = ..., verbose=...
) -> ExitStates: ...


@overload
def compute_states(
    model: keras.Model,
    images,
    labels=...,
    batch_size: int = ...,
    verbose=...,
    *,
    directory: str | os.PathLike,
    memory: int = ...,
) -> StoredStates: ...


def compute_states(
    model: keras.Model,
    images,
    labels=None,
    batch_size: int = 256,
    verbose="auto",
    *,
    directory: str | os.PathLike | None = None,
    memory: int = 1 << 30,
) -> ExitStates | StoredStates:
    """Runs main branch and classifiers once over images.

    Args:
        model: An `EPNet`.
        images: [n, h, w, c], raw values 0 to 255; or a `tf.data.Dataset` of images with
            labels, one by one or in batches, which is gone through once, so that it
            may be shuffled.
        labels: Whole numbers [n] or [n, 1], or one-hot [n, classes]; None with a data
            set, which has them.
        batch_size: Images computed at a time; a data set's own batches stay.
        verbose: As in `keras.Model.predict`.
        directory: A folder to store the states in, shard by shard, instead of keeping
            them in memory. Stopped and called again, it goes on with the images whose
            states are missing; a data set must then come in the same order, and is
            read from its start.
        memory: As of `StoredStates`.

    Returns:
        The `ExitStates`; with a directory its `StoredStates`.

    Raises:
        ValueError: If labels are not so, or not as many as images, or a data set has
            none, no end, or comes with labels beside it; or the directory holds
            something else, or states of other images.
    """
    predictor = state_model(model)
    if isinstance(images, tf.data.Dataset):
        if labels is not None:
            raise ValueError(
                "Expected a data set's own labels alone, which stay beside their "
                "images when it is shuffled. Received: labels as well."
            )
        batches = streams.labelled_batches(images, batch_size)
        done = _begin(directory, predictor)
        checked = _without(_checked(batches, model.num_classes), done, directory)
    else:
        labels = check_labels(labels, model.num_classes, count=len(images))
        if directory is None and not isinstance(images, streams.StreamedImages):
            warn_of_range(images)
            outputs = predictor.predict(images, batch_size, verbose=verbose)
            return _states(outputs, labels)
        done = _begin(directory, predictor)
        _check_order(done, labels[: len(done)], directory)
        rest = slice(len(done), None)
        images, labels = streams.streamed(images)[rest], labels[rest]
        batches = streams.batches(images, labels, batch_size)
        checked = _checked(batches, model.num_classes) if len(labels) else iter(())
    parts = _of_batches(predictor, checked, batches, verbose)
    if directory is not None:
        stored_states.store(directory, parts)
        return StoredStates(directory, memory)
    return joined(list(parts))


def _begin(directory: str | os.PathLike | None, predictor: keras.Model) -> np.ndarray:
    """The labels of the images whose states the directory, if any, has."""
    if directory is None:
        return np.empty(0, np.int32)
    return stored_states.begin(directory, predictor)


def _check_order(
    done: np.ndarray, labels: np.ndarray, directory: str | os.PathLike | None
) -> None:
    """Checks that images are those whose states are there.

    Raises:
        ValueError: If their labels are others.
    """
    if not np.array_equal(done, labels):
        raise ValueError(
            "Expected images in the order in which their states were stored. "
            f"Received: other labels than those in {directory}."
        )


def _checked(
    batches: tf.data.Dataset, num_classes: int
) -> Iterator[tuple[tf.Tensor, np.ndarray]]:
    """Batches with their labels as numbers.

    Raises:
        ValueError: If labels are not as they should be, or there are no images.
    """
    i = -1
    for i, (images, labels) in enumerate(batches):
        if i == 0:
            warn_of_range(images)
        yield images, check_labels(labels, num_classes, count=len(images))
    if i < 0:
        raise ValueError("Expected a data set of at least one image. Received: none.")


def _without(
    batches: Iterator[tuple[tf.Tensor, np.ndarray]],
    done: np.ndarray,
    directory: str | os.PathLike | None,
) -> Iterator[tuple[tf.Tensor, np.ndarray]]:
    """The batches that follow those whose states are there.

    Raises:
        ValueError: If the labels of those are others.
    """
    seen = 0
    for images, labels in batches:
        known = done[seen : seen + len(labels)]
        _check_order(known, labels[: len(known)], directory)
        seen += len(labels)
        if len(known) < len(labels):
            yield images[len(known) :], labels[len(known) :]
    if seen < len(done):
        raise ValueError(
            f"Expected the {len(done)} images whose states are in {directory}. "
            f"Received: {seen}."
        )


def _of_batches(
    predictor: keras.Model, checked: Iterator, batches: tf.data.Dataset, verbose
) -> Iterator[ExitStates]:
    """The states of each batch of images with labels."""
    count = int(batches.cardinality())
    bar = keras.utils.Progbar(count if count > 0 else None, verbose=bool(verbose))
    for i, (images, labels) in enumerate(checked, 1):
        yield _states(predictor.predict_on_batch(images), labels)
        bar.update(i)


def _states(outputs: dict, labels: np.ndarray) -> ExitStates:
    count = sum(name.startswith("logits_") for name in outputs)
    exits = range(1, count + 1)
    return ExitStates(
        tuple(outputs[f"pooled_{i:02d}"].astype("float32") for i in exits[:-1]),
        np.stack([outputs[f"logits_{i:02d}"] for i in exits], axis=1),
        labels,
    )
