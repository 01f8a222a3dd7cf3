"""Some of a model's exits: the heads that stay, their costs, and which ones pay."""

import itertools
import types

import keras
import numpy as np
import pytest
from small_models import branching_backbone, small_backbone, small_epnet, small_images

import epnet_tf
from epnet_tf import policies
from epnet_tf.model import ExitStates, compute_states, transfer

IMAGES, LABELS = small_images(40)


@pytest.fixture(scope="module")
def model():
    """Four exits, all weights random, the batch statistics too."""
    made = small_epnet(exits=["block1_relu1", "block1_relu2", "block2_relu1"])
    rng = np.random.default_rng(0)
    made.set_weights([w + rng.uniform(0, 0.1, w.shape) for w in made.get_weights()])
    made.beta = 1e-5
    return made


def test_with_exits_keeps_heads_and_network(model, tmp_path):
    chosen = model.with_exits(["block2_relu1", "block1_relu1"])
    assert chosen.exit_layers == ("block1_relu1", "block2_relu1", "block3_relu2")
    before, after = (m.predict(IMAGES, verbose=0) for m in (model, chosen))
    for old, new in ((1, 1), (3, 2), (4, 3)):
        for kind in ("logits", "stop"):
            if f"{kind}_{old:02d}" in before:
                np.testing.assert_array_equal(
                    after[f"{kind}_{new:02d}"], before[f"{kind}_{old:02d}"]
                )
    assert chosen.beta == model.beta
    chosen.get_layer("block1_conv1").set_weights([np.zeros([3, 3, 1, 4])])
    assert np.any(model.get_layer("block1_conv1").get_weights()[0])
    chosen.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").num_exits == 3


def test_with_exits_keeps_what_is_frozen():
    model = small_epnet(exits=["block1_relu1", "block2_relu1"], frozen=True)
    model.get_layer("logits_02").trainable = False
    chosen = model.with_exits(["block2_relu1"])
    assert chosen.frozen
    assert not chosen.get_layer("logits_01").trainable
    assert chosen.get_layer("logits_02").trainable


def test_heads_past_the_99th_exit_are_found_too():
    names = ("scaling_01", "logits_01", "logits_10", "logits_100", "controller_100")
    heads = [types.SimpleNamespace(name=name) for name in (*names, "logits_101")]
    source = types.SimpleNamespace(
        exit_layers=tuple(f"conv{i}" for i in range(1, 102)), head_layers=lambda: heads
    )
    target = types.SimpleNamespace(exit_layers=("conv1", "conv100", "conv101"))
    assert transfer.renamed_heads(source, target) == {
        "scaling_01": "scaling_01",
        "logits_01": "logits_01",
        "logits_100": "logits_02",
        "controller_100": "controller_02",
        "logits_101": "logits_03",
    }


def test_the_last_exit_alone(model):
    assert model.with_exits([]).exit_layers == ("block3_relu2",)
    assert model.with_exits(["block3_relu2"]).num_exits == 1


def test_exits_that_there_are_not(model):
    with pytest.raises(ValueError, match=r"block1_relu1, .*Received: 'block1_add'"):
        model.with_exits(["block1_add"])


@pytest.mark.parametrize("backbone", [small_backbone, branching_backbone])
def test_costs_of_some_exits_are_those_of_the_model_that_has_them(backbone):
    every = epnet_tf.EPNet(backbone(), 3, controller=epnet_tf.PaperController((), (1,)))
    costs = every.costs_by_exits()
    last = every.num_exits
    for numbers in itertools.combinations(range(1, last), 2):
        found = costs([*numbers, last])
        chosen = every.with_exits([every.exit_layers[i - 1] for i in numbers])
        for field in ("with_controllers", "with_classifiers", "alone"):
            expected = getattr(chosen.exit_costs, field)
            np.testing.assert_array_equal(getattr(found, field), expected)


def made_states(right, sure, seed=0, count=400):
    """States of exits that are right on a share of images, and sure when right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    difficulty = rng.uniform(size=count)
    logits = np.zeros([count, len(right), 3], "float32")
    for i, (share, scale) in enumerate(zip(right, sure, strict=True)):
        said = np.where(difficulty < share, labels, (labels + 1) % 3)
        confidence = np.where(difficulty < share, scale, 0.1)
        logits[np.arange(count), i, said] = confidence
    return ExitStates((), logits, labels)


def benefit(model, states, names, beta):
    """Of thresholds tuned for some exits, on the same states."""
    numbers = [model.exit_layers.index(n) + 1 for n in names] + [model.num_exits]
    some = ExitStates((), states.logits[:, np.array(numbers) - 1], states.labels)
    costs = model.costs_by_exits()(numbers)
    policy = policies.softmax_per_exit(some, costs, beta)
    return policies.score(policy, some).benefit(beta)


def test_an_exit_that_tells_nothing_is_dropped(model):
    # The second is never right; the others are sure when they are.
    states = made_states(right=[0.5, 0.0, 0.8, 1.0], sure=[5, 5, 5, 5])
    names = epnet_tf.select_exits(model, states, [1e-5], count=4)
    assert "block1_relu2" not in names and names


@pytest.mark.parametrize("beta", [1e-6, 1e-5, 1e-4])
def test_it_is_about_the_best_set_of_its_size(model, beta):
    states = made_states(right=[0.3, 0.6, 0.7, 0.9], sure=[1, 3, 2, 4])
    names = epnet_tf.select_exits(model, states, [beta], count=2)
    assert len(names) == 1
    every = {n: benefit(model, states, [n], beta) for n in model.exit_layers[:-1]}
    assert every[names[0]] >= max(every.values()) - 0.5


def test_exits_that_all_pay_stay_in_their_order(model):
    states = made_states(right=[0.3, 0.5, 0.7, 1.0], sure=[5, 5, 5, 5])
    names = epnet_tf.select_exits(model, states, [1e-7, 1e-4], count=4)
    assert names == [n for n in model.exit_layers[:-1] if n in names]


@pytest.mark.parametrize(
    "betas, count, images", [([], 3, 9), ([1e-6], 1, 9), ([1e-6], 3, 0), ([-1.0], 3, 9)]
)
def test_what_cannot_be_selected(model, betas, count, images):
    states = compute_states(model, IMAGES, LABELS, verbose=0).take(slice(images))
    with pytest.raises(ValueError, match=r"^Expected .*Received: "):
        epnet_tf.select_exits(model, states, betas, count)
