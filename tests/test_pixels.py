"""Pixels in another range than a model's are warned of, at every door."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from small_models import small_epnet, small_images

import epnet_tf
from epnet_tf.data.pixels import warn_of_range

IMAGES, LABELS = small_images()
SCALED = (IMAGES / 255).astype("float32")


@pytest.mark.parametrize(
    ("images", "values"),
    [
        (SCALED, "from 0 to 0.9"),
        (2 * SCALED - 1, "from -1 to 0.8"),
        (IMAGES * 2.0, "from 0 to 4"),
        (np.array([0.0, np.nan]), "from nan to nan"),
        (np.array([0, 1]), "from 0 to 1"),
    ],
)
def test_other_ranges(images, values):
    with pytest.warns(UserWarning, match=f"Expected these .* 0 to 255.*{values}"):
        warn_of_range(images, "these")


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        IMAGES.astype("float32"),
        np.array([0, 1], "uint8"),
        np.zeros([2, 3]),
        np.zeros([0, 4, 4, 1]),
        np.array(["no image"]),
    ],
)
def test_raw_pixels_black_ones_and_none(images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_range(images)


def fit(trainer, *args, **kwargs):
    trainer.compile("sgd", jit_compile=False)
    trainer.fit(*args, batch_size=None, verbose=0, **kwargs)


def batches(images):
    return tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(24)


def classifiers(*args, **kwargs):
    fit(epnet_tf.ClassifierTrainer(small_epnet()), *args, **kwargs)


def evaluate(images):
    trainer = epnet_tf.ControllerTrainer(small_epnet(), 1e-5)
    trainer.compile("sgd", jit_compile=False)
    trainer.evaluate(images, LABELS, verbose=0)


def convert(tmp_path, **kwargs):
    arguments = {"calibration_images": IMAGES, "quantization": "none"} | kwargs
    model = small_epnet(exits=["block1_relu1"], beta=1e-5)
    epnet_tf.convert(model, output_dir=tmp_path / "bundle", **arguments)


DOORS = {
    "ClassifierTrainer.fit": lambda x, _: classifiers(x, LABELS),
    "validation_data": lambda x, _: classifiers(
        IMAGES, LABELS, validation_data=(x, LABELS)
    ),
    "a pipeline": lambda x, _: classifiers(batches(x)),
    "a generator": lambda x, _: classifiers(iter_once(x), steps_per_epoch=1),
    "ControllerTrainer.fit": lambda x, _: fit(
        epnet_tf.ControllerTrainer(small_epnet(), 1e-5), x, LABELS
    ),
    "evaluate": lambda x, _: evaluate(x),
    "compute_states": lambda x, _: epnet_tf.compute_states(
        small_epnet(), x, LABELS, verbose=0
    ),
    "classify": lambda x, _: small_epnet().classify(x),
    "calibration": lambda x, path: convert(path, calibration_images=x),
    "evaluation_data": lambda x, path: convert(path, evaluation_data=(x, LABELS)),
    "training_data": lambda x, path: convert(path, training_data=(x, LABELS)),
}


def iter_once(images):
    yield images, LABELS


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_every_door_warns_of_scaled_images_and_of_no_others(door, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        door(IMAGES.astype("float32"), tmp_path / "raw")
        assert not [w for w in caught if "255" in str(w.message)]
        door(SCALED, tmp_path / "scaled")
    told = [str(w.message) for w in caught if "0 to 255" in str(w.message)]
    assert len(told) == 1 and "values from 0 to 0.9" in told[0]


def test_states_have_no_pixels():
    states = epnet_tf.compute_states(small_epnet(), IMAGES, LABELS, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(epnet_tf.ControllerTrainer(small_epnet(), 1e-5), states.inputs, LABELS)
