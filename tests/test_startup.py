"""Commands start at once, without what the extras of the installation bring."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from epnet_tf import extras

ROOT = pathlib.Path(__file__).parents[1]
BUNDLE = ROOT / "android_demo/app/src/main/assets/bundles/maxmin-1e-06"
# Each with what it needs to get past its flags.
TRAINING = {
    "train.py": ["--workdir=w"],
    "convert.py": ["--model=m.keras", "--dataset=digits", "--output=o"],
    "evaluate.py": ["--workdir=w"],
    "epnet_tf.benchmark": ["--bundle=b", "--model=m.keras", "--dataset=digits"],
    "benchmarks/exit_weights.py": ["--workdir=w"],
    "benchmarks/held_out.py": ["--workdir=w"],
    "benchmarks/sweep.py": [],
    "benchmarks/workers.py": [f"--bundle={BUNDLE}", "--dataset=digits"],
}
RUNTIME = ("epnet_tf.run", "epnet_tf.device_report", "epnet_tf.measure_costs")


def command(name):
    """The command line of a script or module."""
    return (
        [sys.executable, name] if name.endswith(".py") else [sys.executable, "-m", name]
    )


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs commands where no package of an extra can be imported."""
    folder = tmp_path_factory.mktemp("bare")
    for package in (*extras._EXTRAS, "wrapt"):
        (folder / f"{package}.py").write_text(
            f"raise ModuleNotFoundError('none here', name='{package}')"
        )
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}

    def run(name, *arguments):
        return subprocess.run(
            [*command(name), *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    return run


@pytest.mark.parametrize("name", [*TRAINING, *RUNTIME])
def test_help_and_wrong_flags_need_no_extra(bare, name):
    told = bare(name, "--help")
    assert not told.stderr and "--help" in told.stdout
    wrong = bare(name, "--no_such_flag")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("name", TRAINING)
def test_a_command_says_which_extra_it_needs(bare, name):
    done = bare(name, *TRAINING[name])
    assert done.returncode == 1
    file = name.rpartition("/")[2].removeprefix("epnet_tf.").removesuffix(".py")
    # Whichever package it misses first.
    needed = r'needs (TensorFlow|Matplotlib): pip install "epnet-tf\[train\]"'
    assert re.fullmatch(rf"error: {file}\.py {needed}\n", done.stderr)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["train.py", "--workdir=w", "--beta=-1"], "Expected --beta >= 0."),
        (["train.py", "--workdir=w", "--beta_range=2,1"], "Expected --beta_range="),
        (["train.py", "--workdir=w", "--costs=no.json"], "No such file or directory"),
    ],
)
def test_wrong_values_are_told_before_anything_is_imported(bare, arguments, sentence):
    done = bare(*arguments)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {sentence}")


def test_a_bundle_runs_without_any_extra(bare):
    done = bare("epnet_tf.run", str(BUNDLE), "examples/easy_1_4.png")
    assert done.returncode == 0 and done.stdout.startswith("easy_1_4.png  1 ")


def imported(*arguments):
    """The packages that Python imports with these arguments, but for its own."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    modules = re.findall(r"^import time:.*\| *([\w.]+)$", done.stderr, re.MULTILINE)
    packages = {module.partition(".")[0] for module in modules}
    return packages - set(sys.stdlib_module_names)


def test_the_front_door_opens_at_once():
    found = imported("-c", "import epnet_tf") - imported("-c", "")
    assert "epnet_tf" in found and found <= {"epnet_tf", "wrapt"}


def test_a_bundle_imports_no_extra_that_is_there():
    run = ["-m", "epnet_tf.run", str(BUNDLE), "examples/easy_1_4.png"]
    found = imported(*run)
    assert "ai_edge_litert" in found and not found & set(extras._EXTRAS)
