"""Stage two on images and on states: the exact objective through Keras's fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import small_epnet, small_images

import epnet_tf
from epnet_tf import objective, policies

IMAGES, LABELS = small_images()
BETA = 1e-4
BETA_RANGE = (1e-5, 1e-3)


def trainer_for(model, beta=BETA, optimizer=None, **compile_arguments):
    trainer = epnet_tf.ControllerTrainer(model, beta)
    # XLA takes longer to compile than such controllers to train.
    compile_arguments = {"jit_compile": False, **compile_arguments}
    trainer.compile(optimizer or keras.optimizers.Adam(0.01), **compile_arguments)
    return trainer


def states_of(model):
    return epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)


def gradients(trainer, x):
    with tf.GradientTape() as tape:
        y_pred = trainer(x, training=True)
        loss = trainer.compute_loss(x, LABELS, y_pred)
    return np.asarray(loss), tape.gradient(loss, trainer.trainable_weights)


@pytest.mark.parametrize(
    "controller",
    [
        epnet_tf.Controller(units=6, dropout=0.0),
        epnet_tf.PaperController(f_in=(5,), f_cat=(4, 1)),
    ],
    ids=["ours", "paper"],
)
def test_images_and_states_give_the_same_gradients(controller):
    trainer = trainer_for(small_epnet(controller=controller))
    inputs = states_of(trainer.model).inputs
    slow_loss, slow = gradients(trainer, IMAGES)
    fast_loss, fast = gradients(trainer, inputs)
    assert slow_loss == pytest.approx(fast_loss, rel=1e-5)
    assert len(slow) == len(fast) > 0
    for a, b in zip(slow, fast, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert max(np.abs(g).max() for g in slow) > 1e-2


def test_loss_and_metrics_by_hand():
    model = small_epnet()
    found = trainer_for(model).evaluate(IMAGES, LABELS, 16, verbose=0, return_dict=True)
    states, costs = states_of(model), model.exit_costs.with_controllers
    stops = policies.stop_logits(model, states)
    benefits = objective.expected_benefit(stops, states.correct, costs, BETA)
    assert found["loss"] == pytest.approx(-np.mean(benefits), rel=1e-4)
    prediction = model.classify(IMAGES)
    accuracy = (prediction.label == LABELS).mean()
    assert found["accuracy"] == pytest.approx(accuracy)
    assert found["mean_cost"] == pytest.approx(prediction.macs.mean(), rel=1e-5)
    benefit = 100 * accuracy - BETA * prediction.macs.mean()
    assert found["benefit"] == pytest.approx(benefit, rel=1e-4)


@pytest.mark.parametrize("on", ["images", "states"])
def test_main_branch_and_classifiers_stay_bitwise_unchanged(on):
    model = small_epnet()
    trainer = trainer_for(model)
    kept = [v.numpy() for v in trainer.states.variables]
    controllers = [v.numpy() for c in trainer.controllers for v in c.variables]
    x = IMAGES if on == "images" else states_of(model).inputs
    trainer.fit(x, LABELS, batch_size=16, epochs=2, verbose=0)
    for variable, before in zip(trainer.states.variables, kept, strict=True):
        assert np.array_equal(variable.numpy(), before), variable.path
    after = [v.numpy() for c in trainer.controllers for v in c.variables]
    assert sum(not np.array_equal(a, b) for a, b in zip(after, controllers)) > 4  # noqa: B905


def test_training_raises_the_benefit():
    model = small_epnet()
    classifiers = epnet_tf.ClassifierTrainer(model)
    classifiers.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    classifiers.fit(IMAGES, LABELS, batch_size=16, epochs=6, verbose=0)
    trainer = trainer_for(model)
    history = trainer.fit(
        states_of(model).inputs,
        LABELS,
        batch_size=16,
        epochs=30,
        validation_data=(states_of(model).inputs, LABELS),
        verbose=0,
    ).history
    assert set(history) == {
        f"{v}{m}"
        for v in ("", "val_")
        for m in ("loss", "benefit", "accuracy", "mean_cost")
    }
    states, costs = states_of(model), model.exit_costs
    resnet = policies.score(policies.resnet(costs), states).benefit(BETA)
    assert history["val_benefit"][-1] > history["val_benefit"][0]
    assert history["val_benefit"][-1] > resnet


def test_beta_becomes_the_models():
    model = small_epnet()
    trainer = trainer_for(model, beta=3e-7)
    assert model.beta == 3e-7
    trainer.set_beta(1e-3)
    assert model.beta == 1e-3
    dear = trainer.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    trainer.set_beta(0.0)
    free = trainer.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    assert dear["benefit"] < free["benefit"] == pytest.approx(100 * free["accuracy"])


def test_a_high_beta_makes_everyone_leave_early():
    model = small_epnet()
    trainer = trainer_for(model, beta=1.0, optimizer=keras.optimizers.Adam(0.1))
    trainer.fit(states_of(model).inputs, LABELS, 16, epochs=20, verbose=0)
    assert (model.classify(IMAGES).exit == 1).mean() > 0.9


def test_labels_of_every_form_and_data_of_every_kind():
    model = small_epnet()
    trainer, inputs = trainer_for(model), states_of(model).inputs
    expected = trainer.evaluate(IMAGES, LABELS, 16, verbose=0, return_dict=True)
    for x, y in ((IMAGES, np.eye(3)[LABELS]), (inputs, LABELS[:, None])):
        found = trainer_for(model).evaluate(x, y, 16, verbose=0, return_dict=True)
        assert found == pytest.approx(expected, rel=1e-4)
    trainer = trainer_for(model)
    batches = tf.data.Dataset.from_tensor_slices((inputs, LABELS)).batch(16)
    found = trainer.evaluate(batches, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-4)


def test_sample_weights():
    trainer = trainer_for(small_epnet())
    inputs = states_of(trainer.model).inputs
    weights = (np.arange(len(LABELS)) % 2).astype("float32")
    found = trainer.evaluate(
        inputs, LABELS, 48, sample_weight=weights, verbose=0, return_dict=True
    )
    half = {k: v[1::2] for k, v in inputs.items()}
    alone = trainer.evaluate(half, LABELS[1::2], 48, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(alone["loss"] / 2, rel=1e-4)
    assert found["accuracy"] == pytest.approx(alone["accuracy"], rel=1e-4)


@pytest.mark.parametrize("how", ["jit_compile", "run_eagerly"])
def test_compiled_and_eager_give_the_same(how):
    losses = []
    for value in (False, True):
        model = small_epnet(exits=["block1_relu1"])
        trainer = trainer_for(
            model, optimizer=keras.optimizers.SGD(1e-3), **{how: value}
        )
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
        trainer = trainer_for(model)
        history = trainer.fit(IMAGES, LABELS, 16, epochs=6, verbose=0).history
        states = states_of(model)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {m.dtype for m in states.pooled} == {np.dtype("float32")}
    assert states.logits.dtype == np.float32
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


def test_a_model_for_a_range_of_beta():
    model = small_epnet(beta_range=BETA_RANGE)
    trainer = trainer_for(model, beta=None)
    history = trainer.fit(IMAGES, LABELS, 16, epochs=2, verbose=0).history
    names = {f"benefit_{b}" for b in ("1.0e-05", "1.0e-04", "1.0e-03")}
    assert names <= set(history) and np.isfinite(history["loss"]).all()
    betas = np.asarray(trainer(np.repeat(IMAGES, 5, axis=0))["beta"])
    assert BETA_RANGE[0] <= betas.min() < 3e-5 and 3e-4 < betas.max() <= BETA_RANGE[1]
    found = trainer.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    prediction = model.classify(IMAGES, beta=1e-3)
    assert found["mean_cost_1.0e-03"] == pytest.approx(prediction.macs.mean(), rel=1e-3)


@pytest.mark.parametrize(
    ("monitor", "pick"),
    [
        ("val_benefit", np.argmax),
        ("val_accuracy", np.argmax),
        ("val_mean_cost", np.argmin),
        ("val_loss", np.argmin),
    ],
)
def test_callbacks_know_which_way_is_better(monitor, pick):
    trainer = trainer_for(small_epnet(exits=["block1_relu1"]))
    stopping = keras.callbacks.EarlyStopping(monitor, patience=9)
    inputs = states_of(trainer.model).inputs

    def turn(epoch, rate):
        # Towards leaving early, then far the other way.
        for controller in trainer.controllers:
            controller.get_layer("stop").bias.assign([[9.0], [-9.0], [0.0]][epoch])
        return rate

    history = trainer.fit(
        inputs,
        LABELS,
        epochs=3,
        validation_data=(inputs, LABELS),
        callbacks=[stopping, keras.callbacks.LearningRateScheduler(turn)],
        verbose=0,
    ).history
    assert len(set(history["val_mean_cost"])) > 1
    assert stopping.best_epoch == pick(history[monitor])


def test_callbacks_for_a_range_of_beta():
    trainer = trainer_for(small_epnet(beta_range=BETA_RANGE), None)
    stopping = [
        keras.callbacks.EarlyStopping(f"val_{name}_1.0e-04")
        for name in ("benefit", "mean_cost")
    ]
    data = (states_of(trainer.model).inputs, LABELS)
    trainer.fit(*data, validation_data=data, callbacks=stopping, verbose=0)
    assert [callback.mode for callback in stopping] == ["max", "min"]


@pytest.mark.parametrize("beta_range", [None, BETA_RANGE])
def test_a_trainer_is_saved_and_loaded(tmp_path, beta_range):
    trainer = trainer_for(
        small_epnet(beta_range=beta_range), None if beta_range else BETA
    )
    trainer.fit(IMAGES, LABELS, verbose=0)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert type(loaded) is epnet_tf.ControllerTrainer
    assert loaded.model.beta == trainer.model.beta
    a, b = (
        t.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
        for t in (loaded, trainer)
    )
    a.pop("loss"), b.pop("loss")  # β is drawn where there is a range.
    assert a == pytest.approx(b, rel=1e-4)
    loaded.fit(IMAGES, LABELS, verbose=0)


@pytest.mark.parametrize("beta", [-1e-7, float("nan"), None])
def test_wrong_betas(beta):
    with pytest.raises(ValueError, match=f"Received: beta={beta}"):
        epnet_tf.ControllerTrainer(small_epnet(), beta)


def test_a_beta_and_a_range_exclude_each_other():
    with pytest.raises(ValueError, match=r"none with it. Received: beta=1e-05"):
        epnet_tf.ControllerTrainer(small_epnet(beta_range=BETA_RANGE), 1e-5)


def test_a_model_with_one_exit():
    model = small_epnet(exits=())
    with pytest.raises(ValueError, match="2 exits or more"):
        epnet_tf.ControllerTrainer(model, BETA)
    states = epnet_tf.compute_states(model, *small_images(4), verbose=0)
    with pytest.raises(ValueError, match="2 exits or more"):
        epnet_tf.train_controllers(model, states, [BETA])
