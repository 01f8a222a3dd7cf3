"""Cross-fitting: controllers see classifiers' answers to images new to these."""

import dataclasses

import keras
import numpy as np
import pytest
from small_models import small_backbone

import epnet_tf
from epnet_tf.data import Dataset, Split, StreamedImages
from epnet_tf.experiments import case, cross_fitted
from epnet_tf.experiments.config import SCHEDULES
from epnet_tf.experiments.plans import plan_for
from epnet_tf.model import compute_states
from epnet_tf.training.cross_fitting import FOLDS, cross_fitted_states

COUNT, CLASSES = 48, 2


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    backbone = small_backbone((8, 8, 3), (32, 64))
    return epnet_tf.EPNet(backbone, CLASSES, frozen=True)


@pytest.fixture(scope="module")
def noise():
    """Images without a trace of their labels, which can only be learnt by heart."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 8, 8, 3)).astype("float32")
    return images, rng.permutation(COUNT) % CLASSES


def adam(steps):
    assert steps > 0
    return keras.optimizers.Adam(0.02)


def crossed(model, images, labels, **kwargs):
    arguments = {"epochs": 30, "batch_size": 16, "verbose": 0} | kwargs
    return cross_fitted_states(model, images, labels, adam, **arguments)


def accuracy(states):
    return np.mean(states.logits.argmax(axis=2) == states.labels[:, None], axis=0)


def test_what_was_learnt_by_heart_does_not_show(model, noise):
    images, labels = noise
    twin = model.copy()
    trainer = epnet_tf.ClassifierTrainer(twin)
    trainer.compile(adam(1))
    # Twice as long as the others, so that it does not hinge on one image.
    trainer.fit(images, labels, batch_size=16, epochs=60, verbose=0)
    by_heart = accuracy(compute_states(twin, images, labels, verbose=0))
    unseen = accuracy(crossed(model, images, labels))
    assert by_heart.max() > 0.9
    # Guesses: of 48 images 24 are right, give or take 3.5.
    assert np.all(np.abs(unseen - 0.5) < 0.25)


def test_all_draws_of_an_image_are_in_one_fold(model, noise):
    images, labels = noise
    twice, both = np.tile(images, (2, 1, 1, 1)), np.tile(labels, 2)
    states = crossed(model, twice, both, draws=2)
    first, second = states.logits[:COUNT], states.logits[COUNT:]
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3)
    assert np.all(np.abs(accuracy(states) - 0.5) < 0.25)


def test_labels_of_a_fold_do_not_matter_for_its_own_answers(model, noise):
    images, labels = noise
    before = crossed(model, images, labels, epochs=2)
    fold = np.random.default_rng(0).permutation(COUNT) % FOLDS
    others = labels.copy()
    others[fold == 1] = 1 - others[fold == 1]
    after = crossed(model, images, others, epochs=2)
    same = np.all(before.logits == after.logits, axis=(1, 2))
    np.testing.assert_array_equal(same, fold == 1)


def test_the_model_stays_and_so_does_what_does_not_depend_on_labels(model, noise):
    images, labels = noise
    before = [np.copy(w) for w in model.get_weights()]
    states = crossed(model, images, labels, epochs=1)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    plain = compute_states(model, images, labels, verbose=0)
    for mine, theirs in zip(states.pooled, plain.pooled, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(states.labels, labels)
    streamed = StreamedImages(images.__getitem__, images.shape, images.dtype)
    again = crossed(model, streamed, labels, epochs=1)
    np.testing.assert_allclose(again.logits, states.logits, rtol=1e-4, atol=1e-5)


def test_the_networks_own_classifier_answers_as_it_does(noise):
    keras.utils.set_random_seed(1)
    features = small_backbone((8, 8, 3), (4, 8))
    x = keras.layers.GlobalAveragePooling2D()(features.output)
    x = keras.layers.Dense(CLASSES)(x)
    model = epnet_tf.EPNet(keras.Model(features.input, x), CLASSES, frozen=True)
    images, labels = noise
    own = compute_states(model, images, labels, verbose=0).logits
    states = crossed(model, images, labels, epochs=2)
    np.testing.assert_allclose(states.logits[:, -1], own[:, -1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(states.logits[:, 0], own[:, 0])


def test_many_exits_are_trained_some_at_a_time(model, noise, monkeypatch):
    images, labels = noise
    module = "epnet_tf.training.cross_fitting._EXITS_AT_A_TIME"
    monkeypatch.setattr(module, model.num_exits - 1)  # And then one alone.
    states = crossed(model, images, labels, epochs=1)
    assert states.logits.shape == (COUNT, model.num_exits, CLASSES)
    plain = compute_states(model, images, labels, verbose=0)
    for mine, theirs in zip(states.pooled, plain.pooled, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_bad_input(model, noise):
    images, labels = noise
    thawed = model.copy()
    thawed.frozen = False
    with pytest.raises(ValueError, match="Expected a frozen EPNet"):
        crossed(thawed, images, labels)
    with pytest.raises(ValueError, match="each of 5 draws"):
        crossed(model, images, labels, draws=5)


def test_when_an_experiment_is_cross_fitted(noise):
    images, labels = noise
    few = Split(images, labels)
    many = Split(np.zeros((10_001, 1, 1, 3)), np.zeros(10_001, "int64"))
    dataset = Dataset("photos", ("a", "b"), few, few, few)
    frozen = dataclasses.replace(SCHEDULES["npz"], freeze=True)
    tuned = dataclasses.replace(frozen, unfreeze_epochs=1)
    assert cross_fitted.applies(frozen, dataset)
    assert not cross_fitted.applies(tuned, dataset)
    assert not cross_fitted.applies(SCHEDULES["npz"], dataset)
    assert not cross_fitted.applies(frozen, dataclasses.replace(dataset, train=many))


def test_an_evaluation_trains_controllers_on_the_same_states(model, noise, tmp_path):
    split = Split(*noise)
    dataset = Dataset("photos", ("a", "b"), split, split, split)
    schedule = dataclasses.replace(
        SCHEDULES["npz"], freeze=True, epochs=1, batch_size=16
    )
    plan = plan_for("photos", [1e-6])
    evaluated = case.Case(
        dataset, model, plan, tmp_path, {}, schedule, seed=0, verbose=0
    )
    expected = case.mixed([cross_fitted.states(model, dataset, schedule, 1, 0, 0)])
    np.testing.assert_array_equal(evaluated.unseen.labels, expected.labels)
    np.testing.assert_allclose(
        evaluated.unseen.logits, expected.logits, rtol=1e-4, atol=1e-5
    )
    plain = case.mixed([compute_states(model, *noise, verbose=0)])
    assert not np.allclose(evaluated.unseen.logits, plain.logits)
