"""A stage on several devices and in several processes: what it computes, and faults."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import small_epnet, small_images
from test_cluster import free_addresses, tf_config
from test_experiment import write_inputs
from test_train_script import killed_command

import epnet_tf
from epnet_tf import data
from epnet_tf.training import Exploration, fit_distributed

ROOT = pathlib.Path(__file__).parents[1]
WORKER = str(ROOT / "tests" / "distributed_worker.py")
IMAGES, LABELS = small_images()

# Absolute, of weights after 20 steps. Keras takes the synchronized variance as the
# difference of means, and half precision rounds to 1e-3.
TOLERANCE = {"synchronized": 1e-4, "overflow": 2e-3}
CASES = ("classifiers", "controllers", "per replica", "synchronized", "overflow")


def environment(**variables):
    threads = dict.fromkeys(["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"], "1")
    return {**os.environ, **threads, "PYTHONPATH": str(ROOT), **variables}


def started(commands, output, environments=None):
    """Processes whose output goes to files: pipes that nobody reads fill up."""
    processes = []
    for i, command in enumerate(commands):
        with open(f"{output}{i}.out", "w") as out, open(f"{output}{i}.err", "w") as err:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                env=environments[i] if environments else environment(),
                cwd=ROOT,
            )
        processes.append(process)
    return processes


def ended(processes, output, seconds=300):
    """Exit codes, and what was written to stdout and stderr."""
    try:
        codes = [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    texts = [
        [pathlib.Path(f"{output}{i}.{kind}").read_text() for i in range(len(codes))]
        for kind in ("out", "err")
    ]
    return codes, *texts


def workers(commands, output):
    addresses = free_addresses(len(commands))
    environments = [
        environment(TF_CONFIG=tf_config(addresses, index=i))
        for i in range(len(commands))
    ]
    return started(commands, output, environments)


def trained(name, count, cases, folder):
    """What `distributed_worker.py` found: one dict for each process."""
    command = [sys.executable, WORKER, name]
    if name == "mirrored":
        processes = started([[*command, str(count), *cases]], folder / "log")
    else:
        processes = workers([[*command, "1", *cases]] * count, folder / "log")
    codes, outputs, errors = ended(processes, folder / "log")
    assert not any(codes), errors[0][-2000:]
    return [json.loads(output.split("FOUND")[1]) for output in outputs]


def check(found, count, case):
    assert found["replicas"] == count
    assert found["moved"] > 0.05  # Of the weights of one device, that something is.
    assert found["difference"] < TOLERANCE.get(case, 1e-5)
    for name, values in found["expected"].items():
        if not math.isnan(values[0]):
            tolerance = 2e-3 if case == "overflow" else 1e-4
            assert found["history"][name] == pytest.approx(values, rel=tolerance), name
    if case == "overflow":
        # Once an epoch all replicas leave out the step, and halve the scale.
        assert found["steps"] == [18, 18] and found["scales"] == [8192, 8192]


@pytest.mark.parametrize(
    "name, count, cases",
    [
        ("mirrored", 2, ("per replica", "overflow")),
        ("multi_worker", 2, ("classifiers", "controllers")),
        pytest.param("mirrored", 2, CASES, marks=pytest.mark.slow),
        pytest.param("mirrored", 4, CASES, marks=pytest.mark.slow),
        pytest.param("multi_worker", 2, CASES, marks=pytest.mark.slow),
        pytest.param("multi_worker", 4, CASES, marks=pytest.mark.slow),
    ],
)
def test_twenty_steps_are_those_of_one_device(name, count, cases, tmp_path):
    found = trained(name, count, cases, tmp_path)
    for case in cases:
        check(found[0][case], count, case)
        for other in found[1:]:
            # NaN is no NaN's equal, but its text is.
            assert str(other[case]["history"]) == str(found[0][case]["history"])


def trainer(kind=epnet_tf.ClassifierTrainer, *args):
    made = kind(small_epnet(controller=epnet_tf.Controller(6, dropout=0.3)), *args)
    made.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    return made


def batches(size=16, **kwargs):
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(size, **kwargs)


@pytest.mark.parametrize(
    "kind, args",
    [(epnet_tf.ClassifierTrainer, ()), (epnet_tf.ControllerTrainer, (1e-4,))],
)
def test_on_one_device_it_is_fit_to_the_digit(kind, args):
    validation = (IMAGES[:20], LABELS[:20])
    weights, histories = [], []
    for fit in (lambda t, **k: t.fit(batches(), **k), None):
        stage = trainer(kind, *args)
        callbacks = [Exploration()] if args else []
        fit = fit or (lambda t, **k: fit_distributed(t, batches(), **k))
        histories.append(
            fit(
                stage,
                epochs=2,
                validation_data=validation,
                callbacks=callbacks,
                verbose=0,
            )
        )
        weights.append([np.asarray(w) for w in stage.model.weights])
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    first, second = (history.history for history in histories)
    assert first.keys() == second.keys()
    for name in first:
        assert first[name] == pytest.approx(second[name], rel=1e-5)


class Calls(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.names = []

    def on_train_begin(self, logs=None):
        self.names.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.names.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        self.names.append(batch)
        assert logs["loss"] > 0

    def on_test_end(self, logs=None):
        self.names.append("test")

    def on_epoch_end(self, epoch, logs=None):
        self.names.append(sorted(logs)[-1])
        self.model.stop_training = epoch == 2

    def on_train_end(self, logs=None):
        self.names.append("end")


def test_callbacks_hear_what_fit_tells_them():
    calls = Calls()
    fit_distributed(
        trainer(),
        batches(),
        initial_epoch=1,
        epochs=9,
        validation_data=(IMAGES, LABELS),
        callbacks=[calls],
        verbose=0,
    )
    steps = [0, 1, 2, "test", "val_loss"]
    assert calls.names == ["begin", "epoch 1", *steps, "epoch 2", *steps, "end"]


def test_a_wrong_label_is_a_sentence():
    wrong = tf.data.Dataset.from_tensors((IMAGES, LABELS + 7))
    with pytest.raises(ValueError, match="labels"):
        fit_distributed(trainer(), wrong, verbose=0)
    with pytest.raises(ValueError, match="labels"):
        fit_distributed(trainer(), lambda _: wrong, steps_per_epoch=1, verbose=0)
    with pytest.raises(ValueError, match="validation labels"):
        fit_distributed(
            trainer(), batches(), validation_data=(IMAGES, LABELS + 7), verbose=0
        )


def test_an_endless_dataset_needs_steps():
    for endless in (batches().repeat(), lambda _: batches()):
        with pytest.raises(ValueError, match="Expected steps_per_epoch"):
            fit_distributed(trainer(), endless, verbose=0)


def context(worker, workers, replicas):
    return tf.distribute.InputContext(workers, worker, replicas)


def images_of(dataset, count):
    return np.concatenate([x.numpy() for x, _ in dataset.take(count)])


@pytest.mark.parametrize("hosts, replicas", [(2, 2), (1, 4), (2, 4)])
def test_workers_share_the_batches_of_one_device(hosts, replicas):
    indices = np.arange(24, dtype="float32")
    split = data.Split(indices[:, None, None, None], indices.astype("int32"))
    whole = images_of(data.training_pipeline(split, 8, seed=3), 6)[:, 0, 0, 0]
    own, size = replicas // hosts, 8 // replicas
    shares = [
        images_of(
            data.training_pipeline(split, 8, 3, context=context(k, hosts, replicas)),
            6 * own,
        ).reshape(6, own * size)
        for k in range(hosts)
    ]
    np.testing.assert_array_equal(np.concatenate(shares, axis=1).ravel(), whole)


def test_replicas_augment_apart():
    split = data.Split(np.ones((8, 4, 4, 1), "uint8"), np.zeros(8, "int32"))

    def noise(images, seed):
        return images + tf.random.stateless_uniform(tf.shape(images), seed)

    def part(worker):
        made = data.training_pipeline(
            split, 8, 0, augment=noise, context=context(worker, 2, 2)
        )
        return images_of(made, 3)

    assert (part(0) != part(1)).all()
    np.testing.assert_array_equal(part(1), part(1))


def test_a_batch_that_cannot_be_shared():
    split = data.Split(np.ones((9, 4, 4, 1), "uint8"), np.zeros(9, "int32"))
    with pytest.raises(ValueError, match=r"a multiple of 2, .*Received: 3"):
        data.training_pipeline(split, 3, 0, context=context(0, 2, 2))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def train(inputs, workdir, *flags):
    return [
        sys.executable,
        str(ROOT / "train.py"),
        f"--dataset={inputs[0]}",
        f"--backbone={inputs[1]}",
        f"--workdir={workdir}",
        "--beta=1e-4",
        "--epochs=4",
        "--batch_size=16",
        "--controller_epochs=2",
        "--deterministic",
        *flags,
    ]


def policies_of(workdir):
    return json.loads((workdir / "metrics.json").read_text())["policies"]


@pytest.mark.slow
def test_train_py_with_two_workers_killed_and_resumed(inputs, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = train(inputs, whole, "--distribute=multi_worker")
    codes, outputs, errors = ended(
        workers([command] * 2, tmp_path / "log"), tmp_path / "log"
    )
    assert codes == [0, 0], errors[0][-2000:]
    assert "softmax-gate-tuned" in outputs[0] and not outputs[1]
    model = keras.saving.load_model(whole / "beta-0.0001" / "model.keras")
    assert model.classify(small_images(2)[0]).label.shape == (2,)
    assert not (whole / "states").exists()

    command = train(inputs, killed, "--distribute=multi_worker")
    for victim in (1, 0):
        (killed / "classifiers.weights.h5").unlink(missing_ok=True)
        commands = [command, command]
        commands[victim] = killed_command(command)
        processes = workers(commands, tmp_path / "log")
        codes, _, errors = ended(processes, tmp_path / "log")
        assert codes[1 - victim] == 1 and codes[victim] == -signal.SIGKILL
        assert f"error: worker {victim} (" in errors[1 - victim]
        assert not (killed / "classifiers.keras").exists()
    codes, outputs, errors = ended(
        workers([command] * 2, tmp_path / "log"), tmp_path / "log"
    )
    assert codes == [0, 0], errors[0][-2000:]
    assert "Epoch 2/4" not in outputs[0] and "Epoch 3/4" in outputs[0]
    assert policies_of(killed) == policies_of(whole)


# As on a host with two GPUs; for train.py itself there is one CPU.
ON_TWO_DEVICES = """
import sys
import tensorflow as tf
from absl import flags
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
import train
from epnet_tf import cli
flags.mark_flag_as_required("workdir")
cli.run(train.main)
"""


@pytest.mark.slow
def test_train_py_on_two_devices(inputs, tmp_path):
    flags = train(inputs, tmp_path / "workdir", "--distribute=mirrored")[2:]
    processes = started(
        [[sys.executable, "-c", ON_TWO_DEVICES, *flags]], tmp_path / "0"
    )
    codes, outputs, errors = ended(processes, tmp_path / "0")
    assert codes == [0], errors[0][-2000:]
    assert "Epoch 4/4" in outputs[0] and "softmax-gate-tuned" in outputs[0]
    models = tmp_path / "workdir" / "beta-0.0001"
    model = keras.saving.load_model(models / "model.keras")
    assert model.classify(small_images(2)[0]).label.shape == (2,)


@pytest.mark.slow
def test_train_py_tells_what_is_wrong(inputs, tmp_path):
    workdir = tmp_path / "workdir"
    command = train(inputs, workdir, "--distribute=multi_worker")
    variables = environment()
    variables.pop("TF_CONFIG", None)
    addresses = free_addresses(2)
    cases = [
        ([command], [variables], "TF_CONFIG"),
        (
            [command, [*command, "--learning_rate=0.7"]],
            [environment(TF_CONFIG=tf_config(addresses, index=i)) for i in (0, 1)],
            "Expected the same --learning_rate for all workers",
        ),
        (
            [[*command, "--batch_size=15"]] * 2,
            [environment(TF_CONFIG=tf_config(addresses, index=i)) for i in (0, 1)],
            "a multiple of 2",
        ),
    ]
    for commands, environments, said in cases:
        processes = started(commands, tmp_path / "log", environments)
        codes, _, errors = ended(processes, tmp_path / "log")
        assert set(codes) == {1}
        for error in errors:
            assert said in error and "Traceback" not in error
        assert not workdir.exists()


def test_states_go_on_with_the_shards_that_are_there(inputs, tmp_path, monkeypatch):
    from epnet_tf.experiments import state_shards

    monkeypatch.setattr(state_shards, "_SHARD", 10)
    model = small_epnet()
    split = data.Split(IMAGES, LABELS.astype("int32"))
    for worker in (1, 0):
        state_shards.write(tmp_path, "recipe", model, split, worker, 2, verbose=0)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    times = [file.stat().st_mtime_ns for file in files]
    files[2].unlink()
    with pytest.raises(ValueError, match=r"Received: none in .*000000020\.npz"):
        state_shards.read(tmp_path, "recipe", len(split))
    for worker in range(3):
        state_shards.write(tmp_path, "recipe", model, split, worker, 3, verbose=0)
    again = [file.stat().st_mtime_ns for file in files]
    assert [a == b for a, b in zip(times, again, strict=True)] == [1, 1, 0, 1, 1]
    read = state_shards.read(tmp_path, "recipe", len(split))
    whole = epnet_tf.compute_states(model, IMAGES, LABELS, verbose=0)
    np.testing.assert_allclose(read.logits, whole.logits, atol=1e-5)
    np.testing.assert_array_equal(read.labels, whole.labels)
    for a, b in zip(read.pooled, whole.pooled, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(ValueError, match="another worker has written"):
        state_shards.read(tmp_path, "another", len(split))


def test_states_of_more_than_99_exits_keep_their_order(tmp_path, monkeypatch):
    from epnet_tf.experiments import state_shards

    # What an exit's controller sees is as wide as the exit's number.
    pooled = tuple(np.full([2, i], i, np.float32) for i in range(1, 103))
    states = epnet_tf.ExitStates(pooled, np.zeros([2, 103, 3]), LABELS[:2])
    monkeypatch.setattr(state_shards, "compute_states", lambda *_, **__: states)
    split = data.Split(IMAGES[:2], LABELS[:2])
    state_shards.write(tmp_path, "recipe", None, split, 0, 1)
    read = state_shards.read(tmp_path, "recipe", 2)
    assert [m.shape[1] for m in read.pooled] == list(range(1, 103))
