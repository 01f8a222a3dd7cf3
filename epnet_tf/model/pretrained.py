"""Main branches by name: the networks of `keras.applications`, on raw pixels."""

import collections
import contextlib
import inspect
import os
import pathlib
import sys
import traceback
from collections.abc import Iterator

import keras
import numpy as np
from keras import layers, ops
from keras.src.backend.common import global_state

from epnet_tf import cli

IMAGENET, NO_WEIGHTS = "imagenet", "none"
_APPLICATIONS = keras.applications.VGG16.__module__.rpartition(".")[0]


@keras.saving.register_keras_serializable("epnet_tf")
class ReversedChannels(layers.Layer):
    """Images [b, h, w, c] with the channels in reverse: from RGB to BGR and back."""

    def call(self, inputs):
        """The images, reversed."""
        # Slices joined again are what every TensorFlow Lite runtime computes.
        return ops.concatenate(ops.split(inputs, inputs.shape[-1], axis=-1)[::-1], -1)

    def compute_output_shape(self, input_shape):
        """As the input's."""
        return input_shape


def names() -> list[str]:
    """The networks of `keras.applications`, sorted."""
    return sorted(
        name
        for name, value in vars(keras.applications).items()
        if inspect.isfunction(value)
    )


def pretrained(
    name: str, image_shape: tuple[int, int, int], weights: str | os.PathLike = IMAGENET
) -> keras.Model:
    """A network of `keras.applications` without its classifier, for raw pixels.

    What the network's `preprocess_input` does is built in as layers.

    Args:
        name: Such as `MobileNetV3Small`; `names` has all.
        image_shape: Height, width, channels of the images.
        weights: `imagenet`, which Keras downloads; a file of weights that were saved
            from the same headless network; or `none` for random ones.

    Returns:
        A functional model: images [b, h, w, c] with values 0 to 255 to features.

    Raises:
        ValueError: If there is no such network or file, the weights are of another
            network or cannot be downloaded, or the images do not suit the network.
    """
    if name not in names():
        raise ValueError(
            f"Expected as network one of keras.applications: {', '.join(names())}. "
            f"Received: '{name}'."
        )
    weights = os.fspath(weights)
    file = None if weights in (IMAGENET, NO_WEIGHTS) else pathlib.Path(weights)
    if file is not None:
        _check_file(name, file)
    network = _build(name, image_shape, IMAGENET if weights == IMAGENET else None)
    if file is not None:
        _load(network, name, file)
    image = x = keras.Input(image_shape, name="image")
    for layer in preprocessing(_constructor(name)):
        x = layer(x)
    return keras.Model(image, network(x), name=network.name)


def preprocessing(function) -> list[layers.Layer]:
    """The `preprocess_input` of a network of `keras.applications`, as layers.

    Args:
        function: The network, such as `keras.applications.VGG16`, or its
            `preprocess_input`.

    Returns:
        The layers to apply one after the other; none, if it leaves images alone.

    Raises:
        ValueError: If the function does something else than to scale and shift each
            channel, perhaps in reverse order.
    """
    preprocess = sys.modules[function.__module__].preprocess_input
    # Black, and each channel alone at 255: what a function of this kind is made of.
    probes = np.concatenate([np.zeros([1, 3]), 255 * np.eye(3)]).astype("float32")
    found = np.asarray(preprocess(probes.reshape([1, 4, 1, 3]).copy())).reshape(4, 3)
    offset, matrix = found[0].astype("float64"), (found[1:] - found[0]) / 255.0
    made: list[layers.Layer] = []
    if not matrix.diagonal().all():
        matrix = matrix[::-1]
        made.append(ReversedChannels(name="reversed_channels"))
    scale = matrix.diagonal().astype("float64")
    if not np.array_equal(np.diag(scale).astype("float32"), matrix.astype("float32")):
        raise ValueError(
            "Expected preprocessing that scales and shifts each channel. Received: "
            f"{preprocess.__module__}.{preprocess.__name__}."
        )
    if not np.allclose(scale, 1.0) or offset.any():
        made.append(
            layers.Rescaling(scale.tolist(), offset.tolist(), name="preprocessing")
        )
    return made


def as_layer(given):
    """What images go through before a backbone, as a layer that can be saved.

    Args:
        given: A layer; or a `preprocess_input` of `keras.applications`; or None.

    Returns:
        The layer, or None.

    Raises:
        ValueError: If it is another function, or a layer that holds a Python function,
            which could be saved but not loaded.
    """
    if given is None:
        return None
    if not isinstance(given, layers.Layer):
        known = inspect.isfunction(given) and given.__name__ == "preprocess_input"
        if not (known and given.__module__.startswith(_APPLICATIONS)):
            raise ValueError(
                "Expected as preprocessing a Keras layer, such as "
                "keras.layers.Rescaling(1 / 255), or preprocess_input of a network of "
                f"keras.applications. Received: {getattr(given, '__name__', given)!r} "
                f"of type {type(given).__name__}."
            )
        found = preprocessing(given)
        if len(found) < 2:
            return found[0] if found else None
        return keras.Sequential(found, name="preprocessing")
    for layer in given._flatten_layers():
        if isinstance(layer, layers.Lambda):
            _check_loads(layer)
    return given


def _check_loads(layer: layers.Lambda) -> None:
    try:
        keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(layer)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            "Expected as preprocessing layers that can be loaded again, such as "
            "keras.layers.Rescaling, or a Lambda of a function registered with "
            "keras.saving.register_keras_serializable. Received: "
            f"layer '{layer.name}' of type Lambda."
        ) from error


def _constructor(name: str):
    return getattr(keras.applications, name)


def _check_file(name: str, file: pathlib.Path) -> None:
    if not file.is_file():
        raise ValueError(
            f"Expected as weights '{IMAGENET}', '{NO_WEIGHTS}' or a file of {name}'s "
            f"weights. Received: '{file}', which does not exist."
        )
    if name.startswith("EfficientNetB") and file.name.endswith("_notop.h5"):
        # With its ImageNet weights alone, Keras builds one more scaling into it.
        raise ValueError(
            f"Expected the ImageNet weights of {name} where Keras looks for them: save "
            f"the file as {_cache() / file.name} and give weights '{IMAGENET}'. "
            f"Received: '{file}'."
        )


def _build(name: str, image_shape, weights: str | None) -> keras.Model:
    try:
        with _numbered_from_one():
            return _constructor(name)(
                include_top=False, weights=weights, input_shape=image_shape
            )
    except ValueError as error:
        raise ValueError(
            f"Expected images that {name} can take. Received: images of shape "
            f"{list(image_shape)}: {cli.sentence(error)}"
        ) from error
    except Exception as error:
        # Keras raises no kind of its own when a download fails.
        frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
        found = next((f for f in frames if "download_target" in f), None)
        if found is None:
            raise
        raise ValueError(
            f"Expected the ImageNet weights of {name}, which could not be downloaded; "
            f"fetch {found['origin']} elsewhere and save it as "
            f"{found['download_target']}, or give '{NO_WEIGHTS}' for random weights. "
            f"Received: {cli.sentence(error)}"
        ) from error


@contextlib.contextmanager
def _numbered_from_one() -> Iterator[None]:
    """Lets layers without a name of their own be called as in a new process.

    Exits are named after layers: `re_lu_3` has to be the same one whenever it is built.
    The counters are private to Keras (tests/test_pretrained.py).
    """
    key = "object_name_uids"
    before = global_state.get_global_attribute(key) or {}
    counted: dict[str, int] = collections.defaultdict(int)
    global_state.set_global_attribute(key, counted)
    try:
        yield
    finally:
        for prefix, count in before.items():
            counted[prefix] = max(counted[prefix], count)


def _load(network: keras.Model, name: str, file: pathlib.Path) -> None:
    try:
        network.load_weights(file)
    except Exception as error:  # HDF5, zip files and Keras each have their own kinds.
        raise ValueError(
            f"Expected a file of weights (.weights.h5 or .h5) saved from {name} with "
            f"include_top=False. Received: '{file}', which fails with "
            f"{type(error).__name__}: {cli.sentence(error)[:300]}"
        ) from error


def _cache() -> pathlib.Path:
    """Where Keras keeps what it has downloaded."""
    home = os.environ.get("KERAS_HOME", os.path.join(os.path.expanduser("~"), ".keras"))
    return pathlib.Path(home) / "models"
