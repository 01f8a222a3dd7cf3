"""Folders of benchmarks that resume."""

import json
import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))

import begun


def test_a_folder_goes_on_with_the_settings_that_it_was_begun_with(tmp_path):
    workdir = tmp_path / "new" / "folder"
    begun.begin(workdir, epochs=3, rate=0.1)
    begun.begin(workdir, epochs=3, rate=0.1)
    with pytest.raises(ValueError, match=r"epochs=3, as it was.*Received: epochs=4;"):
        begun.begin(workdir, epochs=4, rate=0.1)
    settings = json.loads((workdir / "settings.json").read_text())
    assert settings == {"epochs": 3, "rate": 0.1}
