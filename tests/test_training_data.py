"""What trainers are given: labels refused at every door, whatever brings them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import small_epnet, small_images

import epnet_tf

IMAGES, LABELS = small_images()
SENTENCE = (
    "Expected {}labels within 0 to 2, for 3 classes. Received: label 3, among labels "
    "from 1 to 3."
)


def as_arrays(x, y):
    return x, y


def as_tensors(x, y):
    return tf.nest.map_structure(tf.constant, (x, y))


def as_pipeline(x, y):
    return (tf.data.Dataset.from_tensor_slices((x, y)).batch(48),)


def as_weighted_pipeline(x, y):
    weights = np.ones(len(y), "float32")
    return (tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(48),)


def as_generator(x, y):
    return ((x, y) for _ in range(1))


class Batches(keras.utils.PyDataset):
    """One batch, and how often an epoch has ended."""

    def __init__(self, x, y, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.epochs = x, y, 0

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.x, self.y

    def on_epoch_end(self):
        self.epochs += 1


WAYS = {
    "arrays": as_arrays,
    "tensors": as_tensors,
    "pipeline": as_pipeline,
    "weighted pipeline": as_weighted_pipeline,
    "generator": lambda x, y: (as_generator(x, y),),
    "PyDataset": lambda x, y: (Batches(x, y),),
}


def classifiers(**compile_arguments):
    trainer = epnet_tf.ClassifierTrainer(small_epnet(exits=["block1_relu1"]))
    trainer.compile("sgd", **{"jit_compile": False, **compile_arguments})
    return trainer, IMAGES


def controllers(**compile_arguments):
    trainer = epnet_tf.ControllerTrainer(small_epnet(exits=["block1_relu1"]), 1e-5)
    trainer.compile("sgd", **{"jit_compile": False, **compile_arguments})
    return trainer, IMAGES


def controllers_on_states(**compile_arguments):
    trainer, images = controllers(**compile_arguments)
    states = epnet_tf.compute_states(trainer.model, images, LABELS, verbose=0)
    return trainer, states.inputs


CASES = [(classifiers, way) for way in WAYS] + [
    (make, way)
    for make in (controllers, controllers_on_states)
    for way in ("arrays", "pipeline")
]


def refused(call, *args, what="", **kwargs):
    with pytest.raises(ValueError) as raised:
        call(*args, verbose=0, **kwargs)
    assert str(raised.value) == SENTENCE.format(what)


@pytest.mark.parametrize(("make", "way"), CASES)
def test_labels_out_of_range_are_refused(make, way):
    trainer, x = make()
    before = [np.asarray(w) for w in trainer.trainable_weights]
    refused(trainer.fit, *WAYS[way](x, LABELS + 1))
    refused(trainer.evaluate, *WAYS[way](x, LABELS + 1))
    for weight, old in zip(trainer.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize("way", WAYS)
def test_and_right_ones_are_trained_on_as_they_are(way):
    trainer, x = classifiers()
    expected = classifiers()[0].fit(x, LABELS, 48, shuffle=False, verbose=0).history
    given = WAYS[way](x, LABELS)
    found = trainer.fit(*given, batch_size=48 if len(given) == 2 else None, verbose=0)
    assert found.history["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_a_pydataset_hears_of_its_epochs():
    (trainer, x), (unchecked, _) = classifiers(), classifiers()
    heard, expected = Batches(x, LABELS), Batches(x, LABELS)
    trainer.fit(heard, epochs=2, verbose=0)
    keras.Model.fit(unchecked, expected, epochs=2, verbose=0)
    assert heard.epochs == expected.epochs >= 2


@pytest.mark.parametrize("way", ["pipeline", "generator", "PyDataset"])
def test_compiled_by_xla_too(way):
    """As on a GPU, where an assertion within the step would be left out."""
    trainer, x = classifiers(jit_compile=True)
    refused(trainer.fit, *WAYS[way](x, LABELS + 1))


@pytest.mark.parametrize("way", ["pipeline", "PyDataset"])
def test_validation_data(way):
    trainer, x = classifiers()
    right, wrong = WAYS[way](x, LABELS)[0], WAYS[way](x, LABELS + 1)[0]
    refused(trainer.fit, right, validation_data=wrong, what="validation ")
    given = (x, LABELS + 1)
    refused(trainer.fit, x, LABELS, validation_data=given, what="validation ")
    history = trainer.fit(right, validation_data=right, epochs=2, verbose=0).history
    assert len(history["val_accuracy"]) == 2


def test_a_label_in_a_later_batch():
    trainer, x = classifiers()
    y = LABELS.copy()
    y[-1] = 7
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8).repeat()
    with pytest.raises(ValueError, match=r"for 3 classes\. Received: label 7"):
        trainer.fit(batches, steps_per_epoch=6, verbose=0)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_single_batches(method):
    trainer, x = classifiers()
    with pytest.raises(ValueError, match=r"for 3 classes\. Received: label 3"):
        getattr(trainer, method)(x, LABELS + 1)
    logs = getattr(trainer, method)(x, LABELS, return_dict=True)
    assert set(logs) == {"loss", "accuracy", "exits_accuracy"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "Received: None"),
        (LABELS + 0.5, r"whole numbers\. Received: label [012]\.5"),
        (np.array(["cat"] * 48), r"numbers of classes. Received: 'cat'"),
        (np.eye(4)[LABELS], r"\[n, 3\]. Received: shape \[48, 4\]"),
        (np.eye(3)[LABELS] * 2, "rows of probabilities.*sum to 2"),
    ],
)
def test_other_wrong_labels(labels, message):
    trainer, x = classifiers()
    with pytest.raises(ValueError, match=message):
        trainer.fit(x, labels, verbose=0)
    if labels is None:
        batches = tf.data.Dataset.from_tensor_slices(x).batch(16)
        with pytest.raises(ValueError, match=message):
            trainer.fit(batches, verbose=0)
    elif labels.dtype.kind != "U":
        with pytest.raises(ValueError, match=message):
            trainer.fit(as_pipeline(x, labels)[0], verbose=0)


def test_text_in_a_pipeline():
    trainer, x = classifiers()
    with pytest.raises(ValueError, match=r"numbers of classes\. Received: tf\.string"):
        trainer.fit(as_pipeline(x, np.array(["cat"] * 48))[0], verbose=0)


def test_soft_labels_train():
    trainer, x = classifiers()
    soft = 0.9 * np.eye(3)[LABELS] + 0.1 / 3
    soft_loss = trainer.evaluate(x, soft, verbose=0)[0]
    hard_loss = trainer.evaluate(x, LABELS, verbose=0)[0]
    assert np.isfinite(soft_loss) and soft_loss != hard_loss


def test_errors_of_the_pipelines_own_come_through():
    def fail(x):
        raise ZeroDivisionError("mine")

    trainer, x = classifiers()
    batches = tf.data.Dataset.from_tensor_slices((x, LABELS)).batch(16)
    batches = batches.map(lambda x, y: (tf.numpy_function(fail, [x], tf.uint8), y)).map(
        lambda x, y: (tf.ensure_shape(x, [None, 12, 12, 1]), y)
    )
    with pytest.raises(tf.errors.OpError, match="mine"):
        trainer.fit(batches, verbose=0)
    trainer.fit(x, LABELS, verbose=0)  # and the trainer is as before


@pytest.mark.parametrize("form", [lambda y: y[:, None], lambda y: np.eye(3)[y]])
def test_states_take_labels_of_every_form(form):
    model = small_epnet()
    states = epnet_tf.compute_states(model, IMAGES, form(LABELS), verbose=0)
    assert states.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 1, "for 3 classes. Received: label 3"),
        (LABELS[:-1], "one for each of 48 images. Received: 47"),
        (np.eye(4)[LABELS], r"Received: shape \[48, 4\]"),
    ],
)
def test_states_refuse_other_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        epnet_tf.compute_states(small_epnet(), IMAGES, labels, verbose=0)


@pytest.mark.parametrize("form", [lambda y: y[:, None], lambda y: np.eye(3)[y]])
def test_conversion_measures_labels_of_every_form(form, tmp_path):
    model = small_epnet(exits=["block1_relu1"], beta=1e-5)
    found = [
        epnet_tf.convert(
            model,
            IMAGES,
            tmp_path / name,
            quantization="none",
            evaluation_data=(IMAGES, labels),
        ).manifest.metrics
        for name, labels in (("numbers", LABELS), ("form", form(LABELS)))
    ]
    assert found[0].bundle == found[1].bundle and found[0].float == found[1].float


@pytest.mark.parametrize("key", ["evaluation_data", "training_data"])
def test_conversion_refuses_other_labels(key, tmp_path):
    model = small_epnet(exits=["block1_relu1"], beta=1e-5)
    with pytest.raises(ValueError, match=f"labels in {key} within 0 to 2.*: label 3"):
        epnet_tf.convert(
            model, IMAGES, tmp_path / "bundle", **{key: (IMAGES, LABELS + 1)}
        )
    assert not (tmp_path / "bundle").exists()
