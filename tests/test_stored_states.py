"""States from data sets, and states on disk: the same as those of arrays in memory."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf
from small_models import small_epnet, small_images

import epnet_tf
from epnet_tf import data, policies
from epnet_tf.model import stored_states
from epnet_tf.model.states import StoredStates

IMAGES, LABELS = small_images(150)


@pytest.fixture(scope="module")
def model():
    return small_epnet()


@pytest.fixture(scope="module")
def expected(model):
    return epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(stored_states, "_SHARD", 40)


def pipeline(**kwargs):
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
    return dataset.shuffle(150, **kwargs) if kwargs else dataset


def assert_same(found, expected, tolerance=0.0):
    for a, b in zip(found.pooled, expected.pooled, strict=True):
        np.testing.assert_allclose(a, b, tolerance, tolerance)
    np.testing.assert_allclose(found.logits, expected.logits, tolerance, tolerance)
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("batch", [None, 16])
def test_of_a_data_set(model, expected, batch):
    dataset = pipeline().batch(batch) if batch else pipeline()
    found = epnet_tf.compute_states(model, dataset, verbose=0)
    assert_same(found, expected, 1e-5)


def test_of_a_shuffled_data_set_labels_stay_with_their_images(model, expected):
    found = epnet_tf.compute_states(model, pipeline(seed=1).batch(32), verbose=0)
    assert found.labels.tolist() != expected.labels.tolist()
    # Logits of the last exit tell which image it is.
    for logits, label in zip(found.logits[:, -1], found.labels, strict=True):
        at = np.abs(expected.logits[:, -1] - logits).sum(axis=1).argmin()
        assert LABELS[at] == label
    assert found.correct.mean(axis=0) == pytest.approx(expected.correct.mean(axis=0))


def test_of_streamed_images(model, expected):
    images = data.StreamedImages(IMAGES.__getitem__, IMAGES.shape)
    found = epnet_tf.compute_states(model, images, LABELS, verbose=0)
    assert_same(found, expected, 1e-5)


@pytest.mark.parametrize(
    ("dataset", "labels", "message"),
    [
        (pipeline(), LABELS, "own labels alone.*Received: labels as well"),
        (pipeline().map(lambda x, y: x), None, "images with labels"),
        (pipeline().repeat(), None, "a data set that ends"),
        (pipeline().take(0), None, "at least one image. Received: none"),
        (pipeline().map(lambda x, y: (x[0], y)), None, r"images \[h, w, c\]"),
        (pipeline().map(lambda x, y: (x, y + 1)), None, "Received: label 3"),
    ],
)
def test_data_sets_that_are_refused(model, dataset, labels, message):
    with pytest.raises(ValueError, match=message):
        epnet_tf.compute_states(model, dataset, labels, verbose=0)


def test_classify_takes_data_sets(model):
    expected = model.classify(IMAGES)
    streamed = data.StreamedImages(IMAGES.__getitem__, IMAGES.shape)
    for given in (pipeline(), pipeline().map(lambda x, y: x).batch(7), streamed):
        found = model.classify(given)
        np.testing.assert_array_equal(found.label, expected.label)
        np.testing.assert_array_equal(found.exit, expected.exit)
    with pytest.raises(ValueError, match=r"shape \[n, 12, 12, 1\]. Received"):
        model.classify(pipeline().map(lambda x, y: x[:10]))


def test_classify_at_a_beta_takes_data_sets():
    model = small_epnet(beta_range=(1e-6, 1e-4))
    expected = model.classify(IMAGES, beta=1e-5)
    found = model.classify(pipeline().batch(32), beta=1e-5)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_array_equal(found.exit, expected.exit)


def test_on_disk(model, expected, tmp_path):
    states = epnet_tf.compute_states(
        model, IMAGES, LABELS, batch_size=16, verbose=0, directory=tmp_path / "states"
    )
    assert isinstance(states, StoredStates) and len(states) == 150
    assert len(list((tmp_path / "states").glob("shard-*"))) == 4
    # Half precision has 11 bits.
    assert_same(states.load(), expected, 2**-10)
    assert_same(StoredStates(tmp_path / "states").load(), expected, 2**-10)


class Stop(Exception):
    """As a kill."""


def stopped(model, directory, dataset):
    """Stores states until the second shard is being written."""

    def interrupted():
        for i, batch in enumerate(dataset):
            if i == 7:
                raise Stop
            yield batch

    spec = dataset.element_spec
    broken = tf.data.Dataset.from_generator(interrupted, output_signature=spec)
    with pytest.raises(tf.errors.OpError, match="Stop"):
        epnet_tf.compute_states(model, broken, verbose=0, directory=directory)


def test_goes_on_where_it_was_stopped(model, expected, tmp_path, monkeypatch):
    directory = tmp_path / "states"
    stopped(model, directory, pipeline().batch(16))
    with pytest.raises(ValueError, match="Expected a folder of all exit states"):
        StoredStates(directory)
    done = {p: os.stat(p).st_mtime_ns for p in directory.glob("shard-*")}
    assert len(done) == 2
    states = epnet_tf.compute_states(
        model, pipeline().batch(16), verbose=0, directory=directory
    )
    assert_same(states.load(), expected, 2**-10)
    assert done == {p: os.stat(p).st_mtime_ns for p in done}


def test_what_is_there_is_not_read_again(model, expected, tmp_path):
    read = []

    def reader(until):
        def of(index):
            if index >= until:
                raise Stop
            read.append(index)
            return IMAGES[index]

        return data.StreamedImages(of, IMAGES.shape)

    with pytest.raises(tf.errors.OpError, match="Stop"):
        epnet_tf.compute_states(model, reader(100), LABELS, 16, 0, directory=tmp_path)
    # A shard is three batches of 16: the first of at least 40 images.
    there = 48 * len(list(tmp_path.glob("shard-*")))
    assert there
    read.clear()
    states = epnet_tf.compute_states(
        model, reader(150), LABELS, 16, 0, directory=tmp_path
    )
    assert sorted(read) == list(range(there, 150))
    assert_same(states.load(), expected, 2**-10)
    with pytest.raises(ValueError, match="in the order in which"):
        epnet_tf.compute_states(
            model, IMAGES, LABELS[::-1].copy(), verbose=0, directory=tmp_path
        )


def test_another_order_is_refused(model, tmp_path):
    stopped(model, tmp_path, pipeline().batch(16))
    with pytest.raises(ValueError, match="in the order in which"):
        epnet_tf.compute_states(
            model, pipeline(seed=1).batch(16), verbose=0, directory=tmp_path
        )


def test_another_model_or_another_folder_is_refused(model, tmp_path):
    epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0, directory=tmp_path / "a")
    other = small_epnet(exits=["block1_relu1"])
    other.get_layer("logits_01").bias.assign([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"states of this model. Received: .*another"):
        epnet_tf.compute_states(
            other, IMAGES, LABELS, verbose=0, directory=tmp_path / "a"
        )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="Expected a new folder for exit states"):
        epnet_tf.compute_states(
            model, IMAGES, LABELS, verbose=0, directory=tmp_path / "mine"
        )


@pytest.mark.parametrize("memory", [1, 1 << 30])
def test_batches_go_through_all_images_in_each_epoch(model, tmp_path, memory):
    epnet_tf.compute_states(
        model, IMAGES, LABELS, batch_size=16, verbose=0, directory=tmp_path
    )
    states = StoredStates(tmp_path, memory)
    whole = states.load()

    def epochs(seed):
        batches = states.batches(64, seed).take(6).as_numpy_iterator()
        return [(x["logits_03"], correct) for x, correct in batches]

    found, again, other = epochs(1), epochs(1), epochs(2)
    assert [len(x) for x, _ in found] == [64, 64, 22] * 2
    for first in (0, 3):
        logits = np.concatenate([x for x, _ in found[first : first + 3]])
        np.testing.assert_array_equal(
            np.sort(logits, axis=0), np.sort(whole.logits[:, 2], axis=0)
        )
    np.testing.assert_array_equal(found[4][0], again[4][0])
    assert not np.array_equal(found[0][0], found[3][0])
    assert not np.array_equal(found[0][0], other[0][0])
    at = [int(np.abs(whole.logits[:, 2] - row).sum(axis=1).argmin()) for row in logits]
    correct = np.concatenate([c for _, c in found[3:]])
    np.testing.assert_array_equal(correct, whole.correct[at])


def test_controllers_are_as_good_as_from_memory(tmp_path):
    """Benefit within 0.05, on states that tell easy images from hard ones."""
    model = small_epnet()
    rng = np.random.default_rng(0)
    states = epnet_tf.compute_states(model, *small_images(6000), verbose=0)
    hard = rng.random(6000) < 0.5
    logits = rng.normal(0, 1, states.logits.shape).astype("float32")
    sure = np.where(hard, 0.0, 8.0)[:, None] * np.ones(3)
    sure[:, -1] = 8.0
    logits[np.arange(6000)[:, None], np.arange(3), states.labels[:, None]] += sure
    states = dataclasses.replace(states, logits=logits)
    train, test = states.take(slice(5000)), states.take(slice(5000, None))
    stored_states.begin(tmp_path, model)
    stored_states.store(
        tmp_path, (train.take(slice(i, i + 100)) for i in range(0, 5000, 100))
    )
    beta = 20 / model.exit_costs.full
    benefits = []
    for given in (train, StoredStates(tmp_path, memory=100_000)):
        sweep = epnet_tf.train_controllers(
            model, given, [beta], epochs=10, batch_size=128, verbose=0
        )
        sweep.assign(0)
        benefits.append(policies.score(policies.epnet(model), test).benefit(beta))
    static = policies.static(train, model.exit_costs, beta)
    best_exit = policies.score(static, test).benefit(beta)
    assert benefits[0] > best_exit
    assert benefits[1] == pytest.approx(benefits[0], abs=0.05)
