"""The EPNet model: outputs, early-exit prediction, saving, errors."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from small_models import branching_backbone, small_backbone, small_epnet, small_images

import epnet_tf

BETA_RANGE = (1e-6, 1e-4)


def set_stop_biases(model, biases):
    """Lets each controller say the same of every image."""
    for i, bias in enumerate(biases, start=1):
        stop = model.get_layer(f"controller_{i:02d}").get_layer("stop")
        stop.set_weights([np.zeros_like(stop.kernel), np.array([bias], "float32")])


def error_of(function, *args, **kwargs):
    with pytest.raises(ValueError) as raised:
        function(*args, **kwargs)
    message = str(raised.value)
    assert "\n" not in message and "Received: " in message
    return message


# Outputs


def test_outputs():
    model = small_epnet()
    assert isinstance(model, keras.Model) and model.input.name == "image"
    assert {k: tuple(v.shape) for k, v in model.output.items()} == {
        "logits_01": (None, 3),
        "logits_02": (None, 3),
        "logits_03": (None, 3),
        "stop_01": (None, 1),
        "stop_02": (None, 1),
    }
    assert {v.dtype for v in model.output.values()} == {"float32"}
    assert model.num_exits == 3 and model.num_classes == 3
    assert model.image_shape == (12, 12, 1)


def test_outputs_with_a_beta_range():
    model = small_epnet(beta_range=BETA_RANGE)
    assert set(model.input) == {"image", "beta"}
    assert model.input["beta"].shape == (None, 1)
    images, _ = small_images(4)
    outputs = model(model.with_beta(images.astype("float32"), 1e-5))
    assert outputs["stop_01"].shape == (4, 1)


def test_logits_are_pooled_features_times_a_matrix():
    backbone = small_backbone()
    model = epnet_tf.EPNet(
        backbone,
        3,
        exits=["block1_relu1"],
        classifier=epnet_tf.PaperClassifier(),
    )
    images, _ = small_images(4)
    exit_layer = backbone.get_layer("block1_relu1")
    features = keras.Model(backbone.input, exit_layer.output)(images)
    kernel, bias = model.get_layer("logits_01").get_weights()
    expected = np.mean(features, axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(model(images)["logits_01"], expected, rtol=1e-4)


def test_weights_are_shared_with_the_backbone():
    backbone = small_backbone()
    model = epnet_tf.EPNet(backbone, 3)
    assert model.get_layer("block2_conv1") is backbone.get_layer("block2_conv1")


def test_controllers_start_by_continuing():
    images, _ = small_images()
    outputs = small_epnet()(images)
    stops = np.concatenate([outputs["stop_01"], outputs["stop_02"]])
    probability = 1 / (1 + np.exp(-stops))
    assert probability.mean() == pytest.approx(0.05, abs=0.05)


@pytest.mark.parametrize(
    "controller",
    [
        epnet_tf.Controller(units=5, dropout=0.1),
        epnet_tf.PaperController(f_in=(10, 7), f_cat=(6, 1)),
        epnet_tf.PaperController(f_in=(), f_cat=(1,)),
    ],
)
@pytest.mark.parametrize("beta_range", [None, BETA_RANGE])
def test_controllers_of_every_kind(controller, beta_range):
    model = small_epnet(controller=controller, beta_range=beta_range)
    images, _ = small_images(4)
    beta = None if beta_range is None else 1e-5
    assert model.classify(images, beta=beta).label.shape == (4,)
    again = epnet_tf.EPNet.from_config(model.get_config())
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


@pytest.mark.parametrize(
    ("channels", "classes", "reads"),
    # Logits that outnumber the features are left out.
    [(6, 5, 6 + 5), (6, 6, 6 + 6), (6, 7, 6)],
)
def test_our_controller_by_hand(channels, classes, reads):
    controller = epnet_tf.Controller(units=4, summary=3).build("c", channels, classes)
    shapes = [tuple(w.shape) for w in controller.trainable_weights]
    assert shapes == [(reads, 3), (3,), (5 + 3, 4), (4,), (4, 1), (1,)]


def test_our_controller_without_a_summary_by_hand():
    controller = epnet_tf.Controller(units=4, summary=None).build("c", 6, 7)
    shapes = [tuple(w.shape) for w in controller.trainable_weights]
    assert shapes == [(5 + 6 + 7, 4), (4,), (4, 1), (1,)]


def test_controllers_from_before_there_was_a_summary_have_none():
    old = epnet_tf.Controller.from_config({"units": 64, "dropout": 0.2})
    assert old == epnet_tf.Controller()
    narrow = epnet_tf.Controller(summary=16)
    assert epnet_tf.Controller.from_config(narrow.get_config()) == narrow


def test_the_papers_controller_by_hand():
    controller = epnet_tf.PaperController(f_in=(2,), f_cat=(3, 1)).build("c", 4, 5)
    shapes = [tuple(w.shape) for w in controller.trainable_weights]
    batch_norm = [(2,), (2,)], [(3,), (3,)]
    assert shapes == [
        (4, 2), (2,), *batch_norm[0],  # f_in on the pooled features
        (2 + 5, 3), (3,), *batch_norm[1],  # f_cat on [f_in, logits]
        (3, 1), (1,),
    ]  # fmt: skip


def test_the_papers_controller_ends_in_one_logit():
    assert "f_cat=(10, 2)" in error_of(epnet_tf.PaperController, f_cat=(10, 2))


def test_beta_changes_the_decision_of_a_controller_for_a_range():
    model = small_epnet(beta_range=BETA_RANGE)
    images = small_images(4)[0].astype("float32")
    low, high = (model(model.with_beta(images, b))["stop_01"] for b in BETA_RANGE)
    assert not np.allclose(low, high)


def test_confidence_features_by_hand():
    from epnet_tf.model.heads import ConfidenceFeatures

    p = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    features = np.asarray(ConfidenceFeatures()(np.log(p).astype("float32")))
    entropy = -(p * np.log(p)).sum(axis=1)
    expected = [
        [np.log(0.7), np.log(0.2), np.log(0.3), entropy[0], 0.54],
        [np.log(0.4), np.log(0.35), np.log(0.6), entropy[1], 0.345],
    ]
    np.testing.assert_allclose(features, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("p", "log_second", "log_rest"),
    [
        ([0.4, 0.4, 0.2], np.log(0.4), np.log(0.6)),
        ([0.25, 0.25, 0.25, 0.25], np.log(0.25), np.log(0.75)),
    ],
)
def test_equal_largest_logits_are_not_taken_for_certainty(p, log_second, log_rest):
    from epnet_tf.model.heads import ConfidenceFeatures

    features = np.asarray(ConfidenceFeatures()(np.log([p]).astype("float32")))[0]
    np.testing.assert_allclose(features[0], np.log(p[0]), rtol=1e-5)
    np.testing.assert_allclose(features[1:3], [log_second, log_rest], rtol=1e-5)


def test_confidence_features_are_finite_where_one_class_is_certain():
    from epnet_tf.model.heads import ConfidenceFeatures

    logits = np.array([[500.0, 0, 0], [0, -500, -500], [1e4, 1e4, -1e4]], "float32")
    assert np.isfinite(ConfidenceFeatures()(logits)).all()


# Early-exit prediction


def test_classify_takes_the_first_exit_that_stops():
    model = small_epnet()
    images, _ = small_images(5)
    outputs = model.predict(images, verbose=0)
    costs = model.exit_costs.with_controllers
    for biases, taken in (((2, 2), 1), ((-2, 2), 2), ((-2, -2), 3), ((2, -2), 1)):
        set_stop_biases(model, biases)
        label, exits, macs, probabilities = model.classify(images, batch_size=2)
        logits = outputs[f"logits_{taken:02d}"]
        assert exits.tolist() == [taken] * 5
        assert macs.tolist() == [costs[taken - 1]] * 5
        assert label.tolist() == logits.argmax(axis=1).tolist()
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = exponentials / exponentials.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
        assert probabilities.dtype == np.float32


def test_classify_mixes_exits_within_a_batch():
    model = small_epnet()
    images, _ = small_images()
    for i in (1, 2):  # Thresholds in the middle of what the controllers say.
        stop = model.get_layer(f"controller_{i:02d}").get_layer("stop")
        said = model.predict(images, verbose=0)[f"stop_{i:02d}"]
        stop.bias.assign(stop.bias - np.median(said))
    outputs = model.predict(images, verbose=0)
    prediction = model.classify(images)
    assert set(prediction.exit) == {1, 2, 3}
    for n in range(len(images)):
        stops = [outputs["stop_01"][n, 0] > 0, outputs["stop_02"][n, 0] > 0, True]
        taken = stops.index(True) + 1
        assert prediction.exit[n] == taken
        assert prediction.label[n] == outputs[f"logits_{taken:02d}"][n].argmax()


def test_classify_with_one_exit():
    model = small_epnet(exits=())
    assert model.classify(small_images(3)[0]).exit.tolist() == [1, 1, 1]


@pytest.mark.parametrize("beta_range", [None, BETA_RANGE])
def test_classify_no_images(beta_range):
    model = small_epnet(beta_range=beta_range)
    images = small_images(2)[0]
    given = {"beta": 1e-5} if beta_range else {}
    nothing, something = (model.classify(x, **given) for x in (images[:0], images))
    assert [a.shape for a in nothing] == [(0,), (0,), (0,), (0, 3)]
    assert [a.dtype for a in nothing] == [a.dtype for a in something]
    empty = tf.data.Dataset.from_tensor_slices(images).filter(lambda _: False)
    assert model.classify(empty, **given).label.shape == (0,)


@pytest.mark.parametrize("beta", [-1e-6, float("nan"), float("inf")])
def test_a_beta_that_is_none(beta):
    with pytest.raises(ValueError, match=f"Expected beta >= 0. Received: beta={beta}"):
        small_epnet(beta=beta)


def test_classify_with_a_beta_range():
    model = small_epnet(beta_range=BETA_RANGE)
    images, _ = small_images(4)
    assert model.classify(images, beta=1e-5).label.shape == (4,)
    for beta in (None, 1e-7, 1.0):
        message = error_of(model.classify, images, beta=beta)
        assert "from 1e-06 to 0.0001" in message and f"beta={beta}" in message


def test_classify_without_a_beta_range_takes_no_beta():
    model = small_epnet(beta=1e-5)
    said = error_of(model.classify, small_images(2)[0], beta=2e-5)
    assert "for 1e-05 alone" in said and "beta=2e-05" in said
    said = error_of(small_epnet().classify, small_images(2)[0], beta=2e-5)
    assert "are untrained" in said


@pytest.mark.parametrize("shape", [(2, 12, 12), (2, 13, 12, 1), (2, 12, 12, 3)])
def test_classify_checks_the_shape(shape):
    message = error_of(small_epnet().classify, np.zeros(shape))
    assert "[n, 12, 12, 1]" in message and str(list(shape)) in message


# Preprocessing


def test_preprocessing_is_within_the_model():
    keras.utils.set_random_seed(0)
    backbone = small_backbone()
    plain = epnet_tf.EPNet(backbone, 3, exits=2)
    scaled = epnet_tf.EPNet(
        backbone, 3, exits=2, preprocessing=layers.Rescaling(1 / 255)
    )
    scaled.get_layer("logits_02").set_weights(
        plain.get_layer("logits_02").get_weights()
    )
    images, _ = small_images(3)
    np.testing.assert_allclose(
        scaled(images)["logits_02"], plain(images / 255)["logits_02"], rtol=1e-4
    )


def test_preprocessing_by_normalization_is_saved(tmp_path):
    backbone = small_backbone()
    normalization = layers.Normalization(mean=[100.0], variance=[400.0])
    model = epnet_tf.EPNet(backbone, 3, exits=2, preprocessing=normalization)
    assert_saved(model, tmp_path, small_images(3)[0].astype("float32"))


# Saving


def assert_saved(model, folder, inputs):
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    assert type(loaded) is epnet_tf.EPNet
    expected, outputs = model(inputs), loaded(inputs)
    assert sorted(outputs) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-6)
    for attribute in ("exit_layers", "beta", "beta_range", "num_classes", "num_exits"):
        assert getattr(loaded, attribute) == getattr(model, attribute)
    assert np.array_equal(
        loaded.exit_costs.with_controllers, model.exit_costs.with_controllers
    )
    return loaded


def test_save_and_load(tmp_path):
    assert_saved(small_epnet(beta=5e-7), tmp_path, small_images(3)[0])


def test_save_and_load_with_a_beta_range(tmp_path):
    model = small_epnet(beta_range=BETA_RANGE)
    images = small_images(3)[0].astype("float32")
    assert_saved(model, tmp_path, model.with_beta(images, 1e-5))


def test_save_and_load_parallel_branches(tmp_path):
    model = epnet_tf.EPNet(branching_backbone(), 3)
    assert_saved(model, tmp_path, np.ones((2, 16, 16, 3), "float32"))


def test_save_and_load_costs_that_the_user_gave(tmp_path):
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="a")(image)
    x = layers.EinsumDense("abcd,de->abce", (6, 6, 5), name="odd")(x)
    x = layers.Conv2D(4, 3, activation="relu", name="last")(x)
    backbone = keras.Model(image, x)
    message = error_of(epnet_tf.EPNet, backbone, 3, exits=["a"])
    assert "'odd'" in message
    model = epnet_tf.EPNet(backbone, 3, exits=["a"], layer_macs={"odd": 720})
    assert model.exit_costs.full == 36 * 27 * 4 + 720 + 16 * 45 * 4 + 12
    assert_saved(model, tmp_path, np.ones((2, 8, 8, 3), "float32"))


def test_beta_survives_saving_exactly(tmp_path):
    model = small_epnet()
    epnet_tf.ControllerTrainer(model, beta=5e-7)
    assert model.beta == 5e-7
    assert assert_saved(model, tmp_path, small_images(2)[0]).beta == 5e-7


@pytest.mark.parametrize(
    "imports", ["epnet_tf, keras", "keras, epnet_tf", "epnet_tf.model, keras"]
)
def test_load_in_a_process_that_only_imports_epnet_tf(tmp_path, imports):
    model = small_epnet()
    images, _ = small_images(6)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    script = (
        f"import {imports}, numpy, sys\n"
        "model = keras.saving.load_model(sys.argv[1] + '/model.keras')\n"
        "answer = model.classify(numpy.load(sys.argv[1] + '/images.npy'))\n"
        "numpy.save(sys.argv[1] + '/labels.npy', answer.probabilities)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "labels.npy"),
        model.classify(images).probabilities,
        rtol=1e-4,
    )


def test_configuration_round_trip():
    model = small_epnet(beta=1e-6)
    config = model.get_config()
    again = epnet_tf.EPNet.from_config(config)
    assert model.get_config() == config
    assert again.exit_layers == model.exit_layers
    again.set_weights(model.get_weights())
    images, _ = small_images(3)
    np.testing.assert_allclose(
        again(images)["stop_02"], model(images)["stop_02"], rtol=1e-5
    )


def test_a_copy_leaves_the_model_whole(tmp_path):
    model = small_epnet()
    epnet_tf.EPNet.from_config(model.get_config())
    assert_saved(model, tmp_path, small_images(2)[0])


# Errors


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"beta": -1e-7}, "beta=-1e-07"),
        ({"beta": float("nan")}, "beta=nan"),
        ({"beta_range": (1e-6, 1e-7)}, "beta_range=(1e-06, 1e-07)"),
        ({"beta_range": (0.0, 1e-7)}, "beta_range=(0.0, 1e-07)"),
        ({"beta_range": (1e-7, float("inf"))}, "beta_range=(1e-07, inf)"),
    ],
)
def test_wrong_betas(arguments, said):
    assert said in error_of(small_epnet, **arguments)
