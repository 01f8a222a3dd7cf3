"""The front door: public names, what an extra brings, and models that Keras loads."""

import pathlib
import subprocess
import sys

import pytest

import epnet_tf
from epnet_tf import extras

ROOT = pathlib.Path(__file__).parents[1]
MODEL = ROOT / "models" / "maxmin" / "model.keras"


def python(program, **options):
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        **options,
    )


@pytest.mark.parametrize(
    "imports", ["import epnet_tf; import keras", "import keras; import epnet_tf"]
)
def test_keras_loads_our_models_in_any_order_of_imports(imports):
    done = python(f"{imports}; print(keras.saving.load_model('{MODEL}').num_exits)")
    assert done.stdout == "12\n", done.stderr


def test_a_room_below_the_models_may_be_the_first_to_import_keras():
    done = python("import epnet_tf.objective; print(epnet_tf.EPNet.__name__)")
    assert done.stdout == "EPNet\n", done.stderr


@pytest.mark.parametrize(
    "package, sentence",
    [
        ("keras", 'x needs TensorFlow: pip install "epnet-tf[train]"'),
        ("tensorflow.python", 'x needs TensorFlow: pip install "epnet-tf[train]"'),
        ("sklearn", 'x needs scikit-learn: pip install "epnet-tf[train]"'),
        ("tf_keras", 'x needs tf_keras: pip install "epnet-tf[qat]"'),
    ],
)
def test_a_missing_package_of_an_extra(package, sentence):
    with pytest.raises(ImportError) as error, extras.needed_by("x"):
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    assert str(error.value) == sentence and error.value.name == package


@pytest.mark.parametrize(
    "mistake",
    [
        ModuleNotFoundError("No module named 'epnet_tf.nothing'", name="epnet_tf.no"),
        ModuleNotFoundError("No module named 'jason'", name="jason"),
        ImportError("cannot import name 'x' from 'keras'", name="keras"),
    ],
)
def test_our_own_mistakes_stay_what_they_are(mistake, monkeypatch):
    def fail(_):
        raise mistake

    monkeypatch.setattr(epnet_tf.importlib, "import_module", fail)
    with pytest.raises(ImportError) as error:
        _ = epnet_tf.EPNet
    assert error.value is mistake


@pytest.mark.parametrize("version, is_taken", [("3, 10", False), ("3, 13", True)])
def test_make_says_which_python_before_it_installs(tmp_path, version, is_taken):
    fake = tmp_path / "python"
    # Answers as that version would; asked for an environment, it ends.
    fake.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        f"sys.version_info = ({version}, 0)\n"
        "sys.exit('installs') if sys.argv[1] == '-m' else exec(sys.argv[2])\n"
    )
    fake.chmod(0o755)
    done = subprocess.run(
        ["make", "install", f"PYTHON={fake}", f"VENV={tmp_path / 'environment'}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode
    refused = (
        "Expected Python 3.11 to 3.13, such as with PYTHON=python3.12 behind make. "
        "Received: 3.10."
    )
    assert done.stderr.splitlines()[0] == ("installs" if is_taken else refused)
