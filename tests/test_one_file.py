"""The model that stops by itself: right on every exit's path, in every signature."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from graphs import GraphBuilder, random_array, random_exits, random_feed

from epnet_tf.quantization import modes
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.prediction import softmax
from epnet_tf.tflite import flatbuffer, one_file, verify

IF = schema.BuiltinOperator.IF


def expected(whole: flatbuffer.Graph, feed, thresholds, max_exit=None):
    """Exit and logits, by the definition, from all outputs of the whole model."""
    found = LiteRTModel(whole.content).run(**feed)
    last = sum(name.startswith("logits_") for name in found)
    stops = [
        found[f"stop_{k:02d}"] > threshold for k, threshold in enumerate(thresholds, 1)
    ]
    leaves = [k for k, stop in enumerate(stops, 1) if stop or k == max_exit]
    number = min([*leaves, last])
    return number, found[f"logits_{number:02d}"].tobytes()


def answer(one: flatbuffer.Graph, feed, max_exit=None):
    """Exit and logits of the first call of an interpreter, by ai-edge-litert alone."""
    interpreter = Interpreter(model_content=one.content, num_threads=1)
    if max_exit is not None:
        feed = feed | {"max_exit": np.array([max_exit], np.int32)}
    key = "serving_default" if max_exit is None else "max_exit"
    found = interpreter.get_signature_runner(key)(**feed)
    assert found["exit"].shape == (1,) and found["exit"].dtype == np.int32
    return int(found["exit"][0]), found["logits"].tobytes()


def three_exits(stops=(0.0, 0.0)) -> flatbuffer.Graph:
    """Tensors cross both cuts; the stop logits are what is said."""
    g = GraphBuilder()
    a = g.tanh(g.input("image"))
    b = g.tanh(a)
    c = g.add(b, a)
    zero = g.mean(g.multiply(g.pool(a), g.constant(np.zeros((1, 2), "f4"))))
    first, second = (g.add(zero, g.constant(np.array([[s]], "f4"))) for s in stops)
    return g.build(
        {
            "logits_01": g.pool(a),
            "stop_01": first,
            "logits_02": g.pool(b),
            "stop_02": second,
            "logits_03": g.pool(c),
        }
    )


IMAGE = {"image": random_array(np.random.default_rng(0))}


@pytest.mark.parametrize("joined", [(), (1,), (2,), (1, 2)])
@pytest.mark.parametrize(
    "stops, leaves", [((1, 1), 1), ((0, 1), 2), ((-1, 0.5), 2), ((-1, 0), 3)]
)
def test_an_image_leaves_at_the_first_exit_above_the_threshold(stops, leaves, joined):
    whole = three_exits(stops)
    one = one_file.build(whole, joined=joined)
    number, logits = answer(one, IMAGE)
    assert number == leaves
    whole_logits = LiteRTModel(whole.content).run(**IMAGE)[f"logits_{leaves:02d}"]
    assert logits == whole_logits.tobytes()


@pytest.mark.parametrize("joined", [(), (1,), (2,), (1, 2)])
@pytest.mark.parametrize(
    "max_exit, leaves", [(-1, 1), (0, 1), (1, 1), (2, 2), (3, 3), (99, 3)]
)
def test_the_limit_answers_whatever_it_says(max_exit, leaves, joined):
    one = one_file.build(three_exits(stops=(-1, -1)), joined=joined)
    assert answer(one, IMAGE, max_exit)[0] == leaves
    assert answer(one, IMAGE)[0] == 3


def test_an_exit_before_the_limit_answers_as_without_it():
    one = one_file.build(three_exits(stops=(1, -1)))
    assert answer(one, IMAGE, max_exit=2) == answer(one, IMAGE)


def test_interface():
    g = GraphBuilder()
    beta, image = g.input("beta", (1, 1)), g.input("image")
    logits = g.pool(g.tanh(image))
    stop = g.add(g.mean(logits), beta)
    outputs = {"logits_01": logits, "stop_01": stop, "logits_02": g.tanh(logits)}
    one = one_file.build(g.build(outputs))
    assert list(one.inputs) == ["image", "beta"]
    assert list(one.outputs) == ["logits", "exit", "probabilities"]
    interpreter = Interpreter(model_content=one.content)
    outputs = sorted(one.outputs)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["beta", "image"], "outputs": outputs},
        "max_exit": {
            "inputs": ["beta", "image", "max_exit"],
            "outputs": outputs,
        },
    }
    # Programs that bind by position have them in this order too.
    names = [i["name"] for i in interpreter.get_input_details()]
    assert names == ["image", "beta"]
    names = [o["name"] for o in interpreter.get_output_details()]
    assert names == ["logits", "exit", "probabilities"]


def test_probabilities_are_those_of_the_exit_that_answers():
    one = one_file.build(three_exits(stops=(0, 1)))
    found = LiteRTModel(one.content).run(**IMAGE)
    expected = softmax(found["logits"])
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-5)


def test_what_is_computed_from_beta_alone_runs_once():
    g = GraphBuilder()
    a = g.tanh(g.input("image"))
    scaled = g.tanh(g.input("beta", (1, 1)))
    b = g.tanh(a)
    c = g.tanh(b)
    one = one_file.build(
        g.build(
            {
                "logits_01": g.pool(a),
                "stop_01": g.add(g.mean(g.pool(a)), scaled),
                "logits_02": g.pool(b),
                "stop_02": g.add(g.mean(g.pool(b)), scaled),
                "logits_03": g.pool(c),
            }
        )
    )
    counts = {
        s.name: count(one, s, schema.BuiltinOperator.TANH) for s in subgraphs(one)
    }
    assert counts["main"] == 2
    assert counts["exit_02"] == 1


def test_logits_that_a_later_exit_reads_are_handed_on():
    # What a branch gives twice, LiteRT writes but once.
    g = GraphBuilder()
    a = g.tanh(g.input("image"))
    second, third = g.tanh(a), g.tanh(g.tanh(a))
    logits = g.pool(second)
    stop = g.mean(g.pool(a))
    outputs = {"logits_01": g.pool(a), "stop_01": stop, "logits_02": logits}
    outputs |= {"stop_02": g.mean(logits), "logits_03": g.add(g.pool(third), logits)}
    whole = g.build(outputs)
    for thresholds in ([np.inf, -np.inf], [np.inf, np.inf]):
        one = one_file.build(whole, thresholds)
        assert answer(one, IMAGE) == expected(whole, IMAGE, thresholds)
        for subgraph in subgraphs(one):
            assert len(set(subgraph.outputs)) == len(subgraph.outputs)


def test_no_if_is_within_another():
    one = one_file.build(three_exits())
    counts = {s.name: count(one, s, IF) for s in subgraphs(one)}
    assert counts == {
        "main": 2,
        "skip_02": 0,
        "exit_02": 0,
        "skip_03": 0,
        "exit_03": 0,
        "max_exit": 2,
    }


def test_joined_exits_are_one_branch():
    one = one_file.build(three_exits(), joined=[2])
    assert [s.name for s in subgraphs(one)] == [
        "main",
        "skip_03",
        "exit_03",
        "max_exit",
    ]


def subgraphs(one: flatbuffer.Graph) -> list[schema.SubGraphT]:
    return one.model.subgraphs


def count(one: flatbuffer.Graph, subgraph: schema.SubGraphT, builtin: int) -> int:
    codes = one.model.operatorCodes
    return sum(codes[o.opcodeIndex].builtinCode == builtin for o in subgraph.operators)


def test_one_exit_alone():
    g = GraphBuilder()
    one = one_file.build(g.build({"logits_01": g.pool(g.tanh(g.input("image")))}))
    assert answer(one, IMAGE)[0] == 1
    assert answer(one, IMAGE, max_exit=5)[0] == 1


def test_constants_are_inline_aligned_and_stored_once():
    g = GraphBuilder()
    rng = np.random.default_rng(0)
    values = random_array(rng)
    shared = g.constant(values)
    a = g.add(g.input("image"), shared)
    b = g.multiply(g.tanh(a), shared)
    stop = g.mean(g.pool(a))
    graph = g.build({"logits_01": g.pool(a), "stop_01": stop, "logits_02": g.pool(b)})
    content = one_file.build(graph).content
    assert content.count(values.tobytes()) == 1
    assert content.index(values.tobytes()) % 16 == 0


def test_the_same_model_gives_the_same_bytes(float_tflite):
    assert one_file.build(float_tflite).content == one_file.build(float_tflite).content


def test_outputs_that_an_if_cannot_choose_among_are_refused():
    g = GraphBuilder()
    a = g.tanh(g.input("image"))
    wide = g.pool(g.concatenate(a, a))
    stop = g.mean(g.pool(a))
    outputs = {"logits_01": g.pool(a), "stop_01": stop, "logits_02": wide}
    with pytest.raises(ValueError, match=r"Received: logits_02 \[1, 4\]"):
        one_file.build(g.build(outputs))
    outputs |= {"stop_01": g.pool(a), "logits_02": g.pool(g.tanh(a))}
    with pytest.raises(ValueError, match=r"Received: stop_01 \[1, 2\]"):
        one_file.build(g.build(outputs))


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_on_every_path(seed):
    check_random_graph(seed)


@pytest.mark.slow
def test_many_random_graphs_on_every_path():
    for seed in range(20, 1000):
        check_random_graph(seed)


def check_random_graph(seed):
    """A random graph, in float32 and in int8, with exits joined at random."""
    rng = np.random.default_rng(seed)
    g = GraphBuilder()
    graph = g.build(random_exits(g, rng))
    exits = sum(name.startswith("logits_") for name in graph.outputs)
    joined = [k for k in range(1, exits) if rng.integers(3) == 0]
    feeds = [random_feed(g, rng) for _ in range(3)]
    for mode in ("none", "int8"):
        whole = modes.quantize(graph, mode, feeds)
        taken = set()
        for thresholds in paths(whole, feeds):
            one = one_file.build(whole, thresholds, joined)
            for feed in feeds:
                number, logits = expected(whole, feed, thresholds)
                assert answer(one, feed) == (number, logits)
                taken.add(number)
                max_exit = int(rng.integers(1, exits + 1))
                assert answer(one, feed, max_exit) == expected(
                    whole, feed, thresholds, max_exit
                )
        assert taken == set(range(1, exits + 1))


def paths(whole, feeds):
    model = LiteRTModel(whole.content)
    stops = [name for name in whole.outputs if name.startswith("stop_")]
    found = [model.run(**feed) for feed in feeds]
    return verify.thresholds_for_all_paths(
        np.array([[outputs[name][0, 0] for name in sorted(stops)] for outputs in found])
    )
