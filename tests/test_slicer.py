"""The slicer, on graphs made by hand or drawn at random, and on a real model."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from graphs import GraphBuilder, pack, random_array, random_exits, random_feed

from epnet_tf.quantization import modes
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.tflite import flatbuffer, slicer


def run_in_row(segments, feed):
    """All tensors by name, after running the segments one after the other."""
    tensors = dict(feed)
    for segment in segments:
        model = LiteRTModel(segment.content)
        assert tuple(model.inputs) == tuple(sorted(segment.inputs))
        assert set(model.outputs) == set(segment.outputs)
        tensors |= model.run(**{name: tensors[name] for name in segment.inputs})
    return tensors


def assert_equal_to_whole(graph, segments, feed):
    whole = LiteRTModel(graph.content).run(**feed)
    row = run_in_row(segments, feed)
    for name, value in whole.items():
        assert value.tobytes() == row[name].tobytes(), name


def test_residual_cut_is_crossed_by_two_tensors():
    g = GraphBuilder()
    a = g.tanh(g.input("image"))
    b = g.tanh(a)
    c = g.add(b, a)
    graph = g.build(
        {"logits_01": g.pool(a), "logits_02": g.pool(b), "logits_03": g.pool(c)}
    )
    first, second, third = slicer.slice_model(graph)
    assert tuple(first.inputs) == ("image",)
    assert tuple(first.outputs) == ("logits_01", "features_01_1")
    assert tuple(second.inputs) == ("features_01_1",)
    assert tuple(second.outputs) == ("logits_02", "features_02_1")
    assert tuple(third.inputs) == ("features_01_1", "features_02_1")
    assert tuple(third.outputs) == ("logits_03",)
    feed = random_feed(g, np.random.default_rng(0))
    assert_equal_to_whole(graph, [first, second, third], feed)


def test_image_is_an_input_of_every_segment_that_reads_it():
    g = GraphBuilder()
    image = g.input("image")
    graph = g.build(
        {"logits_01": g.pool(g.tanh(image)), "logits_02": g.pool(g.add(image, image))}
    )
    segments = slicer.slice_model(graph)
    assert [tuple(s.inputs) for s in segments] == [("image",), ("image",)]
    assert_equal_to_whole(graph, segments, random_feed(g, np.random.default_rng(0)))


def test_logits_that_a_later_exit_reads_cross_under_their_own_name():
    g = GraphBuilder()
    a = g.tanh(g.input("image"))
    first = g.pool(a)
    stop = g.tanh(first)
    second = g.add(g.pool(g.tanh(a)), first)
    graph = g.build({"logits_01": first, "stop_01": stop, "logits_02": second})
    segments = slicer.slice_model(graph)
    assert tuple(segments[0].outputs) == ("logits_01", "stop_01", "features_01_1")
    assert tuple(segments[1].inputs) == ("features_01_1", "logits_01")
    assert_equal_to_whole(graph, segments, random_feed(g, np.random.default_rng(0)))


def test_logits_that_an_earlier_exit_computes_are_handed_through():
    g = GraphBuilder()
    a = g.tanh(g.input("image"))
    second = g.pool(g.tanh(a))
    stop = g.tanh(second)
    graph = g.build(
        {
            "logits_01": g.pool(a),
            "stop_01": stop,
            "logits_02": second,
            "stop_02": g.tanh(stop),
            "logits_03": g.pool(g.add(a, a)),
        }
    )
    segments = slicer.slice_model(graph)
    assert "logits_02" in segments[0].outputs
    assert "logits_02" in segments[1].outputs
    assert_equal_to_whole(graph, segments, random_feed(g, np.random.default_rng(0)))


def test_constant_paths_are_copied_and_do_not_cross():
    g = GraphBuilder()
    rng = np.random.default_rng(0)
    half = random_array(rng).astype(np.float16)
    weights = g.dequantize(g.constant(half, schema.TensorType.FLOAT16))
    a = g.add(g.input("image"), weights)
    b = g.tanh(a)
    c = g.multiply(b, weights)
    graph = g.build(
        {"logits_01": g.pool(a), "logits_02": g.pool(b), "logits_03": g.pool(c)}
    )
    segments = slicer.slice_model(graph)
    assert tuple(segments[1].inputs) == ("features_01_1",)
    assert tuple(segments[2].inputs) == ("features_02_1",)
    assert half.tobytes() in segments[2].content
    assert half.tobytes() not in segments[1].content
    assert_equal_to_whole(graph, segments, random_feed(g, rng))


def test_what_is_computed_from_beta_alone_does_not_cross():
    g = GraphBuilder()
    rng = np.random.default_rng(0)
    a = g.tanh(g.input("image"))
    scaled = g.tanh(g.input("beta", (1, 1)))
    b = g.tanh(a)
    graph = g.build(
        {
            "logits_01": g.pool(a),
            "stop_01": g.add(g.pool(a), scaled),
            "logits_02": g.pool(b),
            "stop_02": g.add(g.pool(b), scaled),
            "logits_03": g.pool(g.tanh(b)),
        }
    )
    segments = slicer.slice_model(graph)
    assert [tuple(s.inputs) for s in segments] == [
        ("beta", "image"),
        ("beta", "features_01_1"),
        ("features_02_1",),
    ]
    feed = {"image": random_array(rng), "beta": random_array(rng, (1, 1))}
    assert_equal_to_whole(graph, segments, feed)


def test_a_buffer_that_several_tensors_share_is_written_once():
    g = GraphBuilder()
    rng = np.random.default_rng(0)
    values = random_array(rng, (1, 9, 9, 2))
    one = g.constant(values)
    other = g.tensor(values.shape, g.tensors[one].buffer)
    a = g.multiply(g.add(g.input("image", values.shape), one), other)
    graph = g.build({"logits_01": g.pool(a)})
    (segment,) = slicer.slice_model(graph)
    assert segment.content.count(values.tobytes()) == 1
    feed = {"image": random_array(rng, values.shape)}
    assert_equal_to_whole(graph, [segment], feed)


def test_constants_behind_the_model_are_written_inline_and_aligned():
    g = GraphBuilder()
    rng = np.random.default_rng(0)
    constants = [random_array(rng) for _ in range(3)]
    a = g.input("image")
    for values in constants:
        a = g.add(a, g.constant(values))
    outputs = {"logits_01": g.pool(a)}
    expected = slicer.slice_model(g.build(outputs))[0].content

    # Sizes and offsets take the same space whatever they are.
    start = -(-len(_behind(g, outputs, constants, 1)) // 16) * 16
    content = _behind(g, outputs, constants, start).ljust(start, b"\0")
    content += b"".join(values.tobytes().ljust(80, b"\0") for values in constants)
    graph = flatbuffer.read(content)

    (segment,) = slicer.slice_model(graph)
    assert segment.content == expected
    model = schema.ModelT.InitFromPackedBuf(segment.content)
    assert all(b.offset == 0 and b.size == 0 for b in model.buffers)
    for values in constants:
        assert segment.content.index(values.tobytes()) % 16 == 0
    assert_equal_to_whole(graph, [segment], random_feed(g, rng))


def _behind(g, outputs, constants, start) -> bytes:
    """A model whose constants are said to lie at `start`, 80 bytes from each other."""
    model = g.model(outputs)
    for i, values in enumerate(constants):
        model.buffers[1 + i] = schema.BufferT(None, start + 80 * i, values.nbytes)
    return pack(model)


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_cut_bitwise_exactly(seed):
    check_random_graph(seed)


@pytest.mark.slow
def test_many_random_graphs_are_cut_bitwise_exactly():
    for seed in range(20, 1000):
        check_random_graph(seed)


def check_random_graph(seed):
    """Cuts a random graph, in float32 and in int8."""
    rng = np.random.default_rng(seed)
    g = GraphBuilder()
    outputs = random_exits(g, rng)
    graph = g.build(outputs)
    exits = sum(name.startswith("logits_") for name in outputs)
    feeds = [random_feed(g, rng) for _ in range(3)]
    for mode in ("none", "int8"):
        whole = modes.quantize(graph, mode, feeds)
        segments = slicer.slice_model(whole)
        assert len(segments) == exits
        check_operators(whole, segments)
        for feed in feeds:
            assert_equal_to_whole(whole, segments, feed)


def check_operators(graph: flatbuffer.Graph, segments):
    """Every operator between the image and an exit is in one segment."""
    exits = graph.ancestors(graph.outputs.values())
    assert sum(map(follow_image, segments)) == follow_image(graph, exits)


def follow_image(graph: flatbuffer.Graph, among=None) -> int:
    """How many operators read something that is not computed from `beta` alone."""
    image = graph.dependents(t for name, t in graph.inputs.items() if name != "beta")
    among = range(len(graph.operators)) if among is None else among
    return sum(not image.isdisjoint(graph.operators[o].outputs) for o in among)


def test_real_model(float_tflite, images):
    segments = slicer.slice_model(float_tflite)
    assert [tuple(s.inputs) for s in segments] == [
        ("image",),
        ("features_01_1", "image"),
        ("features_02_1",),
        ("features_02_1", "features_03_1"),
    ]
    for image in images[:5]:
        feed = {"image": image[np.newaxis].astype(np.float32)}
        assert_equal_to_whole(float_tflite, segments, feed)


def test_names_do_not_depend_on_the_run(float_tflite):
    first, second = slicer.slice_model(float_tflite), slicer.slice_model(float_tflite)
    assert [s.content for s in first] == [s.content for s in second]


def test_other_outputs_are_refused():
    g = GraphBuilder()
    a = g.pool(g.input("image"))
    with pytest.raises(ValueError, match=r"Received: outputs \['logits_02'\]"):
        slicer.slice_model(g.build({"logits_02": a}))
    with pytest.raises(ValueError, match="probabilities"):
        slicer.slice_model(g.build({"logits_01": a, "probabilities": a}))


def test_exits_out_of_order_are_refused():
    g = GraphBuilder()
    a = g.tanh(g.input("image"))
    early = g.pool(a)
    late = g.tanh(early)
    with pytest.raises(ValueError, match="exit 2"):
        slicer.slice_model(g.build({"logits_01": late, "logits_02": early}))


def test_models_with_several_subgraphs_are_refused():
    g = GraphBuilder()
    model = g.model({"logits_01": g.pool(g.input("image"))})
    model.subgraphs.append(model.subgraphs[0])
    with pytest.raises(ValueError, match="Received: 2 subgraphs"):
        flatbuffer.read(pack(model))
