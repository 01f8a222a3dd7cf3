"""From a trained EPNet to a bundle: convert once, quantize once, slice, verify."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import keras
import numpy as np

from epnet_tf import files
from epnet_tf.deployment import bundle, litert, quantize, slicer
from epnet_tf.deployment.bundle import Manifest, Metrics, PolicyMetrics
from epnet_tf.deployment.runner import SegmentRunner
from epnet_tf.model import EPNet
from epnet_tf.prediction import Prediction

# Images on which segments in a row and the whole model must agree bit for bit.
_COMPARED_IMAGES = 32


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
    calibration_images: np.ndarray,
    output_dir: str | os.PathLike,
    *,
    quantization: str = "int8",
    evaluation_data: tuple[np.ndarray, np.ndarray] | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Converts a trained model to a bundle: one .tflite segment per exit.

    The segments in a row are compared with the whole model, bit for bit, and the
    policy is measured on `evaluation_data` with the Keras model and with the bundle,
    before the bundle is put in place. If anything fails, nothing is left behind, and
    an older bundle stays as it was.

    Usage:

    ```python
    conversion = epnet_tf.convert(
        model, x_train[:200], "bundle", evaluation_data=(x_val, y_val)
    )
    print(conversion.manifest.metrics)
    ```

    Args:
        model: The model, with trained controllers.
        calibration_images: Some of the training images, [n, h, w, c], raw values 0 to
            255; a few hundred in random order. Quantization takes its ranges from
            them.
        output_dir: The folder to make.
        quantization: `none`, or `int8`: main branch int8, heads float32.
        evaluation_data: Images and labels to measure the policy on, such as the
            validation split; None measures nothing.
        labels: Class names; None numbers the classes.
        name: What the bundle is called; None takes the model's name.
        overwrite: Whether a bundle in `output_dir` may be replaced.

    Returns:
        The `Conversion`.

    Raises:
        ValueError: If an argument is not as said above, or `output_dir` exists.
        OSError: If the bundle cannot be written.
    """
    quantize.check_mode(quantization)
    _check_output(pathlib.Path(output_dir), overwrite)
    manifest = _describe(model, quantization, labels, name)
    images = _check_images(manifest, calibration_images, evaluation_data)
    with files.write_whole(output_dir, overwrite) as folder:
        folder.mkdir()
        beta = _typical_beta(model) if model.beta_range else None
        whole = to_tflite(model, calibration_images, quantization, beta)
        segments = slicer.slice_model(whole)
        _compare(whole, segments, _feeds(images, beta))

        entries = bundle.segment_entries(
            segments, model.exit_layers, model.exit_costs.with_controllers
        )
        manifest = dataclasses.replace(manifest, segments=entries)
        for segment, entry in zip(segments, entries, strict=True):
            (folder / entry.file).write_bytes(segment.content)
        bundle.write_manifest(manifest, folder)
        if evaluation_data is not None:
            metrics = _measure(model, SegmentRunner(folder), *evaluation_data)
            manifest = dataclasses.replace(manifest, metrics=metrics)
            bundle.write_manifest(manifest, folder)
    return Conversion(pathlib.Path(output_dir), manifest)


def to_tflite(
    model: keras.Model,
    calibration_images: np.ndarray,
    quantization: str,
    beta: float | None = None,
) -> bytes:
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
    return quantize.quantize(litert.to_tflite(model), quantization, feeds)


def _check_output(path: pathlib.Path, overwrite: bool) -> None:
    """Refuses to replace what is there, and ever to replace what is no bundle."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise ValueError(
            f"The output exists already, and may be replaced only with overwrite. "
            f"Received: {path}"
        )
    if not (path / bundle.MANIFEST).is_file():
        raise ValueError(
            "Expected as output a new folder, or a bundle to replace; what is there "
            f"is no bundle. Received: {path}"
        )


def _describe(
    model: EPNet, quantization: str, labels: Sequence[str] | None, name: str | None
) -> Manifest:
    """The manifest, as far as it is known before the segments are."""
    if not isinstance(model, EPNet):
        raise ValueError(
            f"Expected an epnet_tf.EPNet. Received: {type(model).__name__}"
        )
    beta = _typical_beta(model)
    span = model.beta_range
    labels = [str(c) for c in range(model.num_classes)] if labels is None else labels
    if len(labels) != model.num_classes:
        raise ValueError(
            f"Expected {model.num_classes} labels, one for each class of the model. "
            f"Received: {len(labels)} labels."
        )
    return Manifest(
        format=bundle.FORMAT,
        version=bundle.VERSION,
        name=name or model.name,
        input=bundle.InputSpec("image", (1, *model.image_shape), "float32", None),
        labels=tuple(labels),
        quantization=quantization,
        policy=bundle.Policy(
            "controller",
            threshold=0.0,
            beta=None if span else beta,
            beta_range=(span[0], span[1]) if span else None,
        ),
        full_macs=model.exit_costs.full,
        segments=(),
        metrics=None,
    )


def _check_images(manifest: Manifest, calibration_images, evaluation_data):
    """Checks all images; gives a few, to compare the whole and the segments on."""
    checked = manifest.input.check(calibration_images)
    if not len(checked):
        raise ValueError("Expected at least one calibration image. Received: none.")
    if evaluation_data is None:
        return checked[:_COMPARED_IMAGES]
    images, labels = evaluation_data
    checked = manifest.input.check(images)
    labels = np.asarray(labels)
    if labels.shape != (len(checked),) or not len(labels):
        raise ValueError(
            f"Expected evaluation_data with one label for each of {len(checked)} "
            f"images, at least one. Received: labels of shape {list(labels.shape)}."
        )
    if labels.min() < 0 or labels.max() >= len(manifest.labels):
        raise ValueError(
            f"Expected evaluation labels from 0 to {len(manifest.labels) - 1}. "
            f"Received: {labels.min()} to {labels.max()}."
        )
    return checked[:_COMPARED_IMAGES]


def _typical_beta(model: EPNet) -> float:
    """The β that the policy is for; the middle, on a logarithmic scale, of a range."""
    if model.beta_range:
        return float(np.sqrt(np.prod(model.beta_range)))
    if model.beta is None:
        raise ValueError(
            "Expected a model whose controllers are trained. "
            f"Received: '{model.name}' with beta=None."
        )
    return float(model.beta)


def _feeds(images: np.ndarray, beta: float | None) -> list[dict[str, np.ndarray]]:
    """The whole model's inputs for each image."""
    shared = {} if beta is None else {"beta": np.full([1, 1], beta, np.float32)}
    return [{"image": i[np.newaxis].astype(np.float32), **shared} for i in images]


def _compare(whole: bytes, segments: Sequence[slicer.Segment], feeds) -> None:
    """Checks that segments in a row compute, bit for bit, what the whole model does.

    Raises:
        ValueError: If an output differs, or is not finite.
    """
    model = litert.LiteRTModel(whole)
    parts = [litert.LiteRTModel(segment.content) for segment in segments]
    for feed in feeds:
        expected = model.run(**feed)
        tensors = dict(feed)
        for part in parts:
            tensors |= part.run(**{name: tensors[name] for name in part.inputs})
        for name, value in expected.items():
            if not np.isfinite(value).all():
                raise ValueError(f"The model's output {name} is not finite.")
            if value.tobytes() != tensors[name].tobytes():
                raise ValueError(
                    f"The segments in a row differ from the whole model in {name}: "
                    "the slicer does not cut this model correctly."
                )


def _measure(model: EPNet, runner: SegmentRunner, images, labels) -> Metrics:
    """The policy with the Keras model and with the bundle, on the same images."""
    beta = _typical_beta(model)
    given = beta if model.beta_range else None
    keras_answers = model.classify(images, beta=given)
    bundle_answers = runner.predict(images, beta=given)
    return Metrics(
        float=_policy_metrics(keras_answers, labels, beta, model.num_exits),
        bundle=_policy_metrics(bundle_answers, labels, beta, model.num_exits),
        same_exit=float(np.mean(keras_answers.exit == bundle_answers.exit)),
        same_label=float(np.mean(keras_answers.label == bundle_answers.label)),
        beta=beta,
        images=len(images),
    )


def _policy_metrics(
    answers: Prediction, labels: np.ndarray, beta: float, num_exits: int
) -> PolicyMetrics:
    accuracy = float(np.mean(answers.label == labels))
    mean_macs = float(np.mean(answers.macs))
    rates = np.bincount(answers.exit - 1, minlength=num_exits) / len(answers.exit)
    return PolicyMetrics(
        accuracy=accuracy,
        benefit=100.0 * accuracy - beta * mean_macs,
        mean_macs=mean_macs,
        exit_rates=tuple(rates.tolist()),
    )
