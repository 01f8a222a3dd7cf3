"""From a trained EPNet to a bundle: convert and quantize once, slice, join, verify."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from epnet_tf import files
from epnet_tf.conversion import checks, measure, one_file, report
from epnet_tf.data import streams
from epnet_tf.data.streams import Images
from epnet_tf.model import EPNet
from epnet_tf.quantization import modes, qat, refit
from epnet_tf.runtime import bundle
from epnet_tf.runtime.bundle import Manifest
from epnet_tf.runtime.metrics import Metrics
from epnet_tf.runtime.prediction import first_stop
from epnet_tf.tflite import export, outputs, slicer, verify
from epnet_tf.tflite.flatbuffer import Graph

# Images on which segments in a row and the whole model must agree bit for bit.
_COMPARED_IMAGES = 32
# Images that are run for the ends of a range of β.
_ENDS_IMAGES = 1000

# Images [n, h, w, c], raw values 0 to 255, and int labels [n].
Labelled = tuple[Images, np.ndarray]
# Or as a data set, of (image, label) or of batches of them.
Given: TypeAlias = Labelled | tf.data.Dataset


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A bundle that has been written.

    Attributes:
        path: Its folder.
        manifest: What its `epnet.json` says, metrics included.
    """

    path: pathlib.Path
    manifest: Manifest


def convert(
    model: EPNet,
    calibration_images: Images | tf.data.Dataset,
    output_dir: str | os.PathLike,
    *,
    quantization: str = "int8",
    evaluation_data: Given | None = None,
    test_data: Given | None = None,
    training_data: Given | None = None,
    refit: bool | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    formats: str = "both",
    overwrite: bool = False,
    crop: bool = False,
) -> Conversion:
    """Converts a trained model to a bundle that stops early.

    It holds a .tflite segment per exit, and the same in one file that stops by itself.
    Both are compared with the whole model, bit for bit, before the bundle is put in
    place. If anything fails, nothing is left behind, and an older
    bundle stays as it was.

    With `evaluation_data`, the Keras model and the bundle are measured side by side:
    in `epnet.json`, and for reading in `report.md` and `report.png` beside it. A
    bundle that loses more than half a point of benefit is warned of.

    Usage:

    ```python
    conversion = epnet_tf.convert(
        model,
        x_train[:200],
        "bundle",
        training_data=(x_train, y_train),
        evaluation_data=(x_val, y_val),
    )
    print(conversion.manifest.metrics)
    ```

    Args:
        model: The model, with trained controllers.
        calibration_images: Some of the training images, [n, h, w, c], raw values 0 to
            255; a few hundred in random order. Quantization takes its ranges from
            them. Of a `tf.data.Dataset` the first 200 images are taken.
        output_dir: The folder to make.
        quantization: A mode, see `epnet_tf.quantization.modes`.
        evaluation_data: Images and labels to measure on, such as the validation split;
            all of them are run. None measures nothing. This and the next two may be
            a `tf.data.Dataset`, shuffled or not: it is gone through once, into a
            temporary file.
        test_data: More of them, measured as well.
        training_data: Training images and labels, for the refit and for `qat`.
        refit: Whether heads are fitted again to what the quantized main branch
            computes (see `epnet_tf.quantization.refit`); None does so with the modes
            int8, int8-full and qat if there are `training_data`.
        labels: Class names; None numbers the classes.
        name: What the bundle is called; None takes the model's name.
        formats: `segments`, `one_file` or `both`.
        overwrite: Whether a bundle in `output_dir` may be replaced.
        crop: Whether pictures are cropped to the proportions of the model's images, as
            those that it was trained on (see `epnet_tf.load_dataset`), or stretched;
            the bundle's `preprocessing` says so.

    Returns:
        The `Conversion`.

    Raises:
        ValueError: If an argument is not as said above, or `output_dir` exists.
        OSError: If the bundle cannot be written.
    """
    modes.check_mode(quantization, training_data is not None)
    checks.check_formats(formats)
    checks.check_output(pathlib.Path(output_dir), overwrite)
    checks.check_model(model)
    refit = checks.check_refit(refit, model, quantization, training_data is not None)
    manifest = _describe(model, quantization, labels, name, crop)
    calibration_images = checks.check_images(manifest, _some(calibration_images))
    images = calibration_images
    evaluation_data, test_data, training_data = (
        checks.check_labelled(manifest, _at_hand(given), key)
        for given, key in (
            (evaluation_data, "evaluation_data"),
            (test_data, "test_data"),
            (training_data, "training_data"),
        )
    )
    if evaluation_data is not None:
        images = evaluation_data[0]
    elif test_data is not None:
        raise ValueError(
            "Expected evaluation_data beside test_data. Received: test_data alone."
        )
    with files.write_whole(output_dir, overwrite) as folder:
        folder.mkdir()
        fine_tuning = training_data if quantization in modes.FINE_TUNED else None
        refitting = training_data if refit else None
        tflite = _whole(model, calibration_images, quantization, fine_tuning, refitting)
        manifest = _with_dtype(manifest, modes.image_dtype(tflite.whole))
        dtype = manifest.input.dtype
        feeds = _feeds(images[:_COMPARED_IMAGES], _beta_input(model), dtype)
        if formats != "one_file":
            manifest = _write_segments(folder, manifest, model, tflite.whole, feeds)
        metrics = None
        if evaluation_data is not None:
            metrics = _measure(model, tflite, evaluation_data, test_data)
        if formats != "segments":
            joined = _never_taken(model, tflite.whole, images, metrics)
            exits = _exits(model)
            manifest = one_file.write(
                folder, manifest, exits, tflite.whole, joined, feeds
            )
        bundle.write_manifest(manifest, folder)
        if metrics is not None:
            cost = measure.cost(*tflite[:2], folder, images, _beta_input(model))
            metrics = dataclasses.replace(metrics, cost=cost)
            manifest = dataclasses.replace(manifest, metrics=metrics)
            bundle.write_manifest(manifest, folder)
            report.write(manifest, folder)
            for warning in report.warnings(metrics):
                logging.warning(warning)
    return Conversion(pathlib.Path(output_dir), manifest)


def to_tflite(
    model: keras.Model,
    calibration_images: Images,
    quantization: str,
    beta: float | None = None,
) -> Graph:
    """Converts a model, or a part of one, to a single .tflite and quantizes it.

    Args:
        model: A functional model with the input `image`, and `beta` if that is given.
        calibration_images: As in `convert`.
        quantization: As in `convert`.
        beta: The value of the input `beta` while calibrating.

    Returns:
        The .tflite model.
    """
    feeds = _feeds(calibration_images, beta)
    return modes.quantize(export.to_tflite(model), quantization, feeds)


def _some(images: Images | tf.data.Dataset) -> Images:
    """Calibration images: as they are, or the first of a data set."""
    if not isinstance(images, tf.data.Dataset):
        return images
    batches = streams.in_batches(images).unbatch().batch(modes.CALIBRATION_IMAGES)
    return next(batches.as_numpy_iterator(), np.empty(0))


def _at_hand(given: Given | None) -> Labelled | None:
    """Images and labels; those of a data set in a file, so that their order stays."""
    return streams.spooled(given) if isinstance(given, tf.data.Dataset) else given


class _TFLite(NamedTuple):
    """A model as .tflite, in one piece.

    Attributes:
        float32: Not quantized.
        whole: Quantized, what the segments are cut from.
        before_refit: Quantized without the refit; None if there is none.
    """

    float32: Graph
    whole: Graph
    before_refit: Graph | None = None


def _whole(
    model: EPNet,
    calibration_images: Images,
    quantization: str,
    fine_tuning: Labelled | None,
    refitting: Labelled | None,
) -> _TFLite:
    """Converts and quantizes, with data for it fine-tuned before and refitted after."""
    if fine_tuning is not None:
        model = qat.fine_tune(model, *fine_tuning)
    feeds = _feeds(calibration_images, _beta_input(model))
    float32 = export.to_tflite(model)
    whole = modes.quantize(float32, quantization, feeds)
    if refitting is None:
        return _TFLite(float32, whole)
    fitted = refit.refit(model, whole, *refitting)
    float32 = export.to_tflite(fitted)
    again = modes.quantize(float32, quantization, feeds)
    refit.check_same_main_branch(whole, again)
    return _TFLite(float32, again, before_refit=whole)


def _with_dtype(manifest: Manifest, dtype: str) -> Manifest:
    """The manifest of a model whose image has a type."""
    image = dataclasses.replace(manifest.input, dtype=dtype)
    return dataclasses.replace(manifest, input=image)


def _write_segments(
    folder: pathlib.Path,
    manifest: Manifest,
    model: EPNet,
    whole: Graph,
    feeds: Sequence[Mapping[str, np.ndarray]],
) -> Manifest:
    """Cuts, verifies and writes the segments; gives the manifest with them."""
    segments = slicer.slice_model(whole)
    verify.compare(whole, segments, feeds)
    entries = _entries(segments, model.exit_layers, model.exit_macs.with_controllers)
    for segment, entry in zip(segments, entries, strict=True):
        (folder / entry.file).write_bytes(segment.content)
    return dataclasses.replace(manifest, segments=entries)


def _entries(
    segments: Sequence[Graph],
    layers: Sequence[str],
    cumulative_macs: np.ndarray,
) -> tuple[bundle.SegmentEntry, ...]:
    """Describes segments for the manifest.

    Args:
        segments: From the slicer.
        layers: The Keras layer of each exit.
        cumulative_macs: int [exits], multiply-adds of leaving through each exit.

    Returns:
        The entries; the files are called `segment_01.tflite`, ….
    """
    macs = np.diff(cumulative_macs, prepend=0)
    return tuple(
        bundle.SegmentEntry(
            file=f"segment_{k:02d}.tflite",
            sha256=hashlib.sha256(segment.content).hexdigest(),
            bytes=len(segment.content),
            exit=k,
            layer=layer,
            inputs=tuple(segment.inputs),
            outputs=tuple(segment.outputs),
            macs=int(macs[k - 1]),
            cumulative_macs=int(cumulative_macs[k - 1]),
        )
        for k, (segment, layer) in enumerate(zip(segments, layers, strict=True), 1)
    )


def _exits(model: EPNet) -> list[bundle.ExitEntry]:
    """Describes the exits for the manifest."""
    macs = model.exit_macs.with_controllers.tolist()
    pairs = zip(model.exit_layers, macs, strict=True)
    return [bundle.ExitEntry(layer, count) for layer, count in pairs]


def _never_taken(
    model: EPNet, whole: Graph, images: Images, metrics: Metrics | None
) -> list[int]:
    """Exits, counted from 1, that no measured image leaves through.

    A model with a range of β is asked for its ends as well.
    """
    if metrics is None:
        return []
    taken = np.array(metrics.bundle.exit_rates) > 0
    for beta in model.beta_range or ():
        found = outputs.of_tflite(whole, images[:_ENDS_IMAGES], float(beta))
        taken[first_stop(found.stops)] = True
    return [k for k in range(1, len(taken)) if not taken[k - 1]]


def _describe(
    model: EPNet,
    quantization: str,
    labels: Sequence[str] | None,
    name: str | None,
    crop: bool,
) -> Manifest:
    """The manifest, as far as it is known before the segments are."""
    beta, span = _typical_beta(model), model.beta_range
    labels = [str(c) for c in range(model.num_classes)] if labels is None else labels
    if len(labels) != model.num_classes:
        raise ValueError(
            f"Expected {model.num_classes} labels, one for each class of the model. "
            f"Received: {len(labels)} labels."
        )
    other = next((label for label in labels if not isinstance(label, str)), None)
    if other is not None:
        raise ValueError(f"Expected labels that are text. Received: {other!r}.")
    return Manifest(
        format=bundle.FORMAT,
        version=bundle.VERSION,
        name=name or model.name,
        input=bundle.InputSpec("image", (1, *model.image_shape), "float32", None),
        labels=tuple(labels),
        quantization=quantization,
        policy=bundle.Policy(
            "controller" if model.confidence is None else "threshold",
            threshold=0.0,
            beta=None if span else beta,
            beta_range=(span[0], span[1]) if span else None,
            confidence=model.confidence,
        ),
        full_macs=int(model.exit_macs.full),
        segments=(),
        metrics=None,
        preprocessing=bundle.preprocessing_for(model.image_shape, crop),
        cost_unit=model.costs.unit if model.costs else None,
        costs=model.costs.costs if model.costs else None,
        full_cost=model.costs.full if model.costs else None,
    )


def _typical_beta(model: EPNet) -> float:
    """The β that the policy is for; the middle, on a logarithmic scale, of a range."""
    if model.beta_range:
        return float(np.sqrt(np.prod(model.beta_range)))
    assert model.beta is not None  # So `checks.check_model` has found.
    return float(model.beta)


def _beta_input(model: EPNet) -> float | None:
    """The β to feed the model with, if it takes one."""
    return _typical_beta(model) if model.beta_range else None


def _feeds(
    images: Images, beta: float | None, dtype: str = "float32"
) -> list[dict[str, np.ndarray]]:
    """The whole model's inputs for each image."""
    shared = {} if beta is None else {"beta": np.full([1, 1], beta, np.float32)}
    return [{"image": i[np.newaxis].astype(dtype), **shared} for i in images]


def _measure(
    model: EPNet,
    tflite: _TFLite,
    evaluation_data: Labelled,
    test_data: Labelled | None,
) -> Metrics:
    """What `epnet.json` says about answers."""
    metrics, *test = [
        measure.measure(
            model, tflite.whole, *given, _typical_beta(model), tflite.before_refit
        )
        for given in (evaluation_data, test_data)
        if given is not None
    ]
    return dataclasses.replace(metrics, test=test[0] if test else None)
