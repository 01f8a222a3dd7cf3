"""Both stages on a small data set of one's own, in one folder."""

import dataclasses
import json
import os
import shutil

import keras
import numpy as np
import pytest
from keras import layers
from small_models import small_backbone, small_epnet, small_images

import epnet_tf
from epnet_tf import data
from epnet_tf.evaluation import reports
from epnet_tf.experiments import case, experiment, stage_one
from epnet_tf.experiments import config as config_module
from epnet_tf.experiments.checkpoint import Checkpoint
from epnet_tf.model import PaperClassifier

BETAS = (1e-4, 1.5e-4)


def write_inputs(folder):
    """A data set of 3 classes and a backbone for it; their files."""
    x_train, y_train = small_images(120, seed=0)
    x_test, y_test = small_images(40, seed=1)
    file = folder / "bright.npz"
    np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    image = keras.Input((12, 12, 1))
    x = layers.Rescaling(1 / 255)(image)
    small_backbone_ = small_backbone(widths=(4, 8))
    keras.Model(image, small_backbone_(x)).save(folder / "backbone.keras")
    return str(file), str(folder / "backbone.keras")


def config_for(inputs, betas=BETAS, **changes):
    dataset, backbone = inputs
    schedule = {"epochs": 2, "batch_size": 16, "controller_epochs": 2, **changes}
    schedule = experiment.schedule_for(dataset, backbone=backbone, **schedule)
    return experiment.Config(dataset, schedule, betas)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """A whole experiment: its folder and what `run` returned."""
    workdir = tmp_path_factory.mktemp("runs") / "new" / "workdir"
    return workdir, experiment.run(config_for(inputs), workdir, verbose=0)


def test_files(finished):
    workdir, _ = finished
    assert {p.name for p in workdir.iterdir()} == {
        "config.json",
        "metrics.json",
        "classifiers.keras",
        "exits.png",
        "logs",
        "beta-0.0001",
        "beta-0.00015",
    }
    assert list((workdir / "logs").rglob("events.out.*"))


def test_models_are_for_their_beta(finished):
    workdir, _ = finished
    for beta in BETAS:
        model = keras.saving.load_model(experiment.model_file(workdir, beta))
        assert model.beta == beta


@pytest.mark.parametrize(
    "beta, folder", [(5e-7, "beta-5e-07"), (1e-6, "beta-1e-06"), (0.0, "beta-0")]
)
def test_folders_of_beta(tmp_path, beta, folder):
    file = experiment.model_file(tmp_path, beta)
    assert file == tmp_path / folder / "model.keras"


def test_models_of_two_betas_are_in_two_folders(inputs):
    config_for(inputs, betas=(1e-6, 1e-6, 1.00001e-6))
    with pytest.raises(ValueError, match="first six digits"):
        config_for(inputs, betas=(1e-6, 1.0000001e-6))


def test_config_and_metrics(finished, inputs):
    workdir, returned = finished
    metrics = json.loads((workdir / "metrics.json").read_text())
    config = json.loads((workdir / "config.json").read_text())
    assert metrics == returned
    assert config.pop("files") == data.fingerprint(inputs[0])
    assert config == config_for(inputs).as_json() == metrics["settings"]
    assert config["schedule"]["epochs"] == 2 and config["betas"] == list(BETAS)
    assert set(metrics["policies"]) == {
        "epnet", "softmax-per-exit", "softmax-gate-tuned", "static", "resnet",
    }  # fmt: skip
    for rows in metrics["policies"].values():
        for beta, row in zip(BETAS, rows, strict=True):
            benefit = 100 * row["accuracy"] - beta * row["mean_cost"]
            assert row["beta"] == beta and row["seeds"] == 1
            assert row["benefit"] == pytest.approx(benefit)
            assert sum(row["exit_rates"]) == pytest.approx(1)
    macs = [e["cumulative_macs"] for e in metrics["exits"]]
    assert len(macs) >= 2 and macs == sorted(macs)
    assert all(0 <= e["accuracy"] <= 1 for e in metrics["exits"])


def test_metrics_are_what_the_saved_models_do_on_test_images(finished, inputs):
    workdir, metrics = finished
    test = data.load_dataset(inputs[0]).test
    for i, beta in enumerate(BETAS):
        model = keras.saving.load_model(experiment.model_file(workdir, beta))
        prediction = model.classify(test.images)
        choice = metrics["shipped"][i]
        assert choice["beta"] == beta == model.beta
        assert (model.confidence is None) == (choice["policy"] == "epnet")
        row = metrics["policies"][choice["policy"]][i]
        assert row["accuracy"] == pytest.approx(
            (prediction.label == test.labels).mean()
        )
        assert row["mean_cost"] == pytest.approx(prediction.macs.mean())
    resnet = metrics["policies"]["resnet"][0]
    assert resnet["mean_cost"] == metrics["full_macs"]


def test_what_promises_alone_asked_for_is_evaluated_at_their_betas(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "workdir")
    settings = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(settings | {"betas": []}))
    assert case.load_case(workdir, verbose=0).plan.betas == BETAS


def test_the_table_tells_wins_and_losses(finished):
    table = reports.table(finished[1])
    for name in (
        "epnet",
        "softmax-per-exit",
        "softmax-gate-tuned",
        "static",
        "resnet",
        "multiply-adds",
    ):
        assert name in table
    assert table.count("wins against") + table.count("LOSES against") == len(BETAS)
    assert table.count("100.0%") >= len(BETAS)


def test_a_second_run_returns_at_once(finished, inputs, monkeypatch):
    workdir, metrics = finished

    def never(*_):
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(data, "load_dataset", never)
    assert experiment.run(config_for(inputs), workdir, verbose=0) == metrics


def test_other_files_than_it_was_begun_with(finished, inputs, tmp_path):
    """Some that it has learned from would be held out, to test it on."""
    file, workdir = tmp_path / "bright.npz", tmp_path / "workdir"
    shutil.copy(inputs[0], file)
    config = config_for((str(file), inputs[1]))
    shutil.copytree(finished[0], workdir)
    begun = config.as_json() | {"files": data.fingerprint(file)}
    (workdir / "config.json").write_text(json.dumps(begun))
    assert experiment.run(config, workdir, verbose=0) == finished[1]
    x, y = small_images(121, seed=0)
    np.savez(file, x_train=x, y_train=y, x_test=x[:40], y_test=y[:40])
    for again in (config, dataclasses.replace(config, betas=(1e-5,))):
        with pytest.raises(ValueError, match=r"bright\.npz.*added, removed or changed"):
            experiment.run(again, workdir, verbose=0)
    with pytest.raises(ValueError, match=r"bright\.npz.*added, removed or changed"):
        case.load_case(workdir, verbose=0)


def test_a_model_is_not_measured_on_what_it_has_learned_from(inputs, tmp_path):
    file, model = tmp_path / "bright.npz", tmp_path / "run" / "beta-1" / "model.keras"
    shutil.copy(inputs[0], file)
    check, given = config_module.check_as_trained, (str(file), 0, False)
    check(model, *given)  # Nothing is known of it.
    config = config_for((str(file), inputs[1]))
    settings = config.as_json() | {"files": data.fingerprint(file)}
    model.parent.mkdir(parents=True)
    (model.parents[1] / "config.json").write_text(json.dumps(settings))
    (model.parent / "config.json").write_text("{}")  # Of something else.
    check(model, *given)
    # However its place is spelled.
    for name in (str(file), os.path.relpath(file), f"{tmp_path}/./bright.npz"):
        with pytest.raises(ValueError, match=r"Expected seed=0, as .*Received: seed=1"):
            check(model, name, 1, False)
    with pytest.raises(ValueError, match=r"Expected crop=False.*Received: crop=True"):
        check(model, str(file), 0, True)
    check(model, "cifar10", 1, True)
    file.write_bytes(b"others")
    with pytest.raises(ValueError, match=r"bright\.npz.*added, removed or changed"):
        check(model, *given)


def test_states_of_exits_that_are_chosen_anew_do_not_stay(
    inputs, tmp_path, monkeypatch
):
    """A run killed while it stores states, begun again for another beta."""
    config = config_for(inputs, exits="auto:2")
    (tmp_path / "config.json").write_text(json.dumps(config.as_json()))
    (tmp_path / "states" / "train").mkdir(parents=True)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "_first_stage", killed)
    for betas, stay in ((BETAS, True), ((1e-5,), False)):
        with pytest.raises(KeyboardInterrupt):
            again = dataclasses.replace(config, betas=betas)
            experiment.run(again, tmp_path, verbose=0)
        assert (tmp_path / "states").exists() == stay


def test_workers_take_the_exits_that_their_chief_has_chosen(
    inputs, tmp_path, monkeypatch
):
    model = small_epnet()
    model.with_exits(["block2_relu1"]).save(tmp_path / "classifiers.keras")
    monkeypatch.setattr(experiment, "trained_classifiers", lambda *_: model)
    monkeypatch.setattr(experiment, "is_chief", lambda _: False)
    config = config_for(inputs, exits="auto:2")
    found = experiment._first_stage(config, None, tmp_path, 0, None, None)
    assert found.exit_layers == ("block2_relu1", model.exit_layers[-1])


def test_one_validation_image_is_told_before_anything_is_trained(inputs, tmp_path):
    (x, y), file = small_images(19, seed=0), tmp_path / "few.npz"
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    config = config_for((str(file), inputs[1]), batch_size=8)
    with pytest.raises(ValueError, match=r"2 validation images.*: 1 for few"):
        experiment.run(config, tmp_path / "workdir", verbose=0)
    assert not (tmp_path / "workdir").exists()


def test_what_a_kill_in_the_last_moment_left_goes(finished, inputs, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "workdir")
    names = {p.name for p in workdir.iterdir()}
    (workdir / "states" / "train").mkdir(parents=True)
    (workdir / "classifiers.weights.h5").write_text("")
    assert experiment.run(config_for(inputs), workdir, verbose=0) == finished[1]
    dataset = data.load_dataset(inputs[0])
    experiment.trained_classifiers(config_for(inputs), dataset, workdir, verbose=0)
    assert {p.name for p in workdir.iterdir()} == names


@pytest.mark.parametrize("change", [{"epochs": 3}, {"learning_rate": 0.5}])
def test_another_stage_one_in_the_same_folder(finished, inputs, change):
    workdir, metrics = finished
    with pytest.raises(ValueError) as raised:
        experiment.run(config_for(inputs, **change), workdir, verbose=0)
    (key, value), message = *change.items(), str(raised.value)
    assert f"{key}={value}" in message and str(workdir) in message
    assert "\n" not in message and len(message) < 400
    assert json.loads((workdir / "metrics.json").read_text()) == metrics


def test_folders_of_before_a_choice_go_on(finished, inputs, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    config = json.loads((workdir / "config.json").read_text())
    del config["schedule"]["recompose"], config["schedule"]["exit_weight_power"]
    (workdir / "config.json").write_text(json.dumps(config))
    found = experiment.run(config_for(inputs), workdir, verbose=0)
    assert found["settings"] == finished[1]["settings"]


def test_other_betas_and_seeds_in_the_same_folder(inputs, finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "copy")
    before = (workdir / "classifiers.keras").stat().st_mtime_ns
    config = config_for(inputs, betas=(1e-5,), controller_epochs=1)
    config = dataclasses.replace(config, controller_seeds=2)
    metrics = experiment.run(config, workdir, verbose=0)
    assert (workdir / "classifiers.keras").stat().st_mtime_ns == before
    (row,) = metrics["policies"]["epnet"]
    assert row["beta"] == 1e-5 and row["seeds"] == 2
    assert (workdir / "beta-1e-05" / "model.keras").exists()


def test_what_is_saved_is_in_float32(inputs, tmp_path):
    config = dataclasses.replace(
        config_for(inputs, betas=BETAS[:1]), precision="mixed_float16"
    )
    experiment.run(config, tmp_path, verbose=0)
    assert keras.config.dtype_policy().name == "float32"
    model = keras.saving.load_model(tmp_path / "classifiers.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_a_training_that_fails_leaves_the_processs_precision(
    inputs, tmp_path, monkeypatch
):
    def failing(*_, **__):
        assert keras.config.dtype_policy().name == "mixed_float16"
        raise KeyboardInterrupt

    monkeypatch.setattr(stage_one, "fit_distributed", failing)
    config = dataclasses.replace(config_for(inputs), precision="mixed_float16")
    with pytest.raises(KeyboardInterrupt):
        experiment.trained_classifiers(
            config, data.load_dataset(inputs[0]), tmp_path, verbose=0
        )
    assert keras.config.dtype_policy().name == "float32"


def test_exits_are_weighted_by_their_depth(inputs, tmp_path):
    """Where only the last exit counts, the first one's classifier stays as it began."""
    config = config_for(inputs, exit_weight_power=200.0, weight_decay=0.0)
    dataset = data.load_dataset(inputs[0])
    keras.utils.set_random_seed(config.seed)
    before = experiment.build_model(inputs[1], dataset)
    after = experiment.trained_classifiers(config, dataset, tmp_path, verbose=0)
    first, last = (
        np.not_equal(*(m.get_layer(name).get_weights()[0] for m in (before, after)))
        for name in ("logits_01", f"logits_{after.num_exits:02d}")
    )
    assert not first.any() and last.any()


def test_going_on_from_a_network_of_ours(inputs, tmp_path):
    dataset, first = data.load_dataset(inputs[0]), tmp_path / "first.keras"
    paper = experiment.build_model(
        "resnet10", dataset, exits=3, classifier=PaperClassifier()
    )
    paper.save(first)
    model = experiment.build_model("resnet10", dataset, str(first), exits=3)
    last = f"logits_{model.num_exits:02d}"
    for name in ("block2_conv1", "block5_bn2", "normalization", last):
        for a, b in zip(
            *(m.get_layer(name).get_weights() for m in (model, paper)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    darker = data.Split(dataset.train.images // 2, dataset.train.labels)
    darker = dataclasses.replace(dataset, train=darker)
    model = experiment.build_model("resnet10", darker, str(first), exits=3)
    # Its weights are for images that are scaled as they were.
    pixels = dataset.test.images.astype("float32")
    np.testing.assert_array_equal(
        model.preprocessing(pixels), paper.preprocessing(pixels)
    )
    with pytest.raises(ValueError, match=r"Expected as weights a \.keras file.*absent"):
        experiment.build_model("resnet10", dataset, "absent.keras")
    with pytest.raises(ValueError, match="Expected as weights an EPNet with the main"):
        experiment.build_model("densenet", dataset, str(first))


@pytest.mark.parametrize("exits", [[1, 3], [0, 3], [0, 1, 2, 3]])
def test_some_exits_of_a_network_of_ours_keep_their_heads(inputs, tmp_path, exits):
    dataset, first = data.load_dataset(inputs[0]), tmp_path / "first.keras"
    places = [f"block{i}_relu2" for i in (1, 2, 3, 5)]
    source = experiment.build_model("resnet10", dataset, exits=places)
    source.save(first)
    chosen = [places[i] for i in exits]
    model = experiment.build_model("resnet10", dataset, str(first), exits=chosen)
    assert len(model.exit_layers) == len(exits)
    for number, of_source in enumerate(exits, start=1):
        kinds = ["logits"] + ["controller"] * (number < len(exits))
        for kind in kinds:
            ours = model.get_layer(f"{kind}_{number:02d}").get_weights()
            theirs = source.get_layer(f"{kind}_{of_source + 1:02d}").get_weights()
            assert len(ours) == len(theirs) > 0
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a, b)


def test_an_exit_that_the_network_of_ours_has_not_begins_anew(inputs, tmp_path):
    dataset, first = data.load_dataset(inputs[0]), tmp_path / "first.keras"
    source = experiment.build_model("resnet10", dataset, exits=["block1_relu2"])
    source.save(first)
    exits = ["block2_relu2"]
    model = experiment.build_model("resnet10", dataset, str(first), exits=exits)
    a, b = (m.get_layer("logits_01").get_weights()[0] for m in (source, model))
    assert not np.array_equal(a, b)
    last = [m.get_layer("logits_02").get_weights() for m in (source, model)]
    for a, b in zip(*last, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_papers_backbone_normalizes_within():
    split = data.Split(small_images(20)[0], small_images(20)[1].astype("int32"))
    dataset = data.Dataset("small", ("a", "b", "c"), split, split, split)
    model = experiment.build_model("resnet10", dataset, exits=2)
    (normalization,) = (x for x in model.layers if isinstance(x, layers.Normalization))
    normal = np.asarray(normalization(split.images.astype("float32")))
    assert normal.mean() == pytest.approx(0, abs=1e-3)
    assert normal.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"backbone": "resnet99"}, "'resnet99'"),
        ({"backbone": "missing.keras"}, "'missing.keras'"),
        ({"batch_size": 5000}, "5000"),
        ({"exits": "block2_relu2"}, "exits=block2_relu2"),
        ({"recompose": True}, "recompose=True for bright"),
    ],
)
def test_bad_input_leaves_nothing(inputs, tmp_path, change, said):
    schedule = experiment.schedule_for("npz", **{"backbone": inputs[1], **change})
    workdir = tmp_path / "workdir"
    with pytest.raises(ValueError) as raised:
        experiment.run(experiment.Config(inputs[0], schedule, BETAS), workdir)
    assert said in str(raised.value) and not workdir.exists()


def test_a_backbone_for_other_images(inputs, tmp_path):
    keras.Model(*[keras.Input((8, 8, 1))] * 2).save(tmp_path / "other.keras")
    config = config_for((inputs[0], str(tmp_path / "other.keras")))
    with pytest.raises(ValueError, match=r"shape \[12, 12, 1\].*for \[8, 8, 1\]"):
        experiment.run(config, tmp_path / "workdir", verbose=0)


def test_checkpoint_of_half_the_training_goes_on_as_if_whole(inputs, tmp_path):
    dataset = data.load_dataset(inputs[0])
    train, steps = dataset.train, data.steps_per_epoch(dataset.train, 16)

    def train_until(epochs, file):
        keras.utils.set_random_seed(0)
        model = experiment.build_model(inputs[1], dataset)
        trainer = epnet_tf.ClassifierTrainer(model)
        trainer.compile(keras.optimizers.SGD(0.01, momentum=0.9))
        checkpoint = Checkpoint(tmp_path / file, steps)
        begin = checkpoint.restore(trainer)
        trainer.fit(
            data.training_pipeline(train, 16, 0, begin),
            steps_per_epoch=steps,
            initial_epoch=begin,
            epochs=epochs,
            callbacks=[checkpoint],
            verbose=0,
        )
        return begin, model.get_weights()

    _, whole = train_until(4, "whole.weights.h5")
    assert train_until(2, "halves.weights.h5")[0] == 0
    begin, halves = train_until(4, "halves.weights.h5")
    assert begin == 2
    for a, b in zip(whole, halves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_steps_that_loss_scaling_left_out_are_no_epochs_left_out(tmp_path):
    trainer = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    trainer.compile(keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD()))
    checkpoint = Checkpoint(tmp_path / "c.weights.h5", steps_per_epoch=10)
    checkpoint.restore(trainer)
    trainer.optimizer.inner_optimizer.iterations.assign(27)  # of 30
    checkpoint.set_model(trainer)
    checkpoint.on_epoch_end(2)
    assert checkpoint.restore(trainer) == 3
