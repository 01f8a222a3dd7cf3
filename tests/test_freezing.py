"""A frozen network: what it computes does not change, whatever is trained on it."""

import keras
import numpy as np
import pytest
from keras import layers
from small_models import small_images

import epnet_tf
from epnet_tf.conversion import convert
from epnet_tf.model.states import split_state_model
from epnet_tf.quantization import qat, refit

IMAGES, LABELS = small_images(64)


def pretrained(head=True):
    """A small network of conv-BN-ReLU with dropout, ending in a softmax or headless."""
    keras.utils.set_random_seed(1)
    image = keras.Input((12, 12, 1))
    x = layers.Rescaling(1 / 255)(image)
    for i, width in enumerate((4, 6, 8)):
        x = layers.Conv2D(
            width, 3, strides=2 if i else 1, padding="same", use_bias=False,
            kernel_regularizer="l2", name=f"conv{i}",
        )(x)  # fmt: skip
        x = layers.BatchNormalization(name=f"bn{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
        x = layers.Dropout(0.5, name=f"drop{i}")(x)
    if head:
        x = layers.GlobalAveragePooling2D()(x)
        x = layers.Dense(3, activation="softmax", name="classes")(x)
    return keras.Model(image, x)


def frozen_epnet(head=True):
    return epnet_tf.EPNet(
        pretrained(head), 3, exits=["relu0", "relu1"], frozen=True,
        controller=epnet_tf.Controller(units=4),
    )  # fmt: skip


OPTIMIZERS = {
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.5),
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1),
    "ema": lambda: keras.optimizers.Adam(0.01, use_ema=True, weight_decay=0.1),
}


def train(model, optimizer="adamw", trainer=epnet_tf.ClassifierTrainer, **kwargs):
    stage = trainer(model, **kwargs)
    stage.compile(OPTIMIZERS[optimizer]())
    stage.fit(IMAGES, LABELS, batch_size=16, epochs=2, verbose=0)
    return stage


def main_branch(model):
    """Weights and statistics up to the exits, and the last classifier."""
    branch, _ = split_state_model(model)
    last = model.get_layer(f"logits_{model.num_exits:02d}")
    own = last.get_weights() if model._parts.ends_in_classifier else []
    return [np.array(v) for v in branch.weights] + own


def last_exit(model):
    return model.predict(IMAGES, verbose=0)[f"logits_{model.num_exits:02d}"]


def assert_same(before, after):
    assert len(before) == len(after) > 10
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_stage_one_trains_heads_alone(optimizer):
    model = frozen_epnet()
    before, outputs = main_branch(model), last_exit(model)
    first = model.get_layer("logits_01").get_weights()[0]
    train(model, optimizer)
    assert_same(before, main_branch(model))
    np.testing.assert_array_equal(last_exit(model), outputs)
    assert np.abs(model.get_layer("logits_01").get_weights()[0] - first).max() > 1e-3


def test_it_computes_what_the_pretrained_network_computed():
    backbone = pretrained()
    expected = backbone.predict(IMAGES, verbose=0)
    model = epnet_tf.EPNet(backbone, 3, exits=["relu0"], frozen=True)
    train(model)
    found = keras.ops.softmax(last_exit(model))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_through_save_load_copy_and_both_stages(tmp_path):
    model = frozen_epnet()
    before, outputs = main_branch(model), last_exit(model)
    train(model)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.frozen
    train(model, "sgd")
    model = model.copy()
    train(model, "sgd")
    train(model, trainer=epnet_tf.ControllerTrainer, beta=1e-5)
    states = epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)
    epnet_tf.train_controllers(model, states, [1e-5], epochs=1, verbose=0).assign(0)
    for _ in range(2):
        model = model.with_new_controllers()
        train(model)
    assert_same(before, main_branch(model))
    np.testing.assert_array_equal(last_exit(model), outputs)


@pytest.mark.slow
def test_through_conversion_and_refit():
    model = frozen_epnet()
    before, outputs = main_branch(model), last_exit(model)
    train(model)
    train(model, trainer=epnet_tf.ControllerTrainer, beta=1e-5)
    whole = convert.to_tflite(model, IMAGES, "int8")
    model = refit.refit(model, whole, IMAGES, LABELS)
    assert_same(before, main_branch(model))
    np.testing.assert_array_equal(last_exit(model), outputs)


def test_what_is_trainable_is_told_to_keras():
    model = frozen_epnet()
    heads = {"logits_01", "logits_02", "controller_01", "controller_02"}
    for _ in range(2):
        assert {x.name for x in model.layers if x.trainable_weights} == heads
        model.trainable = True


def test_the_new_classifier_of_a_headless_network_is_trained():
    model = frozen_epnet(head=False)
    before, outputs = main_branch(model), last_exit(model)
    train(model)
    assert_same(before, main_branch(model))
    assert np.abs(last_exit(model) - outputs).max() > 1e-3


def test_heads_are_trained_on_what_the_frozen_network_computes():
    model = frozen_epnet()
    trainer = epnet_tf.ClassifierTrainer(model)
    images = IMAGES.astype("float32")
    states = trainer(images, training=True)
    # Heads scale what they read by the batch while they are trained.
    last = f"logits_{model.num_exits:02d}"
    for name, expected in trainer(images, training=False).items():
        if name.startswith("pooled") or name == last:
            np.testing.assert_allclose(states[name], expected, rtol=1e-5, atol=1e-6)


def test_a_backbone_that_keras_froze_keeps_its_classifier_too():
    backbone = pretrained()
    backbone.trainable = False
    model = epnet_tf.EPNet(backbone, 3, exits=["relu0", "relu1"])
    outputs = last_exit(model)
    train(model)
    np.testing.assert_array_equal(last_exit(model), outputs)


def test_unfrozen_it_is_fine_tuned_with_its_batch_statistics():
    model = frozen_epnet()
    model.frozen = False
    before, outputs = main_branch(model), last_exit(model)
    moving = model.get_layer("bn1").get_weights()[2:]
    train(model, frozen_statistics=True)
    for a, b in zip(moving, model.get_layer("bn1").get_weights()[2:], strict=True):
        np.testing.assert_array_equal(a, b)
    changed = [np.any(a != b) for a, b in zip(before, main_branch(model), strict=True)]
    assert sum(changed) >= 9 + 2  # Kernels, scales and shifts; the classifier.
    assert np.abs(last_exit(model) - outputs).max() > 1e-3
    assert not model.copy().frozen
    train(model)
    assert np.any(moving[0] != model.get_layer("bn1").get_weights()[2])


def test_layers_that_are_frozen_one_by_one_stay_so():
    backbone = pretrained()
    backbone.get_layer("bn1").trainable = False
    model = epnet_tf.EPNet(backbone, 3, exits=["relu0"])
    model.frozen = False
    assert not model.get_layer("bn1").trainable
    model.frozen = True
    assert split_state_model(model)[0].trainable_weights == []


def test_a_trainer_keeps_how_it_runs_the_main_branch(tmp_path):
    trainer = train(frozen_epnet(head=False), frozen_statistics=True)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert loaded.frozen_statistics and loaded.model.frozen


def test_quantization_aware_training_refuses_it():
    with pytest.raises(ValueError, match=r"may be trained.*int8.*'epnet'.*frozen"):
        qat.fine_tune(frozen_epnet(), IMAGES, LABELS)
