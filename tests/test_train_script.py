"""train.py as a command: end to end, killed and resumed, and with wrong flags."""

import json
import pathlib
import signal
import subprocess
import sys

import pytest
from test_experiment import write_inputs

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def command(inputs, workdir):
    dataset, backbone = inputs
    return [
        sys.executable,
        str(ROOT / "train.py"),
        f"--dataset={dataset}",
        f"--backbone={backbone}",
        f"--workdir={workdir}",
        "--beta=1e-4",
        "--epochs=5",
        "--batch_size=16",
        "--controller_epochs=3",
        "--deterministic",
    ]


def run(arguments):
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)


def benefits(workdir):
    policies = json.loads((workdir / "metrics.json").read_text())["policies"]
    return {name: rows[0]["benefit"] for name, rows in policies.items()}


# train.py, killed when it has written what the second epoch left.
KILLED = """
import os
import signal
from absl import flags
import train
from epnet_tf import cli
from epnet_tf.experiments.checkpoint import Checkpoint

write = Checkpoint.on_epoch_end

def write_and_die(self, epoch, logs=None):
    write(self, epoch, logs)
    if epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.on_epoch_end = write_and_die
flags.mark_flag_as_required("workdir")
cli.run(train.main)
"""


def killed_command(arguments):
    """The command of train.py, of a process that is killed."""
    return [sys.executable, "-c", KILLED, *arguments[2:]]


def test_killed_and_resumed_it_ends_as_if_it_had_not_been(inputs, tmp_path):
    whole = run(command(inputs, tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr[-2000:]
    assert "softmax-gate-tuned" in whole.stdout and "of full" in whole.stdout

    killed, arguments = tmp_path / "killed", command(inputs, tmp_path / "killed")
    assert run(killed_command(arguments)).returncode == -signal.SIGKILL
    assert (killed / "config.json").exists()
    assert (killed / "classifiers.weights.h5").exists()
    assert not (killed / "classifiers.keras").exists()

    resumed = run(arguments)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "Epoch 2/5" not in resumed.stdout and "Epoch 3/5" in resumed.stdout
    assert benefits(killed) == pytest.approx(benefits(tmp_path / "whole"), abs=0.1)


# Runs several commands in one process, since TensorFlow takes its time to start.
DRIVER = """
import contextlib, io, json, sys
from absl import flags
import train
from epnet_tf import cli

flags.mark_flag_as_required("workdir")
answers = []
for arguments in json.loads(sys.argv[1]):
    flags.FLAGS.unparse_flags()
    sys.argv = ["train.py", *arguments]
    error = io.StringIO()
    code = 0
    with contextlib.redirect_stderr(error):
        try:
            cli.run(train.main)
        except SystemExit as exit:
            code = exit.code
    answers.append([code, error.getvalue()])
print("ANSWERS" + json.dumps(answers))
"""


def test_wrong_flags(inputs, tmp_path):
    dataset, backbone = inputs
    (tmp_path / "file").write_text("")
    workdir = f"--workdir={tmp_path / 'workdir'}"
    good = [f"--dataset={dataset}", f"--backbone={backbone}", workdir]
    cases = [  # arguments, exit code, what the sentence names
        ([*good, "--beta=-1e-7"], 1, "-1e-07"),
        ([*good, "--beta=nan"], 1, "nan"),
        ([*good, "--dataset=imagenet"], 1, "imagenet"),
        ([*good, "--dataset=missing.npz"], 1, "missing.npz"),
        ([*good, f"--dataset={backbone}"], 1, "backbone.keras"),
        ([*good, "--backbone=resnet99"], 1, "resnet99"),
        ([*good, f"--backbone={dataset}"], 1, "bright.npz"),
        ([*good, "--batch_size=1000"], 1, "1000"),
        ([*good, "--image_size=96"], 1, "--image_size=96 for"),
        ([*good, "--dataset=digits", "--crop"], 1, "--crop=True for 'digits'"),
        ([*good, f"--workdir={tmp_path / 'file' / 'below'}"], 1, "below"),
        ([*good, "--workdir=/proc/epnet"], 1, "/proc/epnet"),
        (good[:2], 2, "workdir"),
        ([*good, "--epochs=0"], 2, "epochs"),
        ([*good, "--epochs=two"], 2, "epochs"),
        ([*good, "--seed=-1"], 2, "seed"),
        ([*good, "--precision=float8"], 2, "precision"),
        ([*good, "--beta=high"], 2, "beta"),
        ([*good, "--no_such_flag"], 2, "no_such_flag"),
        ([*good, "surplus"], 2, "surplus"),
    ]
    arguments = json.dumps([case[0] for case in cases])
    answer = run([sys.executable, "-c", DRIVER, arguments])
    assert "ANSWERS" in answer.stdout, answer.stderr[-2000:]
    answers = json.loads(answer.stdout.split("ANSWERS")[1])
    for (case, code, named), (exit_code, error) in zip(cases, answers, strict=True):
        lines = [line for line in error.splitlines() if line.startswith("error: ")]
        assert exit_code == code and len(lines) == 1, (case, exit_code, error)
        assert named in lines[0] and "Traceback" not in error, (case, error)
    assert {p.name for p in tmp_path.iterdir()} == {"file"}
