"""train.py's way with a network that is good already: frozen, then fine-tuned."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers
from small_models import small_images

from epnet_tf import data
from epnet_tf.experiments import config, experiment, stage_one
from epnet_tf.model import BACKBONES

BETA = 1e-4


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A data set of 3 classes and a classifier for it, with batch normalization."""
    folder = tmp_path_factory.mktemp("inputs")
    x_train, y_train = small_images(120, seed=0)
    x_test, y_test = small_images(40, seed=1)
    file = folder / "bright.npz"
    np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12, 12, 1)), layers.Rescaling(1 / 255)])
    for i in range(3):
        model.add(layers.Conv2D(16, 3, strides=2, padding="same", name=f"conv{i}"))
        model.add(layers.BatchNormalization(name=f"bn{i}"))
        model.add(layers.ReLU(name=f"relu{i}"))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(3, activation="softmax"))
    model.save(folder / "backbone.keras")
    return str(file), str(folder / "backbone.keras")


def config_for(inputs, **changes):
    dataset, backbone = inputs
    schedule = {
        "epochs": 2, "batch_size": 16, "controller_epochs": 1, "exits": "relu0,relu1",
        "freeze": True, "learning_rate": 0.1, **changes,
    }  # fmt: skip
    schedule = experiment.schedule_for(dataset, backbone=backbone, **schedule)
    return experiment.Config(dataset, schedule, (BETA,))


def last_exit(model, images):
    return keras.ops.softmax(model.predict(images, verbose=0)["logits_03"])


def test_frozen_the_last_exit_is_the_network(inputs, tmp_path, capsys):
    experiment.run(config_for(inputs), tmp_path, verbose=2)
    images = data.load_dataset(inputs[0]).test.images
    expected = keras.saving.load_model(inputs[1]).predict(images, verbose=0)
    for file in ("classifiers.keras", "beta-0.0001/model.keras"):
        model = keras.saving.load_model(tmp_path / file)
        assert model.frozen and model.exit_layers[:2] == ("relu0", "relu1")
        np.testing.assert_allclose(last_exit(model, images), expected, atol=1e-6)
    lines = capsys.readouterr().out.splitlines()
    (head,) = [i for i, x in enumerate(lines) if x.startswith("exit  layer")]
    assert "relu0" in lines[head + 1] and lines[head + 3].endswith("%")


def test_unfrozen_it_goes_on_from_where_it_was_killed(inputs, tmp_path, monkeypatch):
    rates, optimizer = [], stage_one.classifier_optimizer

    def recorded(schedule, steps):
        rates.append(schedule.learning_rate)
        return optimizer(schedule, steps)

    monkeypatch.setattr(stage_one, "classifier_optimizer", recorded)
    dataset = data.load_dataset(inputs[0])
    chosen = config_for(inputs, unfreeze_epochs=2)
    whole = experiment.trained_classifiers(chosen, dataset, tmp_path / "a", verbose=0)
    assert rates == pytest.approx([0.1, 0.005])
    assert not whole.frozen
    frozen = keras.saving.load_model(tmp_path / "a" / "frozen.keras")
    assert frozen.frozen
    moving, kernel = (
        [model.get_layer(name).get_weights()[-1 if name == "bn1" else 0]
         for model in (frozen, whole)]
        for name in ("bn1", "conv1")
    )  # fmt: skip
    np.testing.assert_array_equal(*moving)
    assert np.any(kernel[0] != kernel[1])
    # Killed between the two phases.
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "frozen.keras").rename(tmp_path / "b" / "frozen.keras")
    again = experiment.trained_classifiers(chosen, dataset, tmp_path / "b", verbose=0)
    for a, b in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert {p.name for p in (tmp_path / "b").iterdir()} == {
        "frozen.keras", "classifiers.keras", "logs",
    }  # fmt: skip


def test_exits_are_chosen_for_the_betas(inputs, tmp_path, capsys):
    chosen = config_for(inputs, exits="auto:2", epochs=1)
    metrics = experiment.run(chosen, tmp_path, verbose=2)
    every = keras.saving.load_model(tmp_path / "all_exits.keras")
    assert every.num_exits == 3 and len(metrics["exits"]) == 2
    model = keras.saving.load_model(tmp_path / "classifiers.keras")
    assert model.exit_layers == tuple(e["layer"] for e in metrics["exits"])
    assert {*model.exit_layers} < {*every.exit_layers}
    assert capsys.readouterr().out.count("exit  layer") == 2
    # For another β others may be kept, of the same classifiers.
    again = experiment.run(
        dataclasses.replace(chosen, betas=(1e-6,)), tmp_path, verbose=0
    )
    assert again["policies"]["epnet"][0]["beta"] == 1e-6


@pytest.mark.parametrize(
    "text, count", [("auto", 8), ("auto:12", 12), ("all", None), (None, None)]
)
def test_how_many_exits_are_chosen(text, count):
    assert config.exits_to_choose(text) == count and config.parse_exits(text) is None


@pytest.mark.parametrize(
    "text, exits",
    [(None, None), ("all", None), ("8", 8), ("a", ["a"]), ("a, b_2", ["a", "b_2"])],
)
def test_exits_on_a_command_line(text, exits):
    assert config.parse_exits(text) == exits


@pytest.mark.parametrize("text", ["1", "0", "-3", "a,,b", "", ",", "auto:1", "auto:x"])
def test_exits_that_are_none(text):
    with pytest.raises(ValueError, match=r"^Expected .*NUMBER.*Received: "):
        config.schedule_for("digits", exits=text)


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"backbone": "resnet10"}, "random"),
        ({"backbone": "MobileNet", "weights": "none"}, "'MobileNet', .*random"),
        ({"backbone": "resnet10", "weights": "absent.keras"}, "absent.keras"),
        ({"weights": "imagenet"}, "weights=imagenet"),
        (
            {"backbone": "MobileNet", "weights": "none", "freeze": False},
            r"\[12, 12, 1\]",
        ),
        ({"backbone": "MobileNetV9"}, "MobileNetV9"),
        ({"exits": "relu9"}, "relu9"),
    ],
)
def test_what_does_not_go_together(inputs, tmp_path, changes, named):
    dataset, backbone = inputs
    changes = {"freeze": True, "backbone": backbone, **changes}
    schedule = config.schedule_for(dataset, **changes)
    chosen = config.Config(dataset, schedule, (BETA,))
    with pytest.raises(ValueError, match=rf"^Expected .*Received: .*{named}"):
        experiment.run(chosen, tmp_path, verbose=0)
    assert not any(tmp_path.iterdir())


@keras.saving.register_keras_serializable("test")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def test_files_that_are_no_backbone_and_no_weights(inputs, tmp_path):
    dataset = data.load_dataset(inputs[0])
    subclassed = Subclassed()
    subclassed(np.zeros([1, 12, 12, 1]))
    subclassed.save(tmp_path / "subclassed.keras")
    BACKBONES["resnet10"](dataset.image_shape).save(tmp_path / "bare.keras")
    (tmp_path / "text.keras").write_text("no model")
    for backbone, weights, named in (
        ("subclassed.keras", None, "functional"),
        ("text.keras", None, "text.keras"),
        ("resnet10", "bare.keras", "bare.keras' with a Functional"),
    ):
        backbone = tmp_path / backbone if weights is None else backbone
        weights = weights and str(tmp_path / weights)
        with pytest.raises(ValueError, match=named):
            stage_one.build_model(str(backbone), dataset, weights)


def test_heads_on_a_frozen_network_learn_slowly():
    assert config.schedule_for("photos").learning_rate == 0.05
    assert config.schedule_for("photos", freeze=False).learning_rate == 0.05
    assert config.schedule_for("photos", freeze=True).learning_rate == 0.01
    assert config.schedule_for("maxmin", freeze=True).learning_rate == 0.01
    chosen = config.schedule_for("maxmin", freeze=True, learning_rate=0.03)
    assert chosen.learning_rate == 0.03


@pytest.mark.parametrize(
    "name, value",
    [
        ("learning_rate", float("nan")),
        ("weight_decay", float("inf")),
        ("exit_weight_power", -1.0),
    ],
)
def test_rates_that_are_no_numbers(name, value):
    with pytest.raises(ValueError, match=rf"{name} .*finite.*Received: {value}"):
        config.schedule_for("digits", **{name: value})


def test_a_training_that_diverges_ends_in_a_sentence(inputs, tmp_path):
    chosen = config_for(inputs, learning_rate=1e20)
    with pytest.raises(ValueError, match=r"learning_rate.*Received: nan.*epoch 1"):
        experiment.run(chosen, tmp_path, verbose=0)
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"dataset": "digits"}'])
def test_a_folder_with_the_config_of_something_else(inputs, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"train\.py has written.*config\.json"):
        experiment.run(config_for(inputs), tmp_path, verbose=0)
    assert (tmp_path / "config.json").read_text() == text


def test_unfreezing_what_is_not_frozen():
    with pytest.raises(ValueError, match=r"unfreeze_epochs=2 without freeze"):
        config.schedule_for("digits", unfreeze_epochs=2)
