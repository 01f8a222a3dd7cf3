"""Controllers for several β side by side: those that each β alone would give."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import small_epnet, small_images

import epnet_tf
from epnet_tf import policies
from epnet_tf.model import ExitStates
from epnet_tf.training import ControllerSweep

IMAGES, LABELS = small_images()
BETAS = (1e-5, 1e-4, 1e-3)
EXITS = ("block1_relu1", "block1_relu2", "block2_relu1")  # 4, 4 and 8 channels
CONTROLLERS = {
    "ours": epnet_tf.Controller(units=6, dropout=0.0),
    "paper": epnet_tf.PaperController(f_in=(5,), f_cat=(4, 1)),
}


@pytest.fixture(scope="module", params=CONTROLLERS)
def model(request):
    return small_epnet(exits=EXITS, controller=CONTROLLERS[request.param])


@pytest.fixture(scope="module")
def states(model):
    return epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)


def stop_logits(model, states, training=False):
    stops = [
        model.get_layer(f"controller_{i:02d}")(
            [pooled, states.logits[:, i - 1]], training=training
        )
        for i, pooled in enumerate(states.pooled, start=1)
    ]
    return np.concatenate(stops, axis=1)


def test_stop_logits_are_those_of_the_controllers(model, states):
    sweep = ControllerSweep(model, BETAS)
    together = np.asarray(sweep(states.inputs))
    assert together.shape == (3, len(states), 3)
    for i in range(3):
        sweep.assign(i)
        np.testing.assert_allclose(
            together[i], policies.stop_logits(model, states), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_gradients_are_those_of_each_beta_alone(model, states, temperature):
    sweep = ControllerSweep(model, BETAS)
    sweep.temperature.assign(temperature)
    correct = states.correct.astype("float32")
    with tf.GradientTape() as tape:
        stops = sweep(states.inputs, training=True)
        loss = sweep.compute_loss(y=correct, y_pred=stops)
    together = tape.gradient(loss, [s.weight_stack for s in sweep.stacks])
    total = 0.0
    for k, beta in enumerate(BETAS):
        sweep.assign(k)
        trainer = epnet_tf.ControllerTrainer(model, beta)
        trainer.temperature.assign(temperature)
        with tf.GradientTape() as tape:
            y_pred = trainer(states.inputs, training=True)
            one = trainer.compute_loss(states.inputs, LABELS, y_pred)
        total += float(one)
        alone = tape.gradient(one, [c.trainable_weights for c in trainer.controllers])
        for stack, stacked in zip(sweep.stacks, together, strict=True):
            for place, exit_number in enumerate(stack.exits):
                for a, b in zip(stacked, alone[exit_number - 1], strict=True):
                    at = k * len(stack.exits) + place
                    np.testing.assert_allclose(a[at], b, rtol=1e-3, atol=1e-4)
    assert float(loss) == pytest.approx(total, rel=1e-4)


def test_training_together_ends_where_training_alone_does(model, states):
    sweep = ControllerSweep(model, BETAS)
    starts = []
    for k in range(3):
        sweep.assign(k)
        starts.append([v.numpy() for v in controller_variables(model)])
    fit = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0}
    sweep.compile(keras.optimizers.SGD(1e-3), jit_compile=False)
    sweep.fit(states.inputs, states.correct.astype("float32"), **fit)
    for k, beta in enumerate(BETAS):
        for variable, start in zip(controller_variables(model), starts[k], strict=True):
            variable.assign(start)
        trainer = epnet_tf.ControllerTrainer(model, beta)
        trainer.compile(keras.optimizers.SGD(1e-3), jit_compile=False)
        trainer.fit(states.inputs, LABELS, **fit)
        alone = [v.numpy() for v in controller_variables(model)]
        sweep.assign(k)
        together = [v.numpy() for v in controller_variables(model)]
        assert any(not np.allclose(a, s) for a, s in zip(alone, starts[k], strict=True))
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)


def controller_variables(model):
    return [
        v
        for i in range(1, model.num_exits)
        for v in model.get_layer(f"controller_{i:02d}").weights
    ]


def test_assign_sets_beta_exactly(model):
    sweep = ControllerSweep(model, (5e-7, 1e-6))
    for i, beta in enumerate((5e-7, 1e-6)):
        sweep.assign(i)
        assert model.beta == beta


def test_train_controllers_is_deterministic_and_takes_dropout():
    model = small_epnet(exits=EXITS, controller=epnet_tf.Controller(6, dropout=0.3))
    states = epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)
    answers = []
    for seed in (0, 0, 1):
        sweep = epnet_tf.train_controllers(
            model, states, BETAS[:2], seed, epochs=3, batch_size=16, verbose=0
        )
        answers.append(np.asarray(sweep(states.inputs)))
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-3, atol=1e-4)
    assert not np.allclose(answers[0], answers[2], rtol=1e-3, atol=1e-4)


def test_a_higher_beta_spends_less():
    model = small_epnet(exits=EXITS)
    states = epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)
    sweep = epnet_tf.train_controllers(
        model, states, (0.0, 1.0), epochs=40, batch_size=16, verbose=0,
        learning_rate=0.03,
    )  # fmt: skip
    spent = []
    for i in range(2):
        sweep.assign(i)
        spent.append(policies.score(policies.epnet(model), states).mean_cost)
    assert spent[1] < spent[0] and spent[1] < 1.2 * model.exit_costs.with_controllers[0]


@pytest.mark.parametrize("betas", [(1e-6, -1e-7), (float("nan"),)])
def test_wrong_betas(betas):
    with pytest.raises(
        ValueError, match=f"Expected beta >= 0. Received: beta={betas[-1]}"
    ):
        ControllerSweep(small_epnet(), betas)


def test_a_beta_and_a_range_exclude_each_other():
    with pytest.raises(ValueError, match=r"beta_range=\(1e-06, 0.0001\)"):
        ControllerSweep(small_epnet(beta_range=(1e-6, 1e-4)), BETAS)
    with pytest.raises(ValueError, match=r"beta=None, beta_range=None"):
        ControllerSweep(small_epnet())


@pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=CONTROLLERS)
def test_one_set_of_controllers_for_a_range_of_beta(controller):
    model = small_epnet(exits=EXITS, controller=controller, beta_range=(1e-6, 1.0))
    states = epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)
    # The last exit is always right, so that going on pays where it costs nothing.
    labels = states.predictions[:, -1]
    states = ExitStates(states.pooled, states.logits, labels)
    sweep = epnet_tf.train_controllers(
        model, states, epochs=40, batch_size=16, learning_rate=0.03, verbose=0
    )
    sweep.assign()
    assert model.beta is None
    inputs = {**states.inputs, "beta": np.full([len(states), 1], 1e-3, "float32")}
    np.testing.assert_allclose(
        sweep(inputs)[0],
        policies.stop_logits(model, states, 1e-3),
        rtol=1e-3,
        atol=1e-4,
    )
    low, high = (
        policies.score(policies.epnet(model, beta), states).mean_cost
        for beta in (1e-6, 1.0)
    )
    assert high < low


# States


def test_states_are_what_the_model_computes():
    model = small_epnet()
    states = epnet_tf.compute_states(model, IMAGES, LABELS[:, None], 20, verbose=0)
    outputs = model.predict(IMAGES, verbose=0)
    assert len(states) == len(IMAGES) and states.labels.shape == (48,)
    assert [m.shape for m in states.pooled] == [(48, 4), (48, 8)]
    assert states.logits.shape == (48, 3, 3)
    for i in range(3):
        np.testing.assert_allclose(
            states.logits[:, i], outputs[f"logits_{i + 1:02d}"], rtol=1e-4, atol=1e-5
        )
    assert states.correct.tolist() == [
        [row.argmax() == label for row in image]
        for image, label in zip(states.logits, LABELS, strict=True)
    ]
    np.testing.assert_allclose(states.probabilities.sum(axis=-1), 1, rtol=1e-5)
    assert set(states.inputs) == {
        "logits_01", "logits_02", "logits_03", "pooled_01", "pooled_02",
    }  # fmt: skip


def test_some_of_the_states():
    logits = np.arange(24, dtype="float32").reshape(4, 2, 3)
    states = ExitStates((np.arange(4.0)[:, None],), logits, np.arange(4))
    some = states.take(np.array([3, 1]))
    assert some.labels.tolist() == [3, 1] and some.pooled[0].tolist() == [[3], [1]]
    assert np.array_equal(some.logits, logits[[3, 1]])
