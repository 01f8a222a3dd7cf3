"""Main branches by name: their sizes, and each from EPNet to int8 segments."""

import keras
import numpy as np
import pytest
from keras import layers
from small_models import feeds

import epnet_tf
from epnet_tf.model import BACKBONES, backbones, model_macs
from epnet_tf.quantization import modes
from epnet_tf.runtime import litert
from epnet_tf.tflite import export, slicer, verify


def macs(model):
    return sum(model_macs(model).values())


def test_resnet20_is_that_of_he_et_al():
    model = backbones.resnet20()
    kernels = [w for w in model.weights if w.name == "kernel"]
    # 19 convolutions and the projections of the two blocks that change width.
    assert len(kernels) == 19 + 2
    by_hand = 32 * 32 * (27 * 16 + 6 * 144 * 16)
    by_hand += 16 * 16 * (144 * 32 + 5 * 288 * 32 + 16 * 32)
    by_hand += 8 * 8 * (288 * 64 + 5 * 576 * 64 + 32 * 64)
    assert macs(model) == by_hand
    assert model.output_shape == (None, 8, 8, 64)


def test_resnet18_has_four_stages_of_two_blocks():
    model = backbones.resnet18()
    by_hand = 32 * 32 * (27 * 16 + 4 * 144 * 16)
    for side, width in ((16, 32), (8, 64), (4, 128)):
        before = width // 2
        convolutions = 9 * before * width + 3 * 9 * width * width + before * width
        by_hand += side * side * convolutions
    assert macs(model) == by_hand
    assert model.output_shape == (None, 4, 4, 128)


def test_depth_and_widths_of_a_resnet():
    model = backbones.resnet(10, (8, 16), (16, 16, 1))
    assert model.name == "resnet10" and model.output_shape == (None, 8, 8, 16)
    assert model.get_layer("stage2_block2_conv2").output.shape == (None, 8, 8, 16)


@pytest.mark.parametrize(("depth", "widths"), [(2, (16, 32)), (21, (16, 32, 64))])
def test_a_depth_that_does_not_exist(depth, widths):
    with pytest.raises(ValueError, match=rf"Expected a depth.*depth={depth}\."):
        backbones.resnet(depth, widths)


def test_a_densenet_unit_reads_all_before_it():
    model = backbones.densenet((16, 16, 3), units=3, growth=4)
    channels = [model.get_layer(f"block1_{i}_conv").kernel.shape[2] for i in (1, 2, 3)]
    assert channels == [8, 12, 16]
    assert model.output_shape == (None, 4, 4, 8 + 9 * 4)


def test_an_msdnet_layer_reads_its_scale_and_the_finer_one():
    model = backbones.msdnet((16, 16, 3), depth=4, growth=4)
    assert model.get_layer("layer2_scale2_finer_conv").kernel.shape[2:] == (8, 4)
    assert model.get_layer("layer2_scale2_own_conv").kernel.shape[2:] == (16, 4)
    names = {layer.name for layer in model.layers}
    # The finest scale ends after a third of the layers, read once more by the next.
    assert {"layer2_scale1", "layer3_scale2"} <= names
    assert "layer3_scale1" not in names and "layer4_scale2" not in names
    assert model.output_shape == (None, 4, 4, 32 + 3 * 16)


def test_layers_of_an_msdnet_can_be_exits():
    names = [f"layer{i}_scale3" for i in (2, 3)]
    backbone = backbones.msdnet((16, 16, 3), depth=4, growth=4)
    model = epnet_tf.EPNet(backbone, 4, exits=names)
    assert model.exit_layers == (*names, "layer4_scale3")
    assert (np.diff(model.exit_costs.with_controllers) > 0).all()


@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - {"resnet10", "resnet12"}))
def test_from_epnet_to_int8_segments(name):
    keras.utils.set_random_seed(0)
    model = epnet_tf.EPNet(
        BACKBONES[name]((16, 16, 3)),
        4,
        exits=3,
        preprocessing=layers.Rescaling(1 / 127.5, -1.0),
        beta=1e-6,
    )
    assert model.num_exits == 3
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    whole = modes.quantize(export.to_tflite(model), "int8", feeds(images))
    given = feeds(images)
    verify.compare(whole, slicer.slice_model(whole), given)
    runtime = litert.LiteRTModel(whole.content)
    found = [runtime.run(**feed) for feed in given]
    expected = model.predict(images, verbose=0)
    for key in [f"logits_{i:02d}" for i in (1, 2, 3)]:
        values = expected[key]
        error = np.abs(np.concatenate([f[key] for f in found]) - values).max()
        assert error < 0.2 * np.ptp(values), key
