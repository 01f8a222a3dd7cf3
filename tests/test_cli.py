"""Commands: bad input ends in one sentence on stderr and an exit code."""

import os
import zipfile

import keras
import pytest
from absl import flags

from epnet_tf import cli
from epnet_tf.model import loading


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a main function as a command: exit code and stderr."""

    def run(main, *arguments, positional=""):
        monkeypatch.setattr("sys.argv", ["command", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.run(main, positional)
        return exit_.value.code, capsys.readouterr().err

    yield run
    flags.FLAGS.unparse_flags()


def raising(error):
    def main(_):
        raise error

    return main


def test_success(command):
    given = []
    assert command(given.append, "a", "b", positional="A B") == (None, "")
    assert given == [["command", "a", "b"]]


@pytest.mark.parametrize(
    "before, arguments, level",
    [(None, [], "3"), ("1", [], "1"), (None, ["--verbosity=1"], None)],
)
def test_tensorflow_is_quiet_unless_someone_asks(
    command, monkeypatch, before, arguments, level
):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", before or "")
    if before is None:
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    found = []
    command(lambda _: found.append(os.environ.get("TF_CPP_MIN_LOG_LEVEL")), *arguments)
    assert found == [level]


@pytest.mark.parametrize(
    "error, message",
    [
        (ValueError("Expected a.\n  Received: b"), "Expected a. Received: b"),
        (FileNotFoundError(2, "No such file", "x.png"), "No such file: x.png"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
        (MemoryError(), f"Out of memory. {cli._LESS_MEMORY}"),
        (MemoryError("For 9 TiB."), f"Out of memory. {cli._LESS_MEMORY} For 9 TiB."),
    ],
)
def test_bad_input(command, error, message):
    assert command(raising(error)) == (1, f"error: {message}\n")


def test_mistakes_in_the_program_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("sys.argv", ["command"])
    with pytest.raises(KeyError):
        cli.run(raising(KeyError("x")))
    flags.FLAGS.unparse_flags()


def test_models_that_cannot_be_loaded(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as file:
        file.writestr("readme", "")
    with pytest.raises(ValueError, match=r"empty\.keras holds no model"):
        loading.load_model(str(tmp_path / "empty.keras"))
    with pytest.raises(ValueError, match="File not found"):
        loading.load_model(str(tmp_path / "missing.keras"))
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]).save(
        tmp_path / "plain.keras"
    )
    content = (tmp_path / "plain.keras").read_bytes()
    # What HDF5 files begin with.
    damaged = content.replace(b"\x89HDF", b"\x89HDG")
    (tmp_path / "damaged.keras").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"damaged\.keras holds no model"):
        loading.load_model(str(tmp_path / "damaged.keras"))
    with pytest.raises(ValueError, match=r"an EPNet.*plain\.keras' with a Sequential"):
        loading.load_epnet(str(tmp_path / "plain.keras"))


def test_wrong_flags(command):
    code, message = command(print, "--no_such_flag=1")
    assert code == 2
    assert message == "error: Unknown command line flag 'no_such_flag'\n"


def test_wrong_number_of_arguments(command):
    assert command(print, "a", positional="BUNDLE IMAGE...")[0] == 2
    assert command(print, "a") == (2, "error: unexpected argument 'a'.\n")
