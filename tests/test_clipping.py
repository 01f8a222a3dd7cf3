"""Ranges of feature maps: where they are cut, and that int8 comes nearer by it."""

import pathlib

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from keras import layers
from small_models import feeds

from epnet_tf.quantization import clipping, modes, recipes
from epnet_tf.quantization.clipping import best_range
from epnet_tf.tflite import export, outputs


def error_of_int8(values, low, high, floor=-np.inf):
    """The error of taking the nearest of 256 even steps, above the floor."""
    steps = np.linspace(low, high, 256)
    between = (steps[1:] + steps[:-1]) / 2
    nearest = steps[np.searchsorted(between, values)]
    return np.mean((np.maximum(nearest, floor) - np.maximum(values, floor)) ** 2)


def rectified_sums(graph):
    """The two tensors of each sum with a ReLU."""
    return [
        list(operator.inputs)
        for operator in graph.operators
        if isinstance(operator.builtinOptions, schema.AddOptionsT)
        and operator.builtinOptions.fusedActivationFunction
        == schema.ActivationFunctionType.RELU
    ]


def test_even_values_keep_their_range():
    values = np.linspace(-1.0, 3.0, 4001)
    assert best_range(values, -1.0, 3.0) == (-1.0, 3.0)


def test_a_rare_large_value_is_clipped_where_it_pays():
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(0.0, 1.0, 1_000), 100.0)
    # To clip it by 10 costs 10**2 / 1001 = 0.1; rounding all others with steps of
    # 104 / 255 costs (104 / 255)**2 / 12 = 0.014, of 94 / 255 0.011.
    low, high = best_range(values, values.min(), values.max())
    assert high == 100.0
    # Of a hundred thousand: to clip it by 10 costs 0.001, and saves 0.003.
    values = np.append(rng.normal(0.0, 1.0, 100_000), 100.0)
    low, high = best_range(values, values.min(), values.max())
    assert 70.0 < high < 95.0 and low <= -2.0


def test_no_other_range_is_much_better():
    values = np.random.default_rng(0).standard_t(3, 50_000)
    found = error_of_int8(values, *best_range(values, values.min(), values.max()))
    shares = np.linspace(0.2, 1.0, 17)
    others = [
        error_of_int8(values, low, high)
        for low in values.min() * shares
        for high in values.max() * shares
    ]
    assert found < 1.05 * min(others) and found < 0.95 * others[-1]


def test_an_end_goes_back_when_the_other_is_cut():
    rng = np.random.default_rng(0)
    rare = np.append(rng.uniform(-200, -50, 2_000), rng.uniform(3, 10, 100))
    values = np.append(rng.normal(-1.0, 1.0, 97_900), rare)
    found = best_range(values, values.min(), values.max(), floor=0.0)
    errors = [error_of_int8(values, *ends, 0.0) for ends in (found, (-6.0, 9.8))]
    assert errors[0] < 1.1 * errors[1]


def test_zero_stays_in_the_range():
    assert best_range(np.linspace(2.0, 3.0, 101), 2.0, 3.0)[0] == 0.0
    assert best_range(np.linspace(-3.0, -2.0, 101), -3.0, -2.0)[1] == 0.0
    assert best_range(np.zeros(10), 0.0, 0.0) == (0.0, 0.0)


def test_values_below_the_floor_need_no_range():
    values = np.linspace(-10.0, 1.0, 11_001)
    low, high = best_range(values, -10.0, 1.0, floor=-np.full(11_001, 0.5))
    assert 0.95 < high <= 1.0 and -2.1 < low <= -0.5


def test_only_feature_maps_get_other_ranges(float_tflite, images):
    recipe = modes.int8_recipe(float_tflite)
    calibration = feeds(images)
    ranges = recipes.calibrate(float_tflite, recipe, calibration)
    narrower = clipping.clip_ranges(ranges, float_tflite, calibration)
    assert list(narrower) == list(ranges)
    maps = {t.name.decode() for t in float_tflite.tensors if len(t.shape) == 4}
    changed = {name for name in ranges if narrower[name] != ranges[name]}
    assert changed and changed <= maps
    for name in changed:
        for end, sign in (("min", -1), ("max", 1)):
            assert narrower[name][end].shape == ranges[name][end].shape
            zero_or_given = np.maximum(sign * ranges[name][end], 0)
            assert np.all(sign * narrower[name][end] <= zero_or_given)


def test_the_end_of_a_residual_branch_is_measured_behind_the_relu(float_tflite):
    graph = float_tflite
    added = rectified_sums(graph)
    assert len(added) == 2  # The model has two residual blocks.
    used_once = 0
    for pair in added:
        for tensor, other in (pair, pair[::-1]):
            readers = [o for o in graph.operators if tensor in o.inputs]
            expected = other if len(readers) == 1 else None
            used_once += expected is not None
            assert clipping._rectified_with(graph, tensor) == expected
    assert used_once == 3  # The second block's shortcut is read by its convolution too.


def test_a_vector_that_is_added_to_a_map_is_no_floor():
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="conv")(image)
    vector = layers.Conv2D(4, 1)(layers.GlobalAveragePooling2D(keepdims=True)(image))
    graph = export.to_tflite(keras.Model(image, {"out": layers.ReLU()(x + vector)}))
    [added] = rectified_sums(graph)
    maps = [clipping._is_map(graph.tensors[t]) for t in added]
    assert sorted(maps) == [False, True]
    assert [clipping._rectified_with(graph, t) for t in added] == [None, None]


def test_int8_of_a_trained_network_comes_nearer_to_float32():
    folder = pathlib.Path(__file__).parents[1]
    model = keras.saving.load_model(folder / "models/maxmin/paper/classifiers.keras")
    images = np.load(folder / "results/maxmin/sample.npz")["images"]
    float32 = export.to_tflite(model)
    calibration = feeds(images[:100])
    recipe = modes.int8_recipe(float32)
    ranges = recipes.calibrate(float32, recipe, calibration)
    expected, before, after = (
        outputs.of_tflite(content, images[100:]).logits
        for content in (
            float32,
            recipes.apply(float32, recipe, ranges),
            modes.quantize(float32, "int8", calibration),
        )
    )
    errors = [np.sqrt(np.mean((found - expected) ** 2)) for found in (before, after)]
    assert errors[1] < 0.7 * errors[0]
