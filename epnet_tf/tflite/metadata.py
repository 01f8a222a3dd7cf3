"""TFLite metadata: what a model's inputs and outputs are, for the tools that show it.

A table that Android Studio, MediaPipe and other tools read is packed into the model,
and files that belong to it follow the model as a ZIP archive, which any unzip opens.
The numbers of fields here are those of TFLite's metadata_schema.fbs, version 1.1.0.
"""

import copy
import io
import zipfile
from collections.abc import Iterable, Mapping

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from epnet_tf.tflite.flatbuffer import Graph

LABELS = "labels.txt"
_ENTRY = "TFLITE_METADATA"
_FILE_IDENTIFIER = b"M001"
# The oldest version of the schema that has all fields used here.
_PARSER_VERSION = "1.0.0"
# Members of unions and enumerations of the schema.
_IMAGE_PROPERTIES, _NORMALIZATION_OPTIONS, _TENSOR_AXIS_LABELS = 2, 1, 2
_COLOR_SPACES = {1: 2, 3: 1}


def describe(
    graph: Graph, name: str, description: str, tensors: Mapping[str, str]
) -> Graph:
    """Adds metadata to a classifier of images that takes raw pixel values.

    Args:
        graph: A model with the input `image` and outputs `logits` or `probabilities`,
            whose classes will be named by a file `labels.txt`, see `with_files`.
        name: What the model is called.
        description: What it does.
        tensors: A sentence about each input and output.

    Returns:
        The model with metadata.
    """
    model = copy.copy(graph.model)
    table = np.frombuffer(_table(graph, name, description, tensors), np.uint8)
    model.metadata = [schema.MetadataT(_ENTRY, len(model.buffers))]
    model.buffers = [*model.buffers, schema.BufferT(table)]
    return Graph(model, graph.inputs, graph.outputs)


def with_files(content: bytes, files: Mapping[str, str]) -> bytes:
    """Puts files behind a model.

    Args:
        content: The model.
        files: Their texts by their names.

    Returns:
        The model, and a ZIP archive behind it, which runtimes pass over.
    """
    archive = io.BytesIO(content)
    with zipfile.ZipFile(archive, "a") as behind:
        for name, text in files.items():
            # Without a date of its own, so that the same model has the same bytes.
            behind.writestr(zipfile.ZipInfo(name), text)
    return archive.getvalue()


def labels_file(labels: Iterable[str]) -> str:
    """The text of `labels.txt`: a line for each class."""
    return "".join(" ".join(label.splitlines()) + "\n" for label in labels)


def _table(
    graph: Graph, name: str, description: str, tensors: Mapping[str, str]
) -> bytes:
    """The ModelMetadata of the schema; only the main subgraph is described."""
    builder = flatbuffers.Builder()
    shape = graph.tensors[graph.inputs["image"]].shape
    of_classes = _labels(builder)
    details = {
        "image": _image(builder, *shape[1:]),
        "logits": of_classes,
        "probabilities": of_classes,
    }
    inputs, outputs = (
        _vector(
            builder,
            [
                _object(
                    builder,
                    7,
                    {
                        0: builder.CreateString(tensor),
                        1: builder.CreateString(tensors[tensor]),
                        **details.get(tensor, {}),
                    },
                )
                for tensor in names
            ],
        )
        for names in (graph.inputs, graph.outputs)
    )
    subgraph = _object(builder, 7, {2: inputs, 3: outputs})
    model = {
        0: builder.CreateString(name),
        1: builder.CreateString(description),
        3: _vector(builder, [subgraph]),
        7: builder.CreateString(_PARSER_VERSION),
    }
    builder.Finish(_object(builder, 8, model), file_identifier=_FILE_IDENTIFIER)
    return bytes(builder.Output())


def _image(
    builder: flatbuffers.Builder, height: int, width: int, channels: int
) -> dict[int, int]:
    """Fields of TensorMetadata: an image, whose pixels the model takes as they are."""
    size = _object(builder, 2, {0: np.uint32(width), 1: np.uint32(height)})
    color_space = np.uint8(_COLOR_SPACES.get(channels, 0))
    properties = _object(builder, 2, {0: color_space, 1: size})
    content = {0: np.uint8(_IMAGE_PROPERTIES), 1: properties}
    options = _object(builder, 2, {0: _floats(builder, 0), 1: _floats(builder, 1)})
    unit = _object(builder, 2, {0: np.uint8(_NORMALIZATION_OPTIONS), 1: options})
    stats = _object(builder, 2, {0: _floats(builder, 255), 1: _floats(builder, 0)})
    return {3: _object(builder, 3, content), 4: _vector(builder, [unit]), 5: stats}


def _labels(builder: flatbuffers.Builder) -> dict[int, int]:
    """Fields of TensorMetadata: its values belong to labels."""
    name = builder.CreateString(LABELS)
    file = _object(builder, 4, {0: name, 2: np.uint8(_TENSOR_AXIS_LABELS)})
    return {6: _vector(builder, [file])}


def _object(builder: flatbuffers.Builder, size: int, fields: Mapping) -> int:
    """Writes a table; a field is a number of its type, or an int: an offset."""
    builder.StartObject(size)
    for slot, value in fields.items():
        if isinstance(value, np.uint8):
            builder.PrependUint8Slot(slot, int(value), 0)
        elif isinstance(value, np.uint32):
            builder.PrependUint32Slot(slot, int(value), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder: flatbuffers.Builder, value: float) -> int:
    return builder.CreateNumpyVector(np.array([value], np.float32))
