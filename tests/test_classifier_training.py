"""Stage one, as Keras users know it: compile, fit, save."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from small_models import small_backbone, small_epnet, small_images

import epnet_tf
from epnet_tf.training.classifiers import depth_weights, gradient_shares

IMAGES, LABELS = small_images()


def trainer_for(model, optimizer=None, exit_weights=None, **compile_arguments):
    trainer = epnet_tf.ClassifierTrainer(model, exit_weights)
    # XLA takes longer to compile than such a model to train.
    compile_arguments = {"jit_compile": False, **compile_arguments}
    trainer.compile(optimizer or keras.optimizers.SGD(0.01), **compile_arguments)
    return trainer


def evaluated(trainer, images=IMAGES, labels=LABELS, **kwargs):
    return trainer.evaluate(images, labels, 16, verbose=0, return_dict=True, **kwargs)


def cross_entropies(model):
    """The cross-entropy of each image at each exit, in NumPy."""
    outputs = model.predict(IMAGES, verbose=0)
    losses = []
    for i in range(1, model.num_exits + 1):
        z = outputs[f"logits_{i:02d}"].astype("float64")
        log_sum = np.log(np.exp(z).sum(axis=1))
        losses.append(log_sum - z[np.arange(len(z)), LABELS])
    return np.array(losses)


def test_loss_is_the_sum_of_the_cross_entropies():
    model = small_epnet()
    found = evaluated(trainer_for(model))
    expected = cross_entropies(model).sum(axis=0).mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    states = epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)
    assert found["accuracy"] == pytest.approx(states.correct[:, -1].mean())
    assert found["exits_accuracy"] == pytest.approx(states.correct.mean())


def test_depth_weights():
    assert depth_weights(4, 0) == [1, 1, 1, 1]
    np.testing.assert_allclose(depth_weights(4, 1), [0.4, 0.8, 1.2, 1.6])
    np.testing.assert_allclose(depth_weights(3, 2), np.array([3, 12, 27]) / 14)


def test_exit_weights():
    model = small_epnet()
    found = evaluated(trainer_for(model, exit_weights=[0.5, 0.0, 2.0]))
    expected = np.array([0.5, 0, 2]) @ cross_entropies(model).mean(axis=1)
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match=r"Expected 3 exit_weights.*Received: 2"):
        epnet_tf.ClassifierTrainer(model, [1.0, 2.0])


def test_equilibrium_shares_a_layer_among_the_exits_behind_it():
    shares = gradient_shares(epnet_tf.ClassifierTrainer(small_epnet()).main_branch)
    assert shares["block1_conv1"] == pytest.approx(1 / 3)
    assert shares["block1_conv2"] == shares["block2_conv1"] == 1 / 2
    assert shares["block2_conv2"] == shares["block3_conv2"] == 1


def test_a_step_in_equilibrium():
    """Main branches move by their share of the plain sum's step, heads all the way."""
    moved = []
    for equilibrium in (False, True):
        model = small_epnet()
        trainer = epnet_tf.ClassifierTrainer(model, equilibrium=equilibrium)
        trainer.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        layers_ = ("block1_conv1", "block2_conv1", "block3_conv2", "logits_01")
        before = [model.get_layer(name).get_weights()[0] for name in layers_]
        trainer.train_on_batch(IMAGES, LABELS)
        after = [model.get_layer(name).get_weights()[0] for name in layers_]
        moved.append([b - a for a, b in zip(before, after, strict=True)])
    for plain, balanced, share in zip(*moved, (1 / 3, 1 / 2, 1, 1), strict=True):
        np.testing.assert_allclose(balanced, share * plain, rtol=1e-3, atol=1e-7)
        assert np.abs(plain).max() > 1e-4


def test_sample_weights():
    model = small_epnet()
    weights = np.linspace(0, 2, len(IMAGES))
    found = evaluated(trainer_for(model), sample_weight=weights)
    expected = (cross_entropies(model).sum(axis=0) * weights).mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_labels_of_every_form_and_data_of_every_kind():
    model = small_epnet()
    trainer = trainer_for(model)
    expected = evaluated(trainer)
    for labels in (LABELS[:, None], np.eye(3)[LABELS]):
        found = evaluated(trainer_for(model), labels=labels)
        assert found == pytest.approx(expected, rel=1e-5)
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(16)
    found = trainer.evaluate(batches, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)


def test_regularizers_of_the_backbone_count_once():
    image = keras.Input((12, 12, 1))
    regularizer = keras.regularizers.L2(0.1)
    x = layers.Conv2D(4, 3, kernel_regularizer=regularizer, name="conv")(image)
    backbone = keras.Model(image, layers.ReLU()(x))
    model = epnet_tf.EPNet(backbone, 3, preprocessing=layers.Rescaling(1 / 255))
    penalty = 0.1 * (backbone.get_layer("conv").get_weights()[0] ** 2).sum()
    expected = cross_entropies(model).sum(axis=0).mean() + penalty
    assert evaluated(trainer_for(model))["loss"] == pytest.approx(expected, rel=1e-4)


def test_training_learns_with_callbacks_and_validation_data():
    trainer = trainer_for(small_epnet(), keras.optimizers.Adam(0.01))
    epochs = []
    history = trainer.fit(
        IMAGES,
        LABELS,
        batch_size=16,
        epochs=8,
        validation_data=small_images(seed=1),
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda e, logs: epochs.append(e)
            )
        ],
        verbose=0,
    ).history
    assert epochs == list(range(8))
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["accuracy"][-1] > 0.8
    assert {"val_loss", "val_accuracy", "val_exits_accuracy"} <= set(history)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", "sparse_categorical_crossentropy"),
        ("loss_weights", [1.0]),
        ("metrics", ["accuracy"]),
        ("weighted_metrics", ["accuracy"]),
    ],
)
def test_a_loss_and_metrics_of_ones_own_are_refused(name, value):
    model = small_epnet(exits=["block1_relu1"])
    trainers = (
        epnet_tf.ClassifierTrainer(model),
        epnet_tf.ControllerTrainer(model, 1e-5),
        epnet_tf.training.ControllerSweep(model, [1e-5]),
    )
    for trainer in trainers:
        with pytest.raises(ValueError) as raised:
            trainer.compile("sgd", **{name: value})
        assert str(raised.value) == (
            f"Expected compile without {name}: {type(trainer).__name__} has its own "
            f"loss and metrics. Received: {name}={value!r}."
        )


def test_compile_takes_what_else_keras_takes():
    trainer = epnet_tf.ClassifierTrainer(small_epnet(exits=["block1_relu1"]))
    trainer.compile(steps_per_execution=3, run_eagerly=True)
    assert isinstance(trainer.optimizer, keras.optimizers.RMSprop)
    assert trainer.steps_per_execution == 3 and trainer.run_eagerly


@pytest.mark.parametrize("monitor", ["val_accuracy", "val_exits_accuracy", "val_loss"])
def test_callbacks_know_which_way_is_better(monitor, tmp_path):
    """The best of three epochs is the second, before and after which signs turn."""
    trainer = trainer_for(small_epnet(exits=["block1_relu1"]), "adam")
    trainer.optimizer.learning_rate = 0.01
    for layer in trainer.model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.5  # it is right after few steps
    trainer.fit(IMAGES, LABELS, 16, epochs=8, verbose=0)
    heads = [trainer.model.get_layer(f"logits_{i:02d}") for i in (1, 2)]

    def turn(epoch, logs=None):
        for weight in [w for head in heads for w in head.weights] if epoch else ():
            weight.assign(-weight)

    turn(1)
    trainer.optimizer.learning_rate = 0.0
    saved = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5", monitor, save_weights_only=True,
        save_best_only=True,
    )  # fmt: skip
    stopping = keras.callbacks.EarlyStopping(monitor, patience=9)
    plateau = keras.callbacks.ReduceLROnPlateau(monitor, patience=9)
    turning = keras.callbacks.LambdaCallback(on_epoch_begin=turn)
    history = trainer.fit(
        IMAGES,
        LABELS,
        16,
        3,
        0,  # silent; callbacks by position, as in Keras
        [turning, saved, stopping, plateau],
        validation_data=(IMAGES, LABELS),
    ).history
    assert stopping.best_epoch == 1
    trainer.load_weights(tmp_path / "best.weights.h5")
    found = evaluated(trainer)[monitor.removeprefix("val_")]
    assert found == pytest.approx(history[monitor][1], rel=1e-4)
    assert found != pytest.approx(history[monitor][2], rel=1e-2)
    assert plateau.mode == stopping.mode == ("min" if "loss" in monitor else "max")


def test_a_mode_that_is_given_stays_and_other_metrics_are_kerass_matter():
    trainer = trainer_for(small_epnet(exits=["block1_relu1"]))
    given = keras.callbacks.EarlyStopping("val_accuracy", mode="min")
    other = keras.callbacks.EarlyStopping("val_precision")
    callbacks = keras.callbacks.CallbackList([given], True, model=trainer)
    data = {"validation_data": (IMAGES, LABELS), "verbose": 0}
    trainer.fit(IMAGES, LABELS, callbacks=callbacks, **data)
    assert given.mode == "min"
    with pytest.raises(ValueError, match="val_precision"):
        trainer.fit(IMAGES, LABELS, callbacks=other, **data)


def test_controllers_take_no_part():
    model = small_epnet()
    controllers = [model.get_layer(f"controller_{i:02d}") for i in (1, 2)]
    before = [c.get_weights() for c in controllers]
    trainer = trainer_for(model)
    trainer.fit(IMAGES, LABELS, verbose=0)
    for controller, weights in zip(controllers, before, strict=True):
        for a, b in zip(controller.get_weights(), weights, strict=True):
            assert np.array_equal(a, b)
    names = {w.path for w in trainer.trainable_variables}
    assert not any("controller" in name for name in names)
    assert len(names) == len(trainer.states.trainable_variables)


def test_a_frozen_layer_stays_as_it_is():
    model = small_epnet()
    frozen = model.get_layer("block1_conv1")
    frozen.trainable = False
    before = frozen.get_weights()[0]
    trainer_for(model).fit(IMAGES, LABELS, verbose=0)
    assert np.array_equal(before, frozen.get_weights()[0])


@pytest.mark.parametrize("how", ["jit_compile", "run_eagerly"])
def test_compiled_and_eager_give_the_same(how):
    losses = []
    for value in (False, True):
        trainer = trainer_for(small_epnet(exits=["block1_relu1"]), **{how: value})
        history = trainer.fit(
            IMAGES, LABELS, batch_size=24, epochs=2, shuffle=False, verbose=0
        )
        losses.append(history.history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(precision):
    keras.config.set_dtype_policy(precision)
    try:
        model = small_epnet()
        trainer = trainer_for(model, keras.optimizers.Adam(0.01))
        assert model.output["logits_01"].dtype == "float32"
        assert model.get_layer("block1_conv1").compute_dtype == precision[6:]
        scales = isinstance(trainer.optimizer, keras.mixed_precision.LossScaleOptimizer)
        assert scales == (precision == "mixed_float16")
        history = trainer.fit(IMAGES, LABELS, 8, epochs=6, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert history["loss"][0] < 10  # what is reported is not scaled


MIRRORED = """
    import sys
    import numpy as np, tensorflow as tf, keras
    sys.path.insert(0, "tests")
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    import epnet_tf
    from small_models import small_epnet, small_images

    def train(strategy):
        with strategy.scope():
            model = small_epnet(exits=["block1_relu1"])
            # Statistics of half a batch are others than those of the whole.
            for layer in model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False
            first = epnet_tf.ClassifierTrainer(model)
            first.compile(keras.optimizers.SGD(0.01), jit_compile=False)
            second = epnet_tf.ControllerTrainer(model, beta=1e-5)
            for controller in second.controllers:
                controller.get_layer("scaling").trainable = False
            second.compile(keras.optimizers.SGD(1e-4), jit_compile=False)
        images, labels = small_images()
        fit = dict(batch_size=16, epochs=2, shuffle=False, verbose=0)
        losses = first.fit(images, labels, **fit).history["loss"]
        losses += second.fit(images, labels, **fit).history["loss"]
        return losses, model.get_weights()

    one, one_weights = train(tf.distribute.get_strategy())
    two, two_weights = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    np.testing.assert_allclose(one, two, rtol=1e-3)
    for a, b in zip(one_weights, two_weights):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)
    print("equal")
"""


def test_mirrored_strategy_trains_both_stages_as_one_device_does():
    script = textwrap.dedent(MIRRORED)
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert answer.stdout.strip().endswith("equal"), answer.stderr[-2000:]


def test_a_trainer_is_saved_and_loaded(tmp_path):
    trainer = epnet_tf.ClassifierTrainer(
        small_epnet(), exit_weights=[1.0, 2.0, 3.0], equilibrium=True
    )
    trainer.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    trainer.fit(IMAGES, LABELS, verbose=0)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert type(loaded) is epnet_tf.ClassifierTrainer
    assert loaded.exit_weights == (1.0, 2.0, 3.0) and loaded.equilibrium
    assert type(loaded.model) is epnet_tf.EPNet
    assert evaluated(loaded) == pytest.approx(evaluated(trainer), rel=1e-4)
    loaded.fit(IMAGES, LABELS, verbose=0)


def test_fused_batch_normalization_is_kerass():
    from epnet_tf.model.normalization import FusedBatchNormalization

    x = np.random.default_rng(0).normal(3, 2, (32, 6, 6, 4)).astype("float32")
    ours, theirs = FusedBatchNormalization(), layers.BatchNormalization()
    for training in (True, True, False):
        a, b = ours(x, training=training), theirs(x, training=training)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5)


def test_fused_batch_normalization_keeps_the_unbiased_variance():
    """With n values of a channel in a batch, n / (n - 1) times what Keras keeps."""
    from epnet_tf.model.normalization import FusedBatchNormalization

    x = np.random.default_rng(0).normal(3, 2, (2, 2, 2, 4)).astype("float32")
    ours, theirs = (
        kind(momentum=0.0)
        for kind in (FusedBatchNormalization, layers.BatchNormalization)
    )
    outputs = [layer(x, training=True) for layer in (ours, theirs)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
    variance = x.var(axis=(0, 1, 2))
    np.testing.assert_allclose(theirs.moving_variance, variance, rtol=1e-4)
    np.testing.assert_allclose(ours.moving_variance, variance * 8 / 7, rtol=1e-4)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)


def test_weights_of_the_backbone_are_trained_in_place():
    backbone = small_backbone()
    before = backbone.get_layer("block1_conv1").get_weights()[0]
    model = epnet_tf.EPNet(backbone, 3, exits=["block1_relu1"])
    trainer_for(model).fit(IMAGES, LABELS, verbose=0)
    assert not np.array_equal(
        before, backbone.get_layer("block1_conv1").get_weights()[0]
    )
