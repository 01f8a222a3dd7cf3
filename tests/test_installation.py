"""Wheel and source distribution in fresh environments: runtime, train, qat."""

import email
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest
from test_android_device_report import REPORT

ROOT = pathlib.Path(__file__).parents[1]
BUNDLES = ROOT / "android_demo/app/src/main/assets/bundles"
# Folders that no distribution has, and that are large.
NOT_PACKED = ("android_demo/", "models/", "results/", "web_demo/")
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
def dist(tmp_path_factory):
    """Wheel and source distribution, built as for a release, of what git knows."""
    source = tmp_path_factory.mktemp("source")
    files = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in run(*files, cwd=ROOT).stdout.splitlines():
        if (ROOT / name).exists() and not name.startswith(NOT_PACKED):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    done = run(sys.executable, "-m", "build", "--quiet", source)
    assert done.returncode == 0, done.stderr
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(dist):
    """The wheel, which is built from the source distribution."""
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def sdist(dist):
    """The source distribution."""
    (sdist,) = dist.glob("*.tar.gz")
    return sdist


def fresh(folder):
    """A fresh environment's Python."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def install(python, what):
    """Installs into an environment; pip's cache has what `make install` fetched."""
    # The versions of the full installation, so that answers can be compared.
    options = ["--quiet", "--no-compile", "--constraint", ROOT / "requirements.txt"]
    done = run(python, "-m", "pip", "install", *options, what)
    assert done.returncode == 0, done.stderr
    done = run(python, "-m", "pip", "check")
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """A fresh environment's Python, with the wheel and what it needs."""
    python = fresh(tmp_path_factory.mktemp("environment"))
    install(python, wheel)
    return python


@pytest.mark.slow
def test_the_wheel_holds_every_room(wheel):
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if name.startswith("epnet_tf/")}
        (name,) = (n for n in file.namelist() if n.endswith("/METADATA"))
        metadata = email.message_from_bytes(file.read(name))
    there = {path.relative_to(ROOT) for path in (ROOT / "epnet_tf").rglob("*.py")}
    assert packed == {*map(str, there), "epnet_tf/py.typed"}
    needs = {need for need in metadata.get_all("Requires-Dist") if "extra" not in need}
    assert needs == {"absl-py", "ai-edge-litert>=2.3", "numpy", "pillow"}
    assert metadata.get_all("Provides-Extra") == ["train", "qat"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert metadata.get_payload().startswith("# EPNet for Keras")


@pytest.mark.slow
def test_the_source_distribution_holds_the_package_and_little_else(sdist):
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    there = {path.relative_to(ROOT) for path in (ROOT / "epnet_tf").rglob("*.py")}
    assert {*map(str, there), "epnet_tf/py.typed"} <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert sdist.stat().st_size < 2_000_000


# Trains and converts a model, with the name of a mode of quantization.
TRAINING = """
import sys
import keras
import numpy as np
from keras import layers
import epnet_tf

for name in epnet_tf.__all__:
    getattr(epnet_tf, name)
backbone = keras.Sequential(
    [
        keras.Input([12, 12, 1]),
        layers.Conv2D(4, 3, activation="relu"),
        layers.Conv2D(8, 3, activation="relu"),
    ]
)
model = epnet_tf.EPNet(backbone, num_classes=2)
images = np.random.default_rng(0).integers(0, 256, [64, 12, 12, 1]).astype("uint8")
labels = np.arange(64) % 2
for trainer in (
    epnet_tf.ClassifierTrainer(model),
    epnet_tf.ControllerTrainer(model, beta=1e-6),
):
    trainer.compile(optimizer="adam")
    trainer.fit(images, labels, verbose=0)
mode = sys.argv[1]
data = {"training_data": (images, labels)} if mode == "qat" else {}
epnet_tf.convert(model, images, "bundle", quantization=mode, overwrite=True, **data)
print(epnet_tf.SegmentRunner("bundle").predict(images[:3]).exit.tolist())
"""


@pytest.mark.slow
def test_the_extras_train_and_convert(wheel, sdist, tmp_path):
    python = fresh(tmp_path / "environment")
    install(python, f"{wheel}[train]")
    done = run(python, "-c", TRAINING, "int8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    done = run(python, "-c", TRAINING, "qat", cwd=tmp_path)
    assert done.stderr.splitlines()[-1].endswith("pip install 'epnet-tf[qat]'")
    # The other extra brings two packages more: from the other file, into the same.
    install(python, f"{sdist}[qat]")
    done = run(python, "-c", TRAINING, "qat", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == 3 and set(answers) <= {1, 2}


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
        ["epnet_tf.run", BUNDLES / "maxmin-1e-06", *PICTURES],
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
