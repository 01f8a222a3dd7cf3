"""Files and folders are written whole or not at all."""

import os
import resource

import pytest

from epnet_tf.files import write_whole


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
