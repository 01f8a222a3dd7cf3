"""Writes the model that stops by itself into a bundle: made, described, verified."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from epnet_tf.runtime import bundle, units
from epnet_tf.runtime.bundle import ExitEntry, Manifest, ModelEntry
from epnet_tf.tflite import metadata, one_file, verify
from epnet_tf.tflite.flatbuffer import Graph

FILE = "model.tflite"


def write(
    folder: pathlib.Path,
    manifest: Manifest,
    exits: Sequence[ExitEntry],
    whole: Graph,
    joined: Collection[int],
    feeds: Sequence[Mapping[str, np.ndarray]],
) -> Manifest:
    """Writes `model.tflite`, which other programs can run as it is.

    Behind the model lie `labels.txt` and an `epnet.json` of its own, so that it can be
    used without the bundle.

    Args:
        folder: The bundle's folder.
        manifest: What is known of the bundle.
        exits: Its exits.
        whole: The whole model.
        joined: Exits that end nothing, see `epnet_tf.tflite.one_file.build`.
        feeds: Inputs of the whole model to verify it on.

    Returns:
        The manifest, with an entry for it.

    Raises:
        ValueError: If it does not answer as the whole model does.
    """
    threshold = manifest.policy.threshold
    described = _described(one_file.build(whole, threshold, joined), manifest)
    entry = _entry(described.content, exits)
    within = dataclasses.replace(manifest, segments=(), metrics=None, model=entry)
    files = {
        metadata.LABELS: metadata.labels_file(manifest.labels),
        bundle.MANIFEST: bundle.manifest_text(within),
    }
    content = metadata.with_files(described.content, files)
    model = dataclasses.replace(described, source=content)
    verify.compare_one_file(whole, model, threshold, joined, feeds)
    (folder / FILE).write_bytes(content)
    return dataclasses.replace(manifest, model=_entry(content, exits))


def _entry(content: bytes, exits: Sequence[ExitEntry]) -> ModelEntry:
    sha256 = hashlib.sha256(content).hexdigest()
    return ModelEntry(FILE, sha256, len(content), tuple(exits))


def _described(graph: Graph, manifest: Manifest) -> Graph:
    """The model with metadata."""
    low, high = manifest.policy.beta_range or (0.0, 0.0)
    unit = "MAC" if manifest.paid_unit == units.MACS else manifest.paid_unit
    return metadata.describe(
        graph,
        manifest.name,
        "Classifies images, and stops at the first exit that is sure enough. The "
        "signature max_exit takes the exit that answers at the latest.",
        {
            "image": "Raw pixel values, 0 to 255.",
            "beta": f"Points of accuracy that a {unit} is worth, {low:g} to {high:g}.",
            "logits": "Of the exit that answered.",
            "exit": "The exit that answered, counted from 1.",
            "probabilities": "Softmax of the logits.",
        },
    )
