"""The wheel, alone in a fresh environment: a runtime without TensorFlow."""

import email
import json
import pathlib
import re
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest
from test_android_device_report import REPORT

ROOT = pathlib.Path(__file__).parents[1]
BUNDLES = ROOT / "android_demo/app/src/main/assets/bundles"
PICTURES = sorted(map(str, (ROOT / "examples").glob("*.png")))

# Prints all that a bundle answers for the pictures, probabilities to the last bit.
ANSWERS = """
import json, sys
import numpy as np
import epnet_tf
from epnet_tf.runtime.images import read_image

runner = epnet_tf.SegmentRunner(sys.argv[1])
shape = runner.manifest.input.shape[1:]
images = np.stack([read_image(path, shape) for path in sys.argv[2:]])
for workers in (1, 2):
    answers = runner.predict(images, num_workers=workers)
    print(json.dumps([a.tolist() for a in answers]), answers.probabilities.tobytes())
"""


def run(*command, **options):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, **options
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what belongs to it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "epnet_tf",
        source / "epnet_tf",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    done = run(*pip, "--wheel-dir", source / "dist", source)
    assert done.returncode == 0, done.stderr
    (wheel,) = (source / "dist").iterdir()
    return wheel


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """A fresh environment's Python, with the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    # The versions of the full installation, so that answers can be compared.
    install = ["install", "--quiet", "--constraint", ROOT / "requirements.txt"]
    done = run(python, "-m", "pip", *install, wheel)
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.slow
def test_the_wheel_holds_every_room(wheel):
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if name.startswith("epnet_tf/")}
    there = {path.relative_to(ROOT) for path in (ROOT / "epnet_tf").rglob("*.py")}
    assert packed == {*map(str, there), "epnet_tf/py.typed"}
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith("/METADATA"))
        metadata = email.message_from_bytes(file.read(name))
    needs = {need for need in metadata.get_all("Requires-Dist") if "extra" not in need}
    assert needs == {"absl-py", "ai-edge-litert>=2.3", "numpy", "pillow"}
    assert metadata.get_all("Provides-Extra") == ["train", "qat"]


@pytest.mark.slow
def test_answers_equal_the_full_installation_s(python, tmp_path):
    for bundle in sorted(BUNDLES.glob("maxmin-*")):
        alone, full = (
            run(interpreter, "-c", ANSWERS, bundle, *PICTURES, cwd=folder)
            for interpreter, folder in ((python, tmp_path), (sys.executable, ROOT))
        )
        assert alone.returncode == 0, alone.stderr
        assert alone.stdout.count("\n") == 2 and alone.stdout == full.stdout


@pytest.mark.slow
def test_the_commands_say_the_same(python, tmp_path):
    report = tmp_path / "benchmark.json"
    report.write_text(json.dumps(REPORT))
    for command in (
        ["epnet_tf.run", BUNDLES / "maxmin-4e-07", *PICTURES],
        ["epnet_tf.device_report", report],
    ):
        alone, full = (
            run(interpreter, "-m", *command, cwd=folder)
            for interpreter, folder in ((python, tmp_path), (sys.executable, ROOT))
        )
        assert alone.returncode == 0, alone.stderr
        # All but the time that an image took.
        lines, expected = (
            re.sub(r" [\d.]+ ms$", "", done.stdout, flags=re.MULTILINE)
            for done in (alone, full)
        )
        assert lines == expected and len(lines.splitlines()) >= 9


@pytest.mark.slow
def test_nothing_heavy_is_there_and_it_is_told_so(python, tmp_path):
    for package in ("tensorflow", "keras", "matplotlib", "sklearn", "scipy"):
        done = run(python, "-c", f"import {package}", cwd=tmp_path)
        assert f"No module named '{package}'" in done.stderr
    done = run(python, "-c", "from epnet_tf import EPNet", cwd=tmp_path)
    sentence = 'epnet_tf.EPNet needs TensorFlow: pip install "epnet-tf[train]"'
    assert done.stderr.splitlines()[-1].endswith(sentence)
    done = run(python, ROOT / "train.py", f"--workdir={tmp_path}", cwd=tmp_path)
    sentence = 'error: train.py needs TensorFlow: pip install "epnet-tf[train]"\n'
    assert (done.returncode, done.stderr) == (1, sentence)
    done = run(python, "-m", "pip", "check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
