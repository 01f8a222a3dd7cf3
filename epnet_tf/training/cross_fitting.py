"""Cross-fitting: states for controllers, by classifiers that have not seen the images.

A classifier is surer of images that it was trained on than of others; of few images it
knows them by heart. A controller that learns from its answers to these stops too soon.
So the images are dealt into folds, and what a controller sees of each image is what
classifiers say that were trained, from the start, on the other folds. The main branch
must not have learnt from the images: it is frozen, so that what classifiers read of it
is computed once for all folds.
"""

from collections.abc import Callable

import keras
import numpy as np

from epnet_tf.data import streams
from epnet_tf.data.labels import check_labels
from epnet_tf.model import EPNet, graph
from epnet_tf.model.states import ExitStates, state_model

FOLDS = 4
# What classifiers read of all images stays in memory for so many of them.
_EXITS_AT_A_TIME = 8


def cross_fitted_states(
    model: EPNet,
    images: streams.Images,
    labels: np.ndarray,
    optimizer: Callable[[int], keras.optimizers.Optimizer],
    epochs: int,
    batch_size: int,
    draws: int = 1,
    seed: int = 0,
    verbose="auto",
) -> ExitStates:
    """Exit states of images by classifiers that were trained on others of them.

    Args:
        model: An `EPNet` that is `frozen`; it stays as it is.
        images: [n, h, w, c], raw values 0 to 255: the same images in each draw, one
            draw behind the other. All draws of an image are in one fold.
        labels: int [n].
        optimizer: Makes the optimizer for a fold, from its steps in an epoch.
        epochs: Passes over the images of the other folds, of all draws.
        batch_size: Images in a batch.
        draws: Number of draws.
        seed: Of folds, initial weights and order.
        verbose: As in `keras.Model.fit`; 0 prints nothing.

    Returns:
        The `ExitStates`, in the order of the images.

    Raises:
        ValueError: If the model is not frozen, there are fewer images than two folds
            need, or their number is not that of whole draws.
    """
    if not model.frozen:
        raise ValueError(
            "Expected a frozen EPNet, whose main branch has not learnt from the images."
            " Received: one that is not frozen."
        )
    labels = check_labels(labels, model.num_classes, count=len(images))
    count, rest = divmod(len(images), draws)
    if rest or count < 2:
        raise ValueError(
            f"Expected at least 2 images in each of {draws} draws. "
            f"Received: {len(images)} images in all."
        )
    fold = np.random.default_rng(seed).permutation(count) % min(FOLDS, count)
    fold = np.tile(fold, draws)
    predictor = state_model(model)
    states = predictor.output
    pooled = [states[f"pooled_{i:02d}"] for i in range(1, model.num_exits)]
    logits = [states[f"logits_{i:02d}"] for i in range(1, model.num_exits + 1)]
    seen: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    for first in range(0, model.num_exits, _EXITS_AT_A_TIME):
        some = slice(first, first + _EXITS_AT_A_TIME)
        read = [_read(tensor) for tensor in logits[some]]
        reader = keras.Model(predictor.input, [*read, *pooled[some]])
        found = _listed(reader.predict(streams.in_batches(images), verbose=verbose))
        found = [np.asarray(x, np.float32) for x in found]
        seen += found[len(read) :]
        answers += _answers(
            keras.Model(read, logits[some]),
            found[: len(read)],
            labels,
            fold,
            optimizer,
            epochs,
            batch_size,
            seed,
            verbose,
        )
    return ExitStates(tuple(seen), np.stack(answers, axis=1), labels)


def _answers(
    classifiers: keras.Model,
    read: list[np.ndarray],
    labels: np.ndarray,
    fold: np.ndarray,
    optimizer,
    epochs,
    batch_size,
    seed,
    verbose,
) -> list[np.ndarray]:
    """Logits [n, classes] of each exit, for each fold by classifiers trained anew."""
    logits = classifiers.outputs
    keras.utils.set_random_seed(seed)
    trained = _untrained(classifiers)
    steps = -(-np.count_nonzero(fold != 0) // batch_size)
    trained.compile(
        optimizer(steps),
        [keras.losses.SparseCategoricalCrossentropy(True) for _ in logits],
    )
    trained.optimizer.build(trained.trainable_variables)
    variables = [*trained.variables, *trained.optimizer.variables]
    start = [np.copy(variable) for variable in variables]
    answers = [np.empty([len(labels), y.shape[-1]], np.float32) for y in logits]
    for k in range(fold.max() + 1):
        others, own = fold != k, fold == k
        # Not compiled anew, which takes longer than to train on a few images.
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        trained.fit(
            [x[others] for x in read],
            [labels[others]] * len(logits),
            batch_size=batch_size,
            epochs=epochs,
            verbose=0,
        )
        found = trained.predict([x[own] for x in read], batch_size, verbose=0)
        for answer, of_fold in zip(answers, _listed(found), strict=True):
            answer[own] = of_fold
        if verbose:
            print(f"Classifiers for fold {k + 1} of {fold.max() + 1} are trained.")
    return answers


def _read(logits: keras.KerasTensor) -> keras.KerasTensor:
    """What the first layer with weights of an exit's classifier reads."""
    dense = graph.producer(logits)
    number = dense.operation.name.removeprefix("logits")
    for node in graph.ancestors([logits]):
        if node.operation.name == f"scaling{number}":
            return node.input_tensors[0]
    return dense.input_tensors[0]


def _listed(found) -> list:
    """What a model with a list of outputs predicts: of one, Keras gives it alone."""
    return found if isinstance(found, list) else [found]


def _untrained(classifiers: keras.Model) -> keras.Model:
    """Classifiers with new weights; those that are not to be trained keep theirs."""
    twin = keras.models.clone_model(classifiers)
    for mine, theirs in zip(twin.layers, classifiers.layers, strict=True):
        if not theirs.trainable:
            mine.set_weights(theirs.get_weights())
    return twin
