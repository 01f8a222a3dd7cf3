"""Folders of pictures and TFRecord files: what is found, split, read, and refused."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image
from small_models import small_images

from epnet_tf import data
from epnet_tf.data import photos
from epnet_tf.runtime.images import read_image

SHAPE = (12, 12, 3)
CLASSES = ("cat", "dog", "eel")


def picture(brightness: int, size=(20, 16)) -> Image.Image:
    return Image.new("RGB", size, (brightness,) * 3)


def fill(root: pathlib.Path, per_class=10, ending="png", classes=CLASSES):
    """Pictures whose brightness, 80 · class + number, tells which they are."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            picture(80 * k + i).save(root / name / f"{i:02d}.{ending}")
    return root


def load(root, **kwargs):
    return data.load_dataset(str(root), image_shape=SHAPE, **kwargs)


def brightness(split) -> list[int]:
    return [int(image[0, 0, 0]) for image in split.images]


def test_a_folder_is_split_by_seed_each_class_alike(tmp_path):
    dataset = load(fill(tmp_path), seed=3)
    assert dataset.labels == CLASSES and dataset.image_shape == SHAPE
    sizes = [len(s) for s in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == [25, 2, 3]
    assert np.bincount(dataset.test.labels).tolist() == [1, 1, 1]
    found = [
        b
        for split in (dataset.train, dataset.validation, dataset.test)
        for b, label in zip(brightness(split), split.labels, strict=True)
        if b // 80 == label
    ]
    assert sorted(found) == sorted(80 * k + i for k in range(3) for i in range(10))
    again, other = load(tmp_path, seed=3), load(tmp_path, seed=4)
    assert brightness(again.train) == brightness(dataset.train)
    assert brightness(other.train) != brightness(dataset.train)


def test_parts_that_are_told_apart_stay_apart(tmp_path):
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        fill(tmp_path / part, count)
    dataset = load(tmp_path)
    sizes = [len(s) for s in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == [18, 6, 9]


def test_files_are_told_from_others(tmp_path):
    first = data.fingerprint(fill(tmp_path))
    (tmp_path / "cat" / "notes.txt").write_text("mine")
    (tmp_path / "cat" / ".hidden.png").write_text("")
    assert data.fingerprint(tmp_path) == first
    more = tmp_path / "dog" / "more"
    more.mkdir()
    picture(7).save(more / "10.png")
    added = data.fingerprint(tmp_path)
    picture(7, size=(90, 90)).save(more / "10.png")
    resized = data.fingerprint(tmp_path)
    (more / "10.png").rename(more / "11.png")
    renamed = data.fingerprint(tmp_path)
    assert len({first, added, resized, renamed}) == 4
    (more / "11.png").unlink()
    assert data.fingerprint(tmp_path) == first
    assert data.fingerprint("digits") is None
    assert data.fingerprint(tmp_path / "none.npz") is None


def test_a_class_may_be_called_train(tmp_path):
    assert load(fill(tmp_path, classes=("car", "train"))).labels == ("car", "train")


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "png", "bmp", "gif", "webp"])
def test_every_format(tmp_path, ending):
    train = load(fill(tmp_path, ending=ending)).train
    for value, label in zip(brightness(train), train.labels, strict=True):
        assert abs(value - 80 * label) <= 12


def test_the_pixels_are_those_of_the_runtime(tmp_path):
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for i in range(4):
            noise = Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8))
            noise.save(tmp_path / name / f"{i}.jpg")
    for crop in (False, True):
        dataset = load(tmp_path, crop=crop)
        batch = next(
            data.batches(dataset.train.images, dataset.train.labels)
            .take(1)
            .as_numpy_iterator()
        )
        expected = {
            read_image(file, SHAPE, crop).tobytes() for file in tmp_path.glob("*/*.jpg")
        }
        assert {image.tobytes() for image in batch[0]} <= expected
        assert len(batch[0]) == len(dataset.train)


def large_photo(file, orientation):
    """A photograph of 1600x1200 pixels, stored as its EXIF orientation says."""
    photo = Image.fromarray(load_sample_image("flower.jpg")).resize((1600, 1200))
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
    stored = photo.transpose(turned[orientation]) if orientation in turned else photo
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(file, quality=90, exif=exif)


@pytest.mark.parametrize("crop", [False, True])
def test_large_photos_are_the_same_in_training_and_in_the_runtime(tmp_path, crop):
    """In the order of the training pipeline, and turned as their EXIF says."""
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for orientation in (1, 3, 6):
            large_photo(tmp_path / name / f"{orientation}.jpg", orientation)
    found = photos.find(str(tmp_path)).parts["train"]
    split = data.Split(photos.streamed(found, (96, 96, 3), crop), np.arange(9))
    images, numbers = next(data.training_pipeline(split, 9, 0).as_numpy_iterator())
    assert sorted(numbers) == list(range(9))
    upright = None
    for image, number in zip(images, numbers, strict=True):
        expected = read_image(found.places[number], (96, 96, 3), crop)
        np.testing.assert_array_equal(image, expected)
        # All show the same flower; JPEG's blocks lie elsewhere when it is turned.
        upright = image if upright is None else upright
        assert np.abs(image - upright).mean() < 1.0


def test_large_photos_are_as_tensorflow_reads_and_resizes_them(tmp_path):
    """What a `tf.data` set has to do that its network is to be run by this runtime."""
    file = str(tmp_path / "a.jpg")
    large_photo(file, 1)
    # TensorFlow's default takes a shortcut in decoding.
    decoded = tf.io.decode_jpeg(tf.io.read_file(file), 3, dct_method="INTEGER_ACCURATE")
    with Image.open(file) as picture:
        np.testing.assert_array_equal(decoded, np.asarray(picture))
    ours = read_image(file, (96, 96, 3)).astype("float32")
    antialiased = tf.image.resize(decoded, (96, 96), antialias=True)
    assert np.abs(antialiased - ours).max() <= 1.0
    # Without it, which is Keras's default, it is another picture.
    assert np.abs(tf.image.resize(decoded, (96, 96)) - ours).max() > 30.0


def test_crop_takes_the_window_that_keras_takes(tmp_path):
    ramp = np.arange(7 * 11, dtype=np.uint8).reshape(7, 11)
    file = tmp_path / "ramp.png"
    Image.fromarray(ramp).save(file)
    # int(7 · 3 / 4) = 5 columns from (11 - 5) // 2 = 3; resized to their own size.
    np.testing.assert_array_equal(
        read_image(file, (7, 5, 1), True)[..., 0], ramp[:, 3:8]
    )
    # int(11 · 2 / 5) = 4 rows from (7 - 4) // 2 = 1, and all columns.
    np.testing.assert_array_equal(read_image(file, (4, 11, 1), True)[..., 0], ramp[1:5])


def test_training_batches_are_functions_of_seed_epoch_and_step(tmp_path):
    train = load(fill(tmp_path)).train
    in_memory = data.Split(np.asarray(train.images), train.labels)

    def taken(split, count, start=0):
        batches = data.training_pipeline(split, 8, seed=5, start_epoch=start)
        return list(batches.take(count).as_numpy_iterator())

    assert data.steps_per_epoch(train, 8) == 3
    whole, resumed = taken(train, 6), taken(train, 3, start=1)
    for a, b in zip(whole, taken(in_memory, 6), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    for a, b in zip(whole[3:], resumed, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    assert whole[0][0].dtype == np.float32


def test_moments_are_those_of_the_pixels(tmp_path):
    train = load(fill(tmp_path)).train
    found = data.pixel_moments(train)
    expected = data.pixel_moments(data.Split(np.asarray(train.images), train.labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_bad_file_ends_the_run_or_is_left_out(tmp_path, caplog):
    fill(tmp_path)
    bad = tmp_path / "dog" / "04.png"
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"Expected an image file.*04\.png.*one of 1 "):
        load(tmp_path)
    dataset = load(tmp_path, on_bad_image="skip")
    sizes = [len(s) for s in (dataset.train, dataset.validation, dataset.test)]
    assert sum(sizes) == 29
    assert "04.png" in caplog.text and "Skipped 1 of 30 pictures" in caplog.text


def test_other_files_are_told_of(tmp_path, caplog):
    fill(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("mine")
    (tmp_path / "cat" / ".hidden").write_text("")
    assert len(load(tmp_path).train) == 25
    assert "Left out 1 files" in caplog.text and "notes.txt" in caplog.text


def test_a_pipe_is_no_picture(tmp_path, caplog):
    os.mkfifo(fill(tmp_path) / "cat" / "a.png")
    assert len(load(tmp_path).train) == 25
    assert "Left out 1 files" in caplog.text and "a.png" in caplog.text


def test_a_link_to_nowhere_is_named_in_a_sentence(tmp_path):
    (fill(tmp_path) / "cat" / "a.png").symlink_to(tmp_path / "nowhere")
    message = r"^No such file or directory: .*cat/a\.png\. It is one of 1 such among 31"
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_pictures_of_no_class_are_told_of(tmp_path, caplog):
    picture(0).save(fill(tmp_path) / "a.png")
    assert len(load(tmp_path).train) == 25
    assert "Left out 1 files" in caplog.text and "a.png" in caplog.text


def no_classes(root):
    picture(0).save(root / "a.png")


def one_class(root):
    fill(root, classes=("cat",))


def empty_class(root):
    fill(root)
    (root / "ant").mkdir()


def two_spellings(root):
    fill(root, classes=("cat", "Cat"))


def a_space_at_the_end(root):
    fill(root, classes=("cat", "cat "))


def spaces_within(root):
    fill(root, classes=("house cat", "House  cat"))


def accents_in_two_ways(root):
    fill(root, classes=("p\u00e9ch\u00e9", "pe\u0301che\u0301"))


def a_line_break(root):
    fill(root, classes=("cat", "house\ncat"))


def bytes_that_are_no_text(root):
    fill(root, classes=("cat", os.fsdecode(b"\xff")))


def a_part_without_classes(root):
    fill(root / "train")
    (root / "test").mkdir()
    picture(0).save(root / "test" / "a.png")


def two_folders_for_validation(root):
    for part in ("train", "val", "validation"):
        fill(root / part)


def unknown_class(root):
    fill(root / "train")
    fill(root / "test", classes=("cat", "fox"))


def all_bad(root):
    fill(root)
    for file in (root / "dog").iterdir():
        file.write_text("no picture")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_classes, "a folder for each class in .*Received: 0"),
        (one_class, "2 to 50,000 classes. Received: one, 'cat'"),
        (empty_class, "of every class in .*Received: none in 'ant'"),
        (two_spellings, "spelled in one way. Received: 'Cat' and 'cat'"),
        (a_space_at_the_end, "spelled in one way. Received: 'cat' and 'cat '"),
        (spaces_within, "spelled in one way. Received: 'House  cat' and 'house cat'"),
        (accents_in_two_ways, "spelled in one way"),
        (a_line_break, r"named by text. Received: 'house\\ncat'"),
        (bytes_that_are_no_text, r"named by text. Received: '\\udcff'"),
        (a_part_without_classes, "a folder for each class in .*test. Received: none"),
        (two_folders_for_validation, "one folder for each part.*'val' and 'valid"),
        (unknown_class, "classes of the training pictures. Received: 'fox'"),
        (all_bad, "pictures of every class.*none of 1 classes"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ValueError, match=message) as raised:
        load(tmp_path, on_bad_image="skip")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a.png", "missing", "missing/photos"])
def test_what_is_no_folder(tmp_path, name):
    picture(0).save(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=r"of a folder of pictures.*Received: .*" + name
    ):
        load(tmp_path / name)


def test_a_hundred_thousand_classes():
    names = [str(i) for i in range(100_000)]
    with pytest.raises(ValueError, match=r"2 to 50,000 classes\. Received: 100,000"):
        photos.check_classes(names, "a folder for each class")


@pytest.mark.parametrize("size", [(7, 12), (12, 7)])
def test_sizes_below_eight_pixels(tmp_path, size):
    fill(tmp_path)
    with pytest.raises(ValueError, match=r"at least 8 pixels on each side. Received"):
        data.load_dataset(str(tmp_path), image_shape=(*size, 3))


def example(encoded: bytes, label: int, text: bytes | None = None) -> bytes:
    def of_bytes(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "image/encoded": of_bytes(encoded),
        "image/class/label": tf.train.Feature(
            int64_list=tf.train.Int64List(value=[label])
        ),
    }
    if text is not None:
        features["image/class/text"] = of_bytes(text)
    features = tf.train.Features(feature=features)
    return tf.train.Example(features=features).SerializeToString()


def write_records(root: pathlib.Path, named=True, **parts: int) -> str:
    """ImageNet's form: labels from 1, in files train-00000-of-00002 and so on."""
    fill(root / "files")
    for part, per_class in parts.items():
        for shard in range(2):
            name = str(root / f"{part}-{shard:05d}-of-00002.tfrecord")
            with tf.io.TFRecordWriter(name) as writer:
                for k, text in enumerate(CLASSES):
                    for i in range(shard, per_class, 2):
                        encoded = (root / "files" / text / f"{i:02d}.png").read_bytes()
                        given = text.encode() if named else None
                        writer.write(example(encoded, k + 1, given))
    return str(root / "*.tfrecord")


def test_tfrecords_give_what_the_files_give(tmp_path):
    dataset = load(write_records(tmp_path, pictures=10))
    assert dataset.labels == CLASSES and dataset.name == "pictures"
    sizes = [len(s) for s in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == [25, 2, 3]
    for value, label in zip(
        brightness(dataset.train), dataset.train.labels, strict=True
    ):
        assert value // 80 == label
    assert len(set(brightness(dataset.train))) == 25


def test_tfrecords_named_by_parts(tmp_path):
    pattern = write_records(tmp_path, named=False, train=6, validation=4)
    dataset = load(pattern)
    sizes = [len(s) for s in (dataset.train, dataset.validation, dataset.test)]
    assert dataset.labels == ("1", "2", "3") and sizes == [17, 12, 1]


def test_bad_tfrecords(tmp_path):
    with pytest.raises(ValueError, match=r"Expected TFRecord files. Received: none"):
        load(tmp_path / "no*.tfrecord")
    file = tmp_path / "bad.tfrecord"
    for content, message in (
        (b"no records at all", "a whole, uncompressed TFRecord file.*behind 0 records"),
        (b"", "2 to 50,000 classes. Received: 0"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message) as raised:
            load(file)
        assert "\n" not in str(raised.value)
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with pytest.raises(
        ValueError, match=r"one image/encoded.*Received: nothing in rec"
    ):
        load(file)


def test_a_truncated_tfrecord(tmp_path):
    load(write_records(tmp_path, pictures=4))
    file = tmp_path / "pictures-00001-of-00002.tfrecord"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"00001-of-00002.*broken behind 5 records"):
        load(tmp_path / "*.tfrecord")


def test_a_broken_picture_in_a_tfrecord(tmp_path):
    file = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(file) as writer:
        for k in range(3):
            writer.write(example(b"no picture", k))
    with pytest.raises(
        ValueError, match=r"Received: record 0 of .*a\.tfrecord; it has"
    ):
        load(file)


def test_two_labels_of_one_name_in_tfrecords(tmp_path):
    file = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(file) as writer:
        for k in range(2):
            writer.write(example(b"", k, b"cat"))
    with pytest.raises(ValueError, match=r"another name. Received: 'cat' and 'cat'"):
        load(file)


def test_images_are_read_when_asked_for():
    images, _ = small_images(20)
    read = []

    def reader(index):
        read.append(index)
        return images[index]

    streamed = data.StreamedImages(reader, images.shape)
    some = streamed[10:][np.array([3, 1])]
    assert not read and len(some) == 2 and some.shape == (2, 12, 12, 1)
    np.testing.assert_array_equal(some[1], images[11])
    assert read == [11]
    np.testing.assert_array_equal(np.asarray(some), images[[13, 11]])
    np.testing.assert_array_equal(np.stack(list(streamed)), images)
    with pytest.raises(IndexError):
        streamed[20]
