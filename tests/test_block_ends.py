"""A number of exits goes to the ends of blocks; what crosses a cut; the summary."""

import keras
from keras import layers
from small_models import small_backbone, small_epnet, small_images

import epnet_tf
from epnet_tf.model import compute_states, exits, graph, summary


def inverted_bottleneck(x, width, stride, name):
    """MobileNetV2's block: six times wider within."""
    y = x
    for kind, layer in (
        ("expand", layers.Conv2D(6 * x.shape[-1], 1, name=f"{name}_expand")),
        (
            "depthwise",
            layers.DepthwiseConv2D(3, stride, padding="same", name=f"{name}_depthwise"),
        ),
    ):
        y = layers.ReLU(6.0, name=f"{name}_{kind}_relu")(layer(y))
    y = layers.Conv2D(width, 1, name=f"{name}_project")(y)
    if stride == 1 and x.shape[-1] == width:
        return layers.Add(name=f"{name}_add")([x, y])
    return y


def mobile_net():
    image = x = keras.Input((16, 16, 3))
    for i, (width, stride) in enumerate([(4, 2), (4, 1), (8, 2), (8, 1), (8, 1)]):
        x = inverted_bottleneck(x, width, stride, f"block{i}")
    return keras.Model(image, layers.Conv2D(32, 1, name="last")(x))


def test_exits_of_a_mobile_net_are_its_sums():
    model = epnet_tf.EPNet(mobile_net(), 3, 4, controller=epnet_tf.Controller(units=1))
    assert model.num_exits == 4
    for name in model.exit_layers[:-1]:
        assert name.endswith(("_add", "_project"))


def test_exits_of_a_residual_network_are_the_ends_of_its_blocks():
    model = epnet_tf.EPNet(epnet_tf.resnet12(), 10, 6)
    assert model.num_exits == 6
    assert all(name.endswith("relu2") for name in model.exit_layers)


def test_more_exits_than_blocks_go_within_blocks_too():
    model = epnet_tf.EPNet(epnet_tf.resnet12(), 10, 12)
    assert model.num_exits > 10


def test_what_crosses_a_cut_of_a_residual_block():
    backbone = small_backbone()
    nodes = graph.ancestors(backbone.outputs)
    named = {n.operation.name: n.outputs[0] for n in nodes}
    inside, end = named["block2_relu1"], named["block2_relu2"]
    found = exits.crossing(nodes, [inside, end, backbone.outputs[0]])
    # The projected shortcut may run before or after; either it or what it reads.
    assert len(found[0]) == 2 and any(t is inside for t in found[0])
    assert [t is end for t in found[1]] == [True]
    assert [t is backbone.outputs[0] for t in found[2]] == [True]


def test_summary():
    model = small_epnet(exits=["block1_relu2", "block2_relu1"])
    rows = summary.exit_rows(model)
    assert [row.layer for row in rows] == list(model.exit_layers)
    assert rows[0].shape == (6, 6, 4) and rows[0].crossing_values == 6 * 6 * 4
    assert [row.crossing for row in rows] == [1, 2, 0]
    # A classifier that scales 4 features by their statistics (2 each); a controller
    # that does so with 5 + 3 + 4 values, with 8 hidden units.
    scaling = 2 * 12
    classifier = 2 * 4 + (4 + 1) * 3
    assert rows[0].head_parameters == classifier + scaling + (12 + 1) * 8 + 9
    assert rows[2].head_parameters == (8 + 1) * 3
    assert [row.macs for row in rows] == list(model.exit_costs.with_controllers)
    images, labels = small_images(20)
    states = compute_states(model, images, labels, verbose=0)
    text = model.exit_summary(states)
    assert len(text.splitlines()) == 4 and "1 of 144" in text
    assert f"{states.correct[:, 0].mean():.1%}" in text.splitlines()[1]
    assert model.exit_summary().splitlines()[-1].endswith("-")
