"""Data sets from names and files, their checks, and the training pipeline."""

import re
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from epnet_tf.data import (
    Dataset,
    Split,
    StreamedImages,
    crop_and_flip,
    load_dataset,
    pixel_moments,
    steps_per_epoch,
    streams,
    training_pipeline,
    vary_photos,
)


def arrays(train=40, test=10, shape=(6, 5, 3), classes=4, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (train, *shape)).astype(dtype),
        "y_train": np.arange(train) % classes,
        "x_test": rng.integers(0, 256, (test, *shape)).astype(dtype),
        "y_test": np.arange(test) % classes,
    }


def numbered(count, shape):
    """Images whose pixels tell their index, so that splits can be compared."""
    index = np.arange(count, dtype=np.uint16).view(np.uint8).reshape(count, 2)
    images = np.full((count, *shape), 255, np.uint8)
    images.reshape(count, -1)[:, :2] = index
    return images


@pytest.fixture
def write(tmp_path):
    def write_npz(**contents):
        np.savez(tmp_path / "mine.npz", **contents)
        return tmp_path / "mine.npz"

    return write_npz


def error_of(path):
    with pytest.raises(ValueError) as raised:
        load_dataset(path)
    message = str(raised.value)
    assert "\n" not in message and str(path) in message
    return message


# Data sets by name


def test_digits():
    dataset = load_dataset("digits")
    assert dataset.name == "digits"
    assert dataset.labels == tuple("0123456789") and dataset.num_classes == 10
    assert dataset.difficulties == ("easy", "medium", "hard")
    assert dataset.augment is None
    splits = dataset.train, dataset.validation, dataset.test
    assert [len(split) for split in splits] == [12_000, 1_500, 2_000]
    for split in splits:
        assert split.images.shape[1:] == dataset.image_shape == (24, 24, 1)
        assert split.images.dtype == np.uint8 and split.images.max() == 255
        assert split.labels.dtype == np.int32 and split.difficulty.dtype == np.int8
        assert np.unique(split.labels).tolist() == list(range(10))
        counts = np.bincount(split.difficulty)
        assert counts.tolist() == [len(split) // 2, len(split) // 4, len(split) // 4]


def test_digits_splits_share_no_digit():
    def shown(split):
        """The easy images' digits, cropped to their ink."""
        for image in split.images[split.difficulty == 0][..., 0]:
            rows, columns = np.nonzero(image)
            digit = image[
                rows.min() : rows.max() + 1, columns.min() : columns.max() + 1
            ]
            yield digit.shape, digit.tobytes()

    dataset = load_dataset("digits")
    train, validation, test = (
        set(shown(split)) for split in (dataset.train, dataset.validation, dataset.test)
    )
    assert (len(train), len(validation), len(test)) == (1_097, 300, 400)
    assert not train & validation and not train & test and not validation & test
    # Images for the controllers are new compositions of the training digits.
    unseen = dataset.unseen()
    assert len(unseen) == len(dataset.train) and set(shown(unseen)) <= train
    seen = {image.tobytes() for image in dataset.train.images}
    repeated = sum(image.tobytes() in seen for image in unseen.images)
    assert repeated < 0.05 * len(unseen)
    np.testing.assert_array_equal(unseen.images, dataset.unseen().images)
    assert np.any(unseen.images != dataset.unseen(1).images)
    # And so are those of each epoch.
    epochs = [dataset.recompose(epoch) for epoch in (0, 1)]
    np.testing.assert_array_equal(epochs[1].labels, dataset.recompose(1).labels)
    for made in epochs:
        assert len(made) == len(dataset.train) and set(shown(made)) <= train
        assert np.any(made.images != unseen.images)
    assert np.any(epochs[0].images != epochs[1].images)


def test_a_seed_gives_the_same_arrays():
    first, again, other = (load_dataset("digits", seed=seed) for seed in (3, 3, 4))
    for part in ("train", "validation", "test"):
        for field in ("images", "labels", "difficulty"):
            values = getattr(getattr(first, part), field)
            same = getattr(getattr(again, part), field)
            np.testing.assert_array_equal(values, same)
        assert np.any(getattr(first, part).images != getattr(other, part).images)


@pytest.mark.parametrize(
    ("name", "source", "parts"),
    [("maxmin", "mnist", (2, 1, 1)), ("multiscale", "fashion_mnist", (1, 1, 1, 1))],
)
def test_composed_from_a_data_folder(tmp_path, name, source, parts):
    contents = arrays(400, 80, shape=(28, 28), classes=10)
    for key in ("x_train", "x_test"):
        contents[key][:, 15:] = contents[key][:, :, 15:] = 0  # digits of 15 pixels
    np.savez(tmp_path / f"{source}.npz", **contents)
    dataset = load_dataset(name, data_dir=tmp_path)
    splits = dataset.train, dataset.validation, dataset.test
    assert [len(split) for split in splits] == [360, 40, 80]
    assert dataset.image_shape == (50, 50, 1) and dataset.num_classes == 10
    for split in splits:
        counts = np.bincount(split.difficulty) / len(split)
        np.testing.assert_allclose(counts, np.array(parts) / sum(parts))
    assert len(dataset.difficulties) == len(parts)


def test_cifar10_from_the_environments_folder(tmp_path, monkeypatch):
    contents = arrays(100, 20, shape=(32, 32, 3), classes=10)
    contents["x_train"] = numbered(100, (32, 32, 3))
    contents["y_train"] = contents["y_train"][:, np.newaxis]  # as Keras has them
    np.savez(tmp_path / "cifar10.npz", **contents)
    monkeypatch.setenv("EPNET_DATA_DIR", str(tmp_path))
    dataset = load_dataset("cifar10")
    assert dataset.labels[0] == "airplane" and dataset.num_classes == 10
    assert dataset.augment is crop_and_flip and dataset.difficulties == ()
    assert dataset.train.difficulty is None
    assert (len(dataset.train), len(dataset.validation)) == (90, 10)
    both = np.concatenate([dataset.train.images, dataset.validation.images])
    index = both.reshape(100, -1)[:, 0]
    assert sorted(index) == list(range(100))
    labels = np.concatenate([dataset.train.labels, dataset.validation.labels])
    np.testing.assert_array_equal(labels, index % 10)
    # Images for the controllers are the training images, augmented.
    unseen = dataset.unseen()
    np.testing.assert_array_equal(unseen.labels, dataset.train.labels)
    assert unseen.images.shape == dataset.train.images.shape
    changed = (unseen.images != dataset.train.images).any(axis=(1, 2, 3))
    assert changed.mean() > 0.9
    assert np.any(unseen.images != dataset.unseen(1).images)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"digits, maxmin.*Received: svhn"):
        load_dataset("svhn")


def test_negative_seed():
    with pytest.raises(ValueError, match=r"non-negative.*Received: -1"):
        load_dataset("digits", seed=-1)


def test_missing_file_in_data_folder(tmp_path):
    with pytest.raises(ValueError, match=r"must exist.*mnist\.npz"):
        load_dataset("maxmin", data_dir=tmp_path)


def test_another_data_set_under_the_name(tmp_path):
    np.savez(tmp_path / "mnist.npz", **arrays(shape=(32, 32, 3), classes=10))
    with pytest.raises(ValueError, match=r"\(28, 28, 1\).*Received: .*\(32, 32, 3\)"):
        load_dataset("maxmin", data_dir=tmp_path)


# A user's own file


def test_grayscale_images_of_a_user_are_all_that_there_are(write):
    dataset = load_dataset(write(**arrays(shape=(6, 6, 1))))
    assert dataset.augment is None and dataset.unseen() is dataset.train


def test_photos_of_a_user_are_varied(write):
    dataset = load_dataset(write(**arrays(shape=(8, 8, 3))))
    assert dataset.augment is vary_photos
    unseen = dataset.unseen()
    assert unseen.images.dtype == dataset.train.images.dtype
    assert np.any(unseen.images != dataset.train.images)
    np.testing.assert_array_equal(unseen.images, dataset.unseen().images)
    np.testing.assert_array_equal(unseen.labels, dataset.train.labels)
    assert np.any(unseen.images != dataset.unseen(1).images)


def test_npz(write):
    contents = arrays()
    contents["x_train"] = numbered(40, (6, 5, 3))
    path = write(**contents, labels=np.array(["a", "b", "c", "d", "e"]))
    dataset = load_dataset(path)
    assert dataset.name == "mine" and dataset.labels == tuple("abcde")
    assert (len(dataset.train), len(dataset.validation)) == (36, 4)
    assert dataset.difficulties == () and dataset.augment is vary_photos
    np.testing.assert_array_equal(dataset.test.images, contents["x_test"])
    index = dataset.train.images.reshape(36, -1)[:, 0]
    np.testing.assert_array_equal(dataset.train.labels, index % 4)
    assert dataset.train.labels.dtype == np.int32


def test_npz_gets_a_channel_axis_and_numbered_labels(write):
    dataset = load_dataset(str(write(**arrays(shape=(6, 5)))))
    assert dataset.image_shape == (6, 5, 1) and dataset.labels == tuple("0123")


@pytest.mark.parametrize(
    "form",
    [lambda y: y[:, None], lambda y: np.eye(4)[y], lambda y: y.astype(float)],
    ids=["column", "one-hot", "floats"],
)
def test_npz_with_labels_of_every_form(write, form):
    expected = load_dataset(write(**arrays()))
    contents = arrays()
    contents |= {key: form(contents[key]) for key in ("y_train", "y_test")}
    found = load_dataset(write(**contents))
    for part in ("train", "validation", "test"):
        labels = getattr(found, part).labels
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, getattr(expected, part).labels)


# What is held out of a user's images


def held_out_of(write, labels, seed=0):
    contents = arrays(len(labels), classes=max(labels) + 1)
    contents["x_train"] = numbered(len(labels), (6, 5, 3))
    contents["y_train"] = np.array(labels)
    names = np.array([f"class {k}" for k in range(max(labels) + 1)])
    dataset = load_dataset(write(**contents, labels=names), seed=seed)
    both = dataset.train, dataset.validation
    index = [
        split.images.reshape(len(split), -1)[:, :2].copy().view(np.uint16)[:, 0]
        for split in both
    ]
    assert sorted(np.concatenate(index)) == list(range(len(labels)))
    for split, at in zip(both, index, strict=True):
        np.testing.assert_array_equal(split.labels, np.array(labels)[at])
    return index


def test_the_same_share_of_each_class_is_held_out(write):
    labels = np.repeat([0, 1, 2], [200, 40, 10])
    kept, held_out = held_out_of(write, labels)
    assert np.bincount(labels[held_out]).tolist() == [20, 4, 1]
    assert kept.tolist() != sorted(kept) and held_out.tolist() != sorted(held_out)
    again, other = held_out_of(write, labels), held_out_of(write, labels, seed=1)
    assert [a.tolist() for a in again] == [kept.tolist(), held_out.tolist()]
    assert set(other[1]) != set(held_out)


@pytest.mark.parametrize("seed", range(5))
def test_no_class_is_left_out_of_training(write, seed):
    labels = np.array([0] * 3 + [1] + [2] * 2 + list(range(3, 20)))
    kept, held_out = held_out_of(write, labels, seed)
    assert len(held_out) == 2 and set(labels[kept]) == set(range(20))
    assert set(labels[held_out]) <= {0, 2}


def test_a_class_with_one_image_is_trained_on(write):
    kept, held_out = held_out_of(write, [0, 1, 1])
    assert len(held_out) == 1 and 0 in kept


def test_a_file_with_one_image_of_each_class(write):
    path = write(**arrays(train=4))
    with pytest.raises(
        ValueError, match=r"two images of a class.*4 images of 4 classe"
    ):
        load_dataset(path)


def test_npz_of_floats(write):
    contents = arrays(dtype=np.float64)
    dataset = load_dataset(write(**contents))
    assert dataset.train.images.dtype == np.float32
    np.testing.assert_array_equal(dataset.test.images, contents["x_test"])


def test_npz_of_scaled_floats_warns(write):
    contents = arrays(dtype=np.float32)
    contents["x_train"] /= 255
    with pytest.warns(UserWarning, match="x_train in .* 0 to 255.*values from 0 to 1"):
        load_dataset(write(**contents))


def with_nan(x):
    x = x.astype(np.float32)
    x[3, 1, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("x_train", lambda x: x[0, 0], r"x_train .* \[n, height.*shape \(5, 3\)"),
        ("x_test", lambda x: x[..., :2], r"x_test .* 1 or 3 channels.*: 2 channels"),
        ("x_train", lambda x: x[:0], r"at least one image.*\(0, 6, 5, 3\)"),
        ("x_train", lambda x: x.astype(np.int64), r"must be uint8.*dtype int64"),
        ("x_train", lambda x: x - 1.0, r"within 0 to 255.*from -1\.0"),
        ("x_test", lambda x: np.full(x.shape, np.inf), r"within 0 to 255.*to inf"),
        ("x_test", with_nan, r"x_test .*: 3 NaN values, in 1 of 10 images"),
        ("x_test", lambda x: x[:, :4], r"same shape.*\(6, 5, 3\) and \(4, 5, 3\)"),
        ("y_train", lambda y: y[1:], r"y_train .* each of 40 images. Received: 39"),
        ("y_test", lambda y: y + 0.5, r"y_test .* whole numbers. Received: label 0.5"),
        ("y_test", lambda y: y.astype(str), r"y_test .* of classes. Received: '0'"),
        ("y_train", lambda y: 2 * np.eye(4)[y], r"y_train .* one-hot.* sum to 2"),
        ("y_test", lambda y: np.eye(5)[y], r"y_test .* \[n, 4\]. .* \[10, 5\]"),
        (
            "y_test",
            lambda y: y + 1,
            r"y_test .* within 0 to 3, for 4 .* label 4, .* 1 to",
        ),
        ("y_test", lambda y: y - 1, r"y_test .* within 0 to 3, for 4 .* label -1, "),
        ("y_train", lambda y: y + 1, r"every label.*4 different labels from 1 to 4"),
        ("y_train", lambda y: y * 0, r"at least two.*1 different labels"),
    ],
)
def test_npz_with_wrong_arrays(write, key, change, message):
    contents = arrays()
    contents[key] = change(contents[key])
    assert re.search(message, error_of(write(**contents)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b", "c"], "y_train .* within 0 to 2, .* label 3, .* from 0 to 3"),
        ([1, 2, 3, 4], "class names. Received: dtype int64"),
        ([["a", "b", "c", "d"]], r"class names. Received: .*\(1, 4\)"),
        (["a"], "at least two class names"),
    ],
)
def test_npz_with_wrong_labels(write, labels, message):
    assert re.search(message, error_of(write(**arrays(), labels=np.array(labels))))


def test_npz_without_keys(write):
    contents = arrays()
    message = error_of(write(images=contents["x_train"], y_train=contents["y_train"]))
    assert "it lacks x_train, x_test, y_test. Received: images, y_train" in message


def test_npz_with_one_image(write):
    path = write(**arrays(train=1), labels=np.array(["a", "b", "c", "d"]))
    with pytest.raises(ValueError, match=r"at least two images.*Received: 1"):
        load_dataset(path)


def test_npz_that_is_missing(tmp_path):
    assert "must exist" in error_of(tmp_path / "none.npz")


def test_npz_that_is_something_else(tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("x_train: 1, 2, 3")
    assert "cut short or something else" in error_of(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert "cut short or something else" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(key, "no array")
    assert "Received: shape ()" in error_of(path)


def test_npz_that_is_truncated_or_damaged(write):
    path = write(**arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut short" in error_of(path)
    path.write_bytes(whole[:500] + bytes([whole[500] ^ 255]) + whole[501:])
    assert "undamaged" in error_of(path)


def test_npz_with_pickled_objects(write):
    contents = arrays()
    contents["y_train"] = contents["y_train"].astype(object)
    assert "no pickled objects" in error_of(write(**contents))


# The training pipeline


def indexed_split(count=50, shape=(4, 4, 1)):
    return Split(numbered(count, shape), np.arange(count, dtype=np.int32))


def take(dataset, count):
    return [(x.numpy(), y.numpy()) for x, y in dataset.take(count)]


def assert_same_batches(left, right):
    for (x, y), (other_x, other_y) in zip(left, right, strict=True):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)


def test_an_epoch_visits_images_once_with_their_labels():
    split = indexed_split()
    pipeline = training_pipeline(split, batch_size=8, seed=0)
    assert steps_per_epoch(split, 8) == 6
    batches = take(pipeline, 12)
    for x, y in batches:
        assert x.shape == (8, 4, 4, 1) and x.dtype == np.float32
        assert y.shape == (8,) and y.dtype == np.int32
        np.testing.assert_array_equal(x, split.images[y])
    first, second = (
        np.concatenate([y for _, y in batches[start : start + 6]]) for start in (0, 6)
    )
    assert len(set(first)) == len(set(second)) == 48
    assert first.tolist() != second.tolist()
    assert sorted(first) != first.tolist()


def test_moments_of_many_pixels_are_summed_up_exactly():
    """In float32 a million times 0.1 is 100,958."""
    images = np.full((256, 64, 64, 3), 0.1, np.float32)
    images[128:, ..., 1] = 0.3
    images[..., 2] = 7.0
    mean, variance = pixel_moments(Split(images, np.zeros(256, np.int32)))
    np.testing.assert_allclose(mean, [0.1, 0.2, 7.0], rtol=1e-6)
    np.testing.assert_allclose(variance, [0.0, 0.01, 0.0], atol=1e-8)
    assert (variance >= 0).all()


def other_images(epoch):
    """Another split of the same size in each epoch."""
    split = indexed_split()
    return Split(
        split.images + np.uint8(1 + epoch), split.labels + 1000 * np.int32(epoch)
    )


def test_an_epoch_visits_the_images_composed_for_it():
    pipeline = training_pipeline(indexed_split(), 8, 0, 3, recompose=other_images)
    for epoch, batches in zip((3, 4), np.split(np.arange(12), 2), strict=True):
        made = other_images(epoch)
        for x, y in take(pipeline.skip(batches[0]), len(batches)):
            np.testing.assert_array_equal(x, made.images[y - 1000 * epoch])


@pytest.mark.parametrize("recompose", [None, other_images])
def test_static_shapes(recompose):
    pipeline = training_pipeline(
        indexed_split(), 8, seed=0, augment=crop_and_flip, recompose=recompose
    )
    images, labels = pipeline.element_spec
    assert images.shape == (8, 4, 4, 1) and labels.shape == (8,)


@pytest.mark.parametrize(
    ("augment", "recompose"),
    [(None, None), (crop_and_flip, None), (None, other_images)],
)
def test_resumed_training_sees_what_an_uninterrupted_run_sees(augment, recompose):
    split = indexed_split()

    def batches(count, **kwargs):
        pipeline = training_pipeline(
            split, 8, augment=augment, recompose=recompose, **kwargs
        )
        return take(pipeline, count)

    whole = batches(18, seed=5)
    assert_same_batches(whole[6:], batches(12, seed=5, start_epoch=1))
    assert_same_batches(whole[12:], batches(6, seed=5, start_epoch=2))
    other = batches(6, seed=6)
    assert any(np.any(x != y) for (_, x), (_, y) in zip(whole, other, strict=False))


def test_augmentation_differs_between_steps_and_epochs():
    split = Split(np.full((16, 8, 8, 1), 9, np.uint8), np.zeros(16, np.int32))
    pipeline = training_pipeline(split, 8, seed=0, augment=crop_and_flip)
    images = [x for x, _ in take(pipeline, 4)]  # two epochs of two steps
    for first in range(4):
        for second in range(first):
            assert np.any(images[first] != images[second])


@pytest.mark.parametrize("batch_size", [0, 51])
def test_batch_size_must_fit_the_split(batch_size):
    with pytest.raises(ValueError, match=f"images, 50. Received: {batch_size}"):
        training_pipeline(indexed_split(), batch_size, seed=0)


def test_crop_and_flip_moves_and_mirrors_each_image_by_itself():
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (400, 7, 5, 3)).astype(np.float32)
    result = crop_and_flip(images, tf.constant([1, 2], tf.int64)).numpy()
    assert result.shape == images.shape and result.dtype == images.dtype
    padded = np.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
    seen = []
    for before, after in zip(padded, result, strict=True):
        seen.append(
            next(
                (row, column, flip)
                for row in range(9)
                for column in range(9)
                for flip in (1, -1)
                if np.array_equal(
                    before[row : row + 7, column : column + 5][:, ::flip], after
                )
            )
        )
    rows, columns, flips = zip(*seen, strict=True)
    assert set(rows) == set(columns) == set(range(9))
    assert 160 < flips.count(1) < 240  # four standard deviations


def test_crop_and_flip_depends_on_its_seed_alone():
    images = np.random.default_rng(0).random((6, 8, 8, 1)).astype(np.float32)
    first, again, other = (
        crop_and_flip(images, tf.constant([0, seed], tf.int64)).numpy()
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_varied_photos_are_shifted_mirrored_and_lit_each_by_itself():
    """A lone bright column moves by 2 of 16 at most, counted from either side."""
    images = np.full((600, 16, 16, 3), 100.0, "float32")
    images[:, :, 5] = 140.0
    varied = vary_photos(tf.constant(images), tf.constant([3, 4], tf.int64)).numpy()
    assert varied.shape == images.shape and varied.dtype == np.float32
    column = varied[:, 0].mean(axis=-1).argmax(axis=-1)
    assert set(column) == {3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
    assert 240 < np.sum(column > 7) < 360
    light = varied.mean(axis=(1, 2, 3)) - images[0].mean()
    assert light.min() > -28 and light.max() < 28 and light.std() > 5
    contrast = np.ptp(varied[:, 0, :, 0], axis=-1) / 40.0
    assert 0.79 < contrast.min() < 0.85 and 1.2 < contrast.max() < 1.26


def test_varied_bytes_stay_bytes_and_edges_are_mirrored():
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1) * 4
    images = np.repeat(image, 200, axis=0)
    varied = vary_photos(tf.constant(images), tf.constant([0, 1], tf.int64)).numpy()
    assert varied.dtype == np.uint8
    # One pixel up, the last row but one is mirrored behind the last.
    up = [np.array_equal(v[-1], v[-3]) for v in varied]
    assert 40 < sum(up) < 95  # A third of 200, and four standard deviations.


def test_streamed_photos_are_varied_as_they_are_read():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 8, 8, 3), np.uint8)
    streamed = StreamedImages(pixels.__getitem__, pixels.shape)
    split = Split(streamed, np.arange(12, dtype=np.int32))
    dataset = Dataset("p", ("a", "b"), split, split, split, augment=vary_photos)
    unseen = dataset.unseen()
    assert isinstance(unseen.images, StreamedImages)
    images = np.asarray(unseen.images)
    np.testing.assert_array_equal(images[5], unseen.images[5])
    np.testing.assert_array_equal(images[[3, 1]], np.asarray(unseen.images[[3, 1]]))
    assert np.any(images != pixels)
    assert np.any(images != np.asarray(dataset.unseen(1).images))


def test_spooled_images_are_of_one_size():
    """In one file, they would begin where others end."""

    def batches(sizes):
        for number, side in enumerate(sizes):
            yield np.full([2, side, 3, 1], number, np.uint8), np.full(2, number)

    def spool(*sizes):
        image = tf.TensorSpec([None, None, 3, 1], tf.uint8)
        signature = (image, tf.TensorSpec([None], tf.int64))
        dataset = tf.data.Dataset.from_generator(
            lambda: batches(sizes), output_signature=signature
        )
        return streams.spooled(dataset)

    images, labels = spool(4, 4)
    assert [int(image.max()) for image in images] == labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"one size\. Received: \[5, 3, 1\] after \[4"):
        spool(4, 5)


@pytest.mark.parametrize("streamed", [False, True])
def test_draws_stand_one_behind_the_other(streamed):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    images = StreamedImages(pixels.__getitem__, pixels.shape) if streamed else pixels
    split = Split(images, np.arange(5, dtype=np.int32))
    dataset = Dataset("p", ("a", "b"), split, split, split, augment=vary_photos)
    several = dataset.unseen_draws(3)
    assert len(several) == 15 and isinstance(several.images, type(images))
    np.testing.assert_array_equal(several.labels, [*range(5)] * 3)
    for draw in range(3):
        np.testing.assert_array_equal(
            np.asarray(several.images)[5 * draw : 5 * draw + 5],
            np.asarray(dataset.unseen(draw).images),
        )


def test_draws_of_compositions_are_of_their_own_difficulty():
    dataset = load_dataset("digits")
    draws = [dataset.unseen(0), dataset.unseen(1)]
    both = dataset.unseen_draws(2)
    expected = np.concatenate([draw.difficulty for draw in draws])
    np.testing.assert_array_equal(both.difficulty, expected)
    assert np.any(draws[0].difficulty != draws[1].difficulty)
