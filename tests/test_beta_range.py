"""One set of controllers for every β: training, experiment, conversion, running."""

import dataclasses
import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import small_epnet, small_images
from test_experiment import config_for, write_inputs
from test_train_script import DRIVER
from test_train_script import run as run_command

import epnet_tf
from epnet_tf import policies
from epnet_tf import run as run_script
from epnet_tf.evaluation import curve, reports
from epnet_tf.experiments import experiment
from epnet_tf.training import ControllerSweep
from epnet_tf.training.controllers import draw_betas

BETA_RANGE = (5e-5, 5e-4)
BETAS = (5e-5, 1.5e-4, 5e-4)
IMAGES, LABELS = small_images()
EXITS = ("block1_relu1", "block1_relu2", "block2_relu1")  # 4, 4 and 8 channels


@pytest.fixture(scope="module", params=["ours", "paper"])
def model(request):
    controller = {
        "ours": epnet_tf.Controller(units=6, dropout=0.0),
        "paper": epnet_tf.PaperController(f_in=(5,), f_cat=(4, 1)),
    }[request.param]
    return small_epnet(exits=EXITS, controller=controller, beta_range=BETA_RANGE)


@pytest.fixture(scope="module")
def states(model):
    return epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)


def test_gradients_are_those_of_the_trainer_for_the_same_draw(model, states):
    sweep = ControllerSweep(model)
    sweep.assign()
    trainer = epnet_tf.ControllerTrainer(model, seed=3)
    with tf.GradientTape() as tape:
        y_pred = trainer(states.inputs, training=True)
        one = trainer.compute_loss(states.inputs, LABELS, y_pred)
    alone = tape.gradient(one, [c.trainable_weights for c in trainer.controllers])
    drawn = y_pred["beta"]
    assert len(np.unique(drawn)) == len(states)  # Each image has its own.
    with tf.GradientTape() as tape:
        x = states.inputs | {"beta": drawn}
        stops = sweep(x, training=True)
        loss = sweep.compute_loss(x, states.correct.astype("float32"), stops)
    together = tape.gradient(loss, [s.weight_stack for s in sweep.stacks])
    assert float(loss) == pytest.approx(float(one), rel=1e-4)
    for stack, stacked in zip(sweep.stacks, together, strict=True):
        for place, exit_number in enumerate(stack.exits):
            for a, b in zip(stacked, alone[exit_number - 1], strict=True):
                a = tf.convert_to_tensor(a)  # Sparse, where a stack is one exit.
                np.testing.assert_allclose(a[place], b, rtol=1e-3, atol=1e-4)


def test_gradient_is_that_of_the_mean_expected_benefit():
    """By finite differences, at the β drawn, for one bias."""
    model = small_epnet(exits=EXITS[:1], beta_range=BETA_RANGE)
    states = epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)
    sweep = ControllerSweep(model)
    drawn = np.geomspace(*BETA_RANGE, len(states)).astype("float32")[:, None]
    x, correct = states.inputs | {"beta": drawn}, states.correct.astype("float32")

    def loss():
        return sweep.compute_loss(x, correct, sweep(x, training=False))

    bias = sweep.stacks[0].weight_stack[-1]
    with tf.GradientTape() as tape:
        found = loss()
    exact = float(np.sum(tf.convert_to_tensor(tape.gradient(found, bias.value))))
    values = []
    for step in (0.02, -0.04):
        bias.assign_add(tf.fill(bias.shape, step))
        values.append(float(loss()))
    assert exact == pytest.approx((values[0] - values[1]) / 0.04, rel=2e-2)


def test_each_step_draws_anew_within_the_range():
    model, drawn = small_epnet(exits=EXITS[:1], beta_range=BETA_RANGE), []
    states = epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)

    class Seeing(ControllerSweep):
        def compute_loss(self, x, *args, **kwargs):
            drawn.append(np.array(x["beta"]))
            return super().compute_loss(x, *args, **kwargs)

    sweep = Seeing(model)
    sweep.compile("sgd", run_eagerly=True)
    correct = states.correct.astype("float32")
    sweep.fit(states.inputs, correct, batch_size=24, verbose=0)
    betas = np.concatenate(drawn)
    assert len(np.unique(betas)) == len(betas) == len(states)
    assert betas.min() >= BETA_RANGE[0] and betas.max() <= BETA_RANGE[1]


def test_betas_are_drawn_log_uniformly():
    drawn = draw_betas(20_000, (1e-7, 1e-3), keras.random.SeedGenerator(0))
    place = (np.log10(drawn) + 7) / 4
    assert place.shape == (20_000, 1)
    quantiles = np.linspace(0, 1, 11)
    assert np.quantile(place, quantiles) == pytest.approx(quantiles, abs=0.02)


def test_one_training_serves_both_ends_of_the_range():
    model = small_epnet(exits=EXITS[:1], beta_range=(1e-5, 1e-1))
    # The first exit is right where its logits say so, on half of the images.
    rng, labels = np.random.default_rng(0), np.zeros(64, int)
    logits = np.zeros([64, 2, 3], "float32")
    logits[:32, 0, 0], logits[32:, 0, 1], logits[:, 1, 0] = 5, 1, 5
    states = epnet_tf.ExitStates((rng.random([64, 4], "float32"),), logits, labels)
    epnet_tf.train_controllers(
        model, states, epochs=60, batch_size=16, learning_rate=0.03, verbose=0
    ).assign()
    scores = [policies.score(policies.epnet(model, b), states) for b in (1e-5, 1e-1)]
    assert scores[0].accuracy > 0.9 and scores[0].exit_rates[1] > 0.3
    assert scores[1].exit_rates[0] > 0.9  # There every MAC counts.
    assert model.beta is None


def test_training_is_deterministic():
    model = small_epnet(exits=EXITS[:1], beta_range=BETA_RANGE)
    states = epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)
    answers = []
    for _ in range(2):
        epnet_tf.train_controllers(
            model, states, epochs=2, batch_size=16, verbose=0
        ).assign()
        answers.append(policies.stop_logits(model, states, 1e-4))
    np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-4)


def test_a_model_for_one_beta_needs_betas():
    with pytest.raises(ValueError, match="beta=None, beta_range=None"):
        ControllerSweep(small_epnet())


def test_controllers_are_exchanged_and_nothing_else():
    model = small_epnet(exits=EXITS, beta=1e-4)
    before = model.get_weights()
    twin = model.with_new_controllers(beta_range=BETA_RANGE)
    assert twin.beta_range == BETA_RANGE and twin.beta is None
    assert twin.exit_layers == model.exit_layers
    states = [epnet_tf.compute_states(m, IMAGES, LABELS) for m in (model, twin)]
    np.testing.assert_array_equal(states[0].logits, states[1].logits)
    epnet_tf.train_controllers(twin, states[1], epochs=1, verbose=0).assign()
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert twin.exit_costs.full == model.exit_costs.full


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """A whole experiment with a range: its folder and what `run` returned."""
    workdir = tmp_path_factory.mktemp("runs")
    config = dataclasses.replace(config_for(inputs, BETAS), beta_range=BETA_RANGE)
    return workdir, experiment.run(config, workdir, verbose=0)


def test_files_of_an_experiment(finished):
    workdir, metrics = finished
    names = {path.name for path in workdir.iterdir()}
    assert {"model.keras", "curve.png", "exits.png", "beta-0.00015"} <= names
    assert json.loads((workdir / "metrics.json").read_text()) == metrics
    assert metrics["settings"]["beta_range"] == list(BETA_RANGE)


def test_scores_of_an_experiment(finished, inputs):
    workdir, metrics = finished
    assert set(metrics["policies"]) == {
        *("epnet", "epnet-dedicated", "softmax-per-exit"),
        *("softmax-gate-tuned", "static", "resnet"),
    }  # fmt: skip
    for rows in metrics["policies"].values():
        assert [row["beta"] for row in rows] == list(BETAS)
    assert metrics["curve"]["beta_range"] == list(BETA_RANGE)
    assert set(metrics["curve"]["policies"]) == {
        "epnet", "softmax-per-exit", "softmax-gate-tuned", "static", "resnet",
    }  # fmt: skip
    for rows in metrics["curve"]["policies"].values():
        betas = [row["beta"] for row in rows]
        assert len(betas) == 9 and betas[0] == 5e-5 and betas[-1] == 5e-4
        assert np.diff(np.log(betas)) == pytest.approx(np.log(10) / 8)
    # At both ends the curve and the comparison are of the same controllers.
    assert metrics["curve"]["policies"]["epnet"][0] == metrics["policies"]["epnet"][0]
    model = keras.saving.load_model(workdir / "model.keras")
    assert model.beta_range == BETA_RANGE
    test = epnet_tf.load_dataset(inputs[0]).test
    prediction = model.classify(test.images, beta=BETAS[1])
    assert prediction.label.shape == test.labels.shape


def test_tables_of_an_experiment(finished):
    metrics = finished[1]
    table = reports.table(metrics)
    assert table.count("epnet-dedicated") == 3
    assert table.count("one model for the range against this β alone:") == 3
    assert "against epnet-dedicated" not in table
    lines = curve.table(metrics).splitlines()
    assert len(lines) == 11 and lines[2].split()[0] == "5.0e-05"
    header = (
        "beta epnet accuracy of full softmax-per-exit softmax-gate-tuned static resnet"
    )
    assert lines[1].split() == header.split()


def test_picture_of_the_curve(finished):
    (axes,) = curve.accuracy_against_cost(finished[1]).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {
        "epnet", "softmax-per-exit", "softmax-gate-tuned", "static", "resnet",
    }  # fmt: skip
    rows = finished[1]["curve"]["policies"]["epnet"]
    assert set(lines["epnet"].get_ydata()) == {100 * r["accuracy"] for r in rows}
    x = list(lines["epnet"].get_xdata())
    assert x == sorted(x) and x[-1] == max(r["mean_cost"] for r in rows) / 1e6


def test_a_range_may_be_added_to_a_folder(finished, inputs, tmp_path):
    import shutil

    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    before = (workdir / "classifiers.keras").stat().st_mtime_ns
    config = config_for(inputs, (1e-4,), controller_epochs=1)
    config = dataclasses.replace(config, beta_range=(1e-5, 1e-4))
    experiment.run(config, workdir, verbose=0)
    assert (workdir / "classifiers.keras").stat().st_mtime_ns == before
    model = keras.saving.load_model(workdir / "model.keras")
    assert model.beta_range == (1e-5, 1e-4)


def test_betas_are_within_the_range(inputs):
    with pytest.raises(ValueError, match=r"from 1e-06 to 1e-05.*\[0\.0001\]"):
        dataclasses.replace(config_for(inputs, (1e-4,)), beta_range=(1e-6, 1e-5))


def test_from_keras_file_to_segments(finished, inputs, tmp_path):
    model = keras.saving.load_model(finished[0] / "model.keras")
    dataset = epnet_tf.load_dataset(inputs[0])
    images, labels = dataset.test.images, dataset.test.labels
    for quantization in ("none", "int8"):
        conversion = epnet_tf.convert(
            model,
            dataset.train.images[:32],
            tmp_path / quantization,
            quantization=quantization,
            evaluation_data=(images, labels),
        )
        policy = json.loads((conversion.path / "epnet.json").read_text())["policy"]
        assert policy["beta_range"] == list(BETA_RANGE) and "beta" not in policy
    runner = epnet_tf.SegmentRunner(tmp_path / "none")
    for beta in (*BETAS, BETAS[0]):
        of_model = model.classify(images, beta=beta)
        of_bundle = runner.predict(images, beta)
        assert np.mean(of_model.exit == of_bundle.exit) > 0.95
        np.testing.assert_array_equal(
            of_bundle.macs, model.exit_costs.with_controllers[of_bundle.exit - 1]
        )
    line = run_script.describe(runner, images[0], beta=BETAS[1])
    assert "MACs" in line and "exit" in line
    for beta in (None, 1e-5, 1e-3):
        with pytest.raises(ValueError, match=r"beta from 5e-05 to 0\.0005"):
            run_script.describe(runner, images[0], beta=beta)


def test_wrong_flags(inputs, tmp_path):
    good = [f"--dataset={inputs[0]}", f"--workdir={tmp_path / 'workdir'}"]
    wrong = ["1e-6", "1e-6,1e-5,1e-4", "1e-5,1e-6", "0,1e-6", "a,b", "1e-6,inf"]
    cases = [[*good, f"--beta_range={text}"] for text in wrong]
    cases.append([*good, "--beta_range=1e-6,1e-5", "--beta=1e-4"])
    answer = run_command([sys.executable, "-c", DRIVER, json.dumps(cases)])
    assert "ANSWERS" in answer.stdout, answer.stderr[-2000:]
    answers = json.loads(answer.stdout.split("ANSWERS")[1])
    for named, (code, error) in zip([*wrong, "[0.0001]"], answers, strict=True):
        (line,) = [x for x in error.splitlines() if x.startswith("error: ")]
        assert code == 1 and named in line
    assert not (tmp_path / "workdir").exists()
