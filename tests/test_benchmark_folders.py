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


def test_a_training_that_goes_on_begins_at_the_full_rate():
    schedule = {"weight_decay": 0.01}
    sgd = begun.going_on(0.2, 100, schedule, nesterov=True)
    rates = [float(sgd._learning_rate(step)) for step in (0, 50, 100)]
    assert rates == pytest.approx([0.2, 0.1, 0.0])
    assert sgd.weight_decay == 0.01 and sgd.momentum == 0.9 and sgd.nesterov
