"""Files and folders are written whole or not at all."""

import os
import pathlib
import resource
import signal
import subprocess
import sys

import pytest

from epnet_tf.files import write_whole

ROOT = pathlib.Path(__file__).parents[1]


def test_writes_a_file_and_its_folder(tmp_path):
    path = tmp_path / "a" / "b.json"
    with write_whole(path) as temporary:
        assert temporary.name == "b.json"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["b.json"]


def test_replaces_a_folder(tmp_path):
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with write_whole(path) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("existing", [None, "file", "folder"])
def test_failure_leaves_everything_as_it_was(tmp_path, existing):
    path = tmp_path / "name"
    if existing == "file":
        path.write_text("old")
    elif existing == "folder":
        path.mkdir()
        (path / "old").write_text("old")
    before = os.listdir(tmp_path)
    with pytest.raises(RuntimeError), write_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == before
    if existing == "file":
        assert path.read_text() == "old"
    elif existing == "folder":
        assert (path / "old").read_text() == "old"


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path):
    path = tmp_path / "folder"
    write("folder", path, "precious")
    with pytest.raises(IsADirectoryError) as error, write_whole(path) as temporary:
        temporary.write_text("new")
    assert error.value.filename == str(path)
    assert read("folder", path) == "precious" and os.listdir(tmp_path) == ["folder"]


def test_no_overwriting(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileExistsError), write_whole(path, overwrite=False):
        pass
    assert path.read_text() == "old"


def test_no_space_is_an_error_that_names_the_path(tmp_path):
    path = tmp_path / "file"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as error, write_whole(path) as temporary:
            temporary.write_bytes(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.filename == str(path)
    assert os.listdir(tmp_path) == []


def test_impossible_folder_is_an_error_that_names_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "name"
    with pytest.raises(NotADirectoryError) as error, write_whole(path):
        pass
    assert error.value.filename == str(path)


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as error, write_whole(tmp_path / "file"):
        (tmp_path / "other").read_text()
    assert error.value.filename == str(tmp_path / "other")


def write(kind, path, content):
    """A file with this content, or a folder with such a file in it."""
    if kind == "folder":
        path.mkdir()
        path = path / "inside"
    path.write_text(content)


def read(kind, path):
    return (path / "inside" if kind == "folder" else path).read_text()


@pytest.mark.parametrize("second", ["file", "folder"])
@pytest.mark.parametrize("first", ["file", "folder"])
def test_of_two_writers_the_second_fails_and_the_first_stays(tmp_path, first, second):
    path = tmp_path / "output"
    with pytest.raises(FileExistsError) as error:
        with write_whole(path, overwrite=False) as mine:
            write(second, mine, "second")
            with write_whole(path, overwrite=False) as other:
                write(first, other, "first")
    assert error.value.filename == str(path)
    assert read(first, path) == "first"
    assert os.listdir(tmp_path) == ["output"]


def test_an_empty_folder_that_someone_made_meanwhile_stays(tmp_path):
    path = tmp_path / "output"
    with pytest.raises(FileExistsError):
        with write_whole(path, overwrite=False) as mine:
            write("folder", mine, "mine")
            path.mkdir()
    assert os.listdir(tmp_path) == ["output"] and os.listdir(path) == []


def test_a_link_to_nowhere_is_not_replaced(tmp_path):
    path = tmp_path / "output"
    with pytest.raises(FileExistsError):
        with write_whole(path, overwrite=False) as mine:
            write("file", mine, "mine")
            path.symlink_to(tmp_path / "nowhere")
    assert path.is_symlink() and os.listdir(tmp_path) == ["output"]


KILLED = """
import os
import signal
import sys
from epnet_tf.files import write_whole

with write_whole(sys.argv[1]) as temporary:
    temporary.mkdir()
    (temporary / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


KILLED_LATER = """
import os
import shutil
import signal
import sys
from epnet_tf.files import write_whole

def rmtree(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

with write_whole(sys.argv[1]) as temporary:
    temporary.mkdir()
    (temporary / "inside").write_text("new")
    shutil.rmtree = rmtree
"""


KILLED_BETWEEN = """
import os
import pathlib
import signal
import sys
from epnet_tf.files import write_whole

with write_whole(sys.argv[1]) as temporary:
    temporary.mkdir()
    (temporary / "inside").write_text("new")
    # The folder that was there has stepped aside, and the new one is to come.
    rename = os.rename
    def rename_once(*paths):
        rename(*paths)
        os.kill(os.getpid(), signal.SIGKILL)
    os.rename = rename_once
"""


def killed(path, script=KILLED):
    """Where a process was writing when it was killed."""
    done = subprocess.run([sys.executable, "-c", script, path], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    (left,) = path.parent.glob(f".{path.name}-*")
    return left


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "output"
    killed(path)
    write("file", tmp_path / ".output-notes", "not ours")
    (tmp_path / ".output-original").mkdir()
    write("file", tmp_path / ".output-original" / "output.txt", "not ours")
    with write_whole(path) as mine:
        write("file", mine, "mine")
    left = {"output", ".output-notes", ".output-original"}
    assert set(os.listdir(tmp_path)) == left
    assert os.listdir(tmp_path / ".output-original") == ["output.txt"]


def test_what_was_replaced_goes_with_the_next_write_if_not_at_once(tmp_path):
    path = tmp_path / "output"
    write("folder", path, "old")
    left = killed(path, KILLED_LATER)
    assert read("folder", path) == "new" and os.listdir(left) == ["replaced"]
    with write_whole(path) as mine:
        write("folder", mine, "mine")
    assert os.listdir(tmp_path) == ["output"] and read("folder", path) == "mine"


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_was_to_be_replaced_is_not_lost(tmp_path, overwrite):
    path = tmp_path / "output"
    write("folder", path, "old")
    killed(path, KILLED_BETWEEN)
    assert not path.exists()
    # The new one was complete: it comes to its place, whoever writes next.
    with pytest.raises(Stop if overwrite else FileExistsError):
        with write_whole(path, overwrite) as mine:
            write("folder", mine, "mine")
            raise Stop
    assert os.listdir(tmp_path) == ["output"] and read("folder", path) == "new"


class Stop(Exception):
    """What a writer may raise."""


def test_what_another_process_writes_stays(tmp_path):
    path = tmp_path / "output"
    with write_whole(path) as mine:
        write("folder", mine, "mine")
        with write_whole(path) as other:
            write("folder", other, "other")
        assert read("folder", mine) == "mine"
    assert read("folder", path) == "mine"


WRITER = """
import sys
from epnet_tf.files import write_whole

path, kind, name = sys.argv[1:]
with write_whole(path, overwrite=False) as temporary:
    if kind == "folder":
        temporary.mkdir()
        temporary = temporary / "inside"
    temporary.write_text(name)
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_of_many_processes_one_writes(tmp_path, kind):
    path = tmp_path / "output"
    names = [str(number) for number in range(4)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, kind, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        for name in names
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    (winner,) = (
        name
        for name, writer in zip(names, writers, strict=True)
        if writer.returncode == 0
    )
    assert read(kind, path) == winner
    assert os.listdir(tmp_path) == ["output"]
