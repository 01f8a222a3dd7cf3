"""The whole way from a folder of pictures to a bundle, and after a kill anywhere."""

import dataclasses
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image
from small_models import small_backbone, small_epnet, small_images

import epnet_tf
from epnet_tf import data
from epnet_tf.experiments import experiment, stage_two
from epnet_tf.experiments.checkpoint import Checkpoint
from epnet_tf.experiments.config import load_dataset
from epnet_tf.model import stored_states
from epnet_tf.runtime.bundle import read_manifest, write_manifest
from epnet_tf.runtime.images import read_image

BETA = 1e-5
CLASSES = ("dark", "gray", "light")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """JPEGs of 40x30 pixels, whose brightness tells their class."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for k, name in enumerate(CLASSES):
        (root / name).mkdir()
        for i in range(40):
            pixels = rng.integers(0, 90, (30, 40, 3)) + 75 * k
            picture = Image.fromarray(pixels.astype("uint8"))
            picture.save(root / name / f"{i}.jpg", quality=95)
    return root


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory):
    file = str(tmp_path_factory.mktemp("backbone") / "backbone.keras")
    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(image)
    keras.Model(image, small_backbone((16, 16, 3), (4, 8))(x)).save(file)
    schedule = experiment.schedule_for(
        str(folder), backbone=file, epochs=3, batch_size=16, controller_epochs=2
    )
    return experiment.Config(
        str(folder), schedule, (BETA,), image_size=(16, 16), crop=True
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, experiment.run(config, workdir, verbose=0)


@pytest.fixture(scope="module")
def bundle(config, finished, tmp_path_factory):
    """The bundle, and the model and the data set that it was made of."""
    model = keras.saving.load_model(experiment.model_file(finished[0], BETA))
    dataset = load_dataset(config.as_json(), None)
    path = tmp_path_factory.mktemp("bundle") / "bundle"
    conversion = epnet_tf.convert(
        model,
        dataset.train.images[:50],
        path,
        training_data=(dataset.train.images, dataset.train.labels),
        evaluation_data=(dataset.validation.images, dataset.validation.labels),
        test_data=(dataset.test.images, dataset.test.labels),
        labels=dataset.labels,
        crop=dataset.crop,
    )
    return conversion, model, dataset


def test_a_folder_is_trained_on(finished):
    workdir, metrics = finished
    assert metrics["settings"]["image_size"] == [16, 16]
    assert metrics["settings"]["crop"] is True
    # Where states were stored while they were needed.
    assert not (workdir / "states").exists()


def test_streamed_as_from_memory(config, finished, tmp_path, monkeypatch):
    """The same pictures as arrays give the same network, to the digit."""
    dataset = load_dataset(config.as_json(), None)
    workdir, _ = finished

    def in_memory(split):
        return data.Split(np.asarray(split.images), split.labels)

    arrays = data.Dataset(
        dataset.name,
        dataset.labels,
        *map(in_memory, (dataset.train, dataset.validation, dataset.test)),
        augment=dataset.augment,
    )
    found = experiment.trained_classifiers(config, arrays, tmp_path, verbose=0)
    expected = keras.saving.load_model(workdir / "classifiers.keras")
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


class Killed(BaseException):
    """Nobody catches it."""


def in_stage_one(monkeypatch):
    write = Checkpoint.on_epoch_end

    def kill(self, epoch, logs=None):
        write(self, epoch, logs)
        if epoch == 1:
            raise Killed

    monkeypatch.setattr(Checkpoint, "on_epoch_end", kill)


def in_decoding(monkeypatch):
    monkeypatch.setattr(data.photos, "_read", kill_later(data.photos._read, 300))


def in_states(monkeypatch):
    # When all are written, and it is not said yet.
    describe = kill_later(stored_states._describe, 1)
    monkeypatch.setattr(stored_states, "_describe", describe)


def in_stage_two(monkeypatch):
    monkeypatch.setattr(stage_two, "save_model", kill_later(stage_two.save_model, 0))


def kill_later(function, calls):
    """The function, which is killed after so many calls."""
    count = 0

    def killed(*args, **kwargs):
        nonlocal count
        count += 1
        if count > calls:
            raise Killed
        return function(*args, **kwargs)

    return killed


@pytest.mark.slow
@pytest.mark.parametrize("phase", [in_decoding, in_stage_one, in_states, in_stage_two])
def test_killed_anywhere_the_same_command_gives_the_same(
    config, finished, tmp_path, phase
):
    with pytest.MonkeyPatch.context() as monkeypatch:
        phase(monkeypatch)
        # TensorFlow hands on as its own what is raised in its threads.
        with pytest.raises((Killed, tf.errors.OpError)):
            experiment.run(config, tmp_path, verbose=0)
    assert not (tmp_path / "metrics.json").exists()
    metrics = experiment.run(config, tmp_path, verbose=0)
    assert json.dumps(metrics) == json.dumps(finished[1])


def test_the_bundle_says_how_pictures_become_images(bundle):
    text = (bundle[0].path / "epnet.json").read_text()
    assert json.loads(text)["preprocessing"] == {
        "height": 16,
        "width": 16,
        "resize": "bilinear",
        "antialias": True,
        "crop": "center",
        "range": [0, 255],
        "channels": "RGB",
    }


def test_the_command_follows_it(bundle, tmp_path):
    """Stretched, the picture's black margins would be seen; cropped, they are not."""
    path = bundle[0].path
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[:, 15:45] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[:, 15:45]).save(tmp_path / "b.png")
    command = [sys.executable, "-m", "epnet_tf.run", str(path)]
    files = [str(tmp_path / name) for name in ("a.png", "b.png")]
    done = subprocess.run([*command, *files], capture_output=True, text=True)
    one, other = (line.split()[1:-2] for line in done.stdout.splitlines())
    assert one == other, done.stderr


def test_other_preprocessing_is_refused(bundle, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle[0].path, folder)
    manifest = read_manifest(folder)
    other = dataclasses.replace(manifest.preprocessing, resize="bicubic")
    write_manifest(dataclasses.replace(manifest, preprocessing=other), folder)
    with pytest.raises(ValueError, match=r"pictures are to be read as .*bicubic"):
        read_manifest(folder)
    before = dataclasses.replace(manifest, preprocessing=None)
    write_manifest(before, folder)
    assert not read_manifest(folder).crops


def test_conversion_measures_all_pictures(bundle):
    conversion, model, dataset = bundle
    metrics = conversion.manifest.metrics
    assert metrics.images == len(dataset.validation)
    assert metrics.test.images == len(dataset.test)
    answers = model.classify(np.asarray(dataset.validation.images))
    accuracy = np.mean(answers.label == dataset.validation.labels)
    assert metrics.float.accuracy == pytest.approx(accuracy)


def test_pictures_are_classified_as_in_training(bundle, tmp_path):
    """Of 1600x1200 pixels, cropped; the pipeline's batches against the one reader."""
    conversion, model, _ = bundle
    rng = np.random.default_rng(1)
    for k, name in enumerate(CLASSES):
        (tmp_path / name).mkdir()
        for i in range(5):
            small = rng.integers(0, 90, (30, 40, 3)) + 75 * k
            picture = Image.fromarray(small.astype("uint8")).resize((1600, 1200))
            picture.save(tmp_path / name / f"{i}.jpg")
    dataset = data.load_dataset(tmp_path, image_shape=(16, 16, 3), crop=True)
    runner = epnet_tf.SegmentRunner(conversion.path)
    files = sorted(tmp_path.glob("*/*.jpg"))
    shape, crop = runner.manifest.input.shape[1:], runner.manifest.crops
    seen = {read_image(file, shape, crop).tobytes() for file in files}
    streamed = np.asarray(dataset.train.images)
    assert all(image.tobytes() in seen for image in streamed)
    # int8 moves answers, in training's pixels as in the runtime's.
    expected = model.classify(dataset.train.images)
    found = runner.predict(streamed)
    assert np.mean(expected.label == found.label) >= 0.9


@pytest.mark.slow
def test_a_data_set_is_converted_as_arrays_are(tmp_path):
    """Shuffled, too: the Keras model and the bundle are shown the same images."""
    model = small_epnet(beta=BETA)
    images, labels = small_images(90)
    pipeline = tf.data.Dataset.from_tensor_slices((images, labels))
    found = [
        epnet_tf.convert(
            model,
            calibration,
            tmp_path / name,
            quantization="int8",
            training_data=training,
            evaluation_data=evaluation,
        ).manifest
        for name, calibration, training, evaluation in (
            ("arrays", images, (images, labels), (images, labels)),
            ("data sets", pipeline, pipeline.batch(32), pipeline.shuffle(90)),
        )
    ]
    for a, b in zip(found[0].segments, found[1].segments, strict=True):
        assert a.sha256 == b.sha256
    metrics, others = (manifest.metrics for manifest in found)
    assert others.float.accuracy == pytest.approx(metrics.float.accuracy)
    assert others.bundle.accuracy == pytest.approx(metrics.bundle.accuracy)
    assert others.same_exit == pytest.approx(metrics.same_exit)
