"""Metadata, read back by the numbers of the schema's fields."""

import io
import zipfile

import flatbuffers
import numpy as np
from graphs import GraphBuilder

from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.tflite import flatbuffer, metadata

TENSORS = {"image": "Raw pixels.", "beta": "A number.", "logits": "Of classes."}


def described(channels=3) -> flatbuffer.Graph:
    g = GraphBuilder()
    image = g.input("image", (1, 4, 6, channels))
    logits = g.add(g.pool(g.tanh(image)), g.input("beta", (1, 1)))
    return metadata.describe(g.build({"logits": logits}), "cats", "Tells.", TENSORS)


class Table:
    """A table of a flatbuffer, its fields by number."""

    def __init__(self, buffer, position):
        self.table = flatbuffers.table.Table(buffer, position)

    def offset(self, field):
        return self.table.Offset(4 + 2 * field)

    def number(self, field, kind="Uint8"):
        flags = getattr(flatbuffers.number_types, f"{kind}Flags")
        return self.table.Get(flags, self.table.Pos + self.offset(field))

    def string(self, field):
        return self.table.String(self.table.Pos + self.offset(field)).decode()

    def child(self, field):
        at = self.table.Indirect(self.table.Pos + self.offset(field))
        return Table(self.table.Bytes, at)

    def children(self, field):
        start = self.table.Vector(self.offset(field))
        count = self.table.VectorLen(self.offset(field))
        places = [self.table.Indirect(start + 4 * i) for i in range(count)]
        return [Table(self.table.Bytes, place) for place in places]

    def floats(self, field):
        flags = flatbuffers.number_types.Float32Flags
        return list(self.table.GetVectorAsNumpy(flags, self.offset(field)))


def read(graph: flatbuffer.Graph) -> Table:
    model = flatbuffer.read(graph.content).model
    (entry,) = model.metadata
    assert entry.name == b"TFLITE_METADATA"
    buffer = bytes(model.buffers[entry.buffer].data)
    assert buffer[4:8] == b"M001"
    return Table(buffer, int.from_bytes(buffer[:4], "little"))


def test_tools_are_told_what_goes_in_and_comes_out():
    model = read(described())
    assert model.string(0) == "cats"
    assert model.string(1) == "Tells."
    assert model.string(7) == "1.0.0"
    (subgraph,) = model.children(3)
    inputs, outputs = subgraph.children(2), subgraph.children(3)
    assert [tensor.string(0) for tensor in inputs] == ["image", "beta"]
    assert [tensor.string(1) for tensor in inputs] == ["Raw pixels.", "A number."]
    assert [tensor.string(0) for tensor in outputs] == ["logits"]


def test_image():
    for channels, color_space in ((1, 2), (3, 1)):
        image = read(described(channels)).children(3)[0].children(2)[0]
        content = image.child(3)
        assert content.number(0) == 2
        assert content.child(1).number(0) == color_space
        size = content.child(1).child(1)
        assert (size.number(0, "Uint32"), size.number(1, "Uint32")) == (6, 4)
        (unit,) = image.children(4)
        assert unit.number(0) == 1
        assert (unit.child(1).floats(0), unit.child(1).floats(1)) == ([0.0], [1.0])
        assert (image.child(5).floats(0), image.child(5).floats(1)) == ([255.0], [0.0])


def test_labels_are_a_file_behind_the_model():
    graph = described()
    (logits,) = read(graph).children(3)[0].children(3)
    (file,) = logits.children(6)
    assert (file.string(0), file.number(2)) == ("labels.txt", 2)

    text = metadata.labels_file(["cat", "two\nlines", "Häuschen"])
    content = metadata.with_files(graph.content, {metadata.LABELS: text})
    assert content.startswith(graph.content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        lines = archive.read("labels.txt").decode().splitlines()
    assert lines == ["cat", "two lines", "Häuschen"]


def test_the_model_runs_as_before():
    graph = described()
    feed = {"image": np.ones((1, 4, 6, 3), "f4"), "beta": np.ones((1, 1), "f4")}
    content = metadata.with_files(graph.content, {"a.txt": "A"})
    found = LiteRTModel(content).run(**feed)["logits"]
    np.testing.assert_array_equal(
        found, LiteRTModel(graph.content).run(**feed)["logits"]
    )
