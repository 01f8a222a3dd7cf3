"""What a benchmark's files in a folder were made by: of other settings, it says so."""

import json
import os
import pathlib

import keras

from epnet_tf import data
from epnet_tf.experiments import recipes
from epnet_tf.experiments.config import load_dataset, read_settings
from epnet_tf.experiments.stage_one import decayed_sgd
from epnet_tf.files import write_whole

_FILE = "settings.json"


def begin(workdir: str | os.PathLike, **settings) -> None:
    """Makes a benchmark's folder, or goes on with one that was begun alike.

    Args:
        workdir: The folder.
        **settings: What the files in it depend on, as JSON has it.

    Raises:
        ValueError: If it was begun with others.
    """
    file = pathlib.Path(workdir) / _FILE
    if not file.exists():
        with write_whole(file) as path:
            path.write_text(json.dumps(settings, indent=1))
        return
    begun = json.loads(file.read_text())
    for name, value in settings.items():
        if begun.get(name) != value:
            raise ValueError(
                f"Expected in {workdir} {name}={begun.get(name)}, as it was begun "
                f"there. Received: {name}={value}; use another --workdir."
            )


def begin_from(
    folder: pathlib.Path, workdir: pathlib.Path, data_dir: str | None, **settings
) -> tuple[dict, data.Dataset]:
    """The same for a benchmark that goes on from a trained network.

    Args:
        folder: Folder that `train.py` filled.
        workdir: The benchmark's folder.
        data_dir: As in `epnet_tf.data.load_dataset`.
        **settings: What the files depend on beside the trained network.

    Returns:
        What is in the folder's `config.json`, and the data set.

    Raises:
        ValueError: As `begin`; or if the folder is none of `train.py`'s.
    """
    classifiers = recipes.of_file(folder / "classifiers.keras")
    begin(workdir, classifiers=classifiers, **settings)
    config = read_settings(folder / "config.json")
    return config, load_dataset(config, data_dir)


def going_on(
    learning_rate: float, steps: int, schedule: dict, **kwargs
) -> keras.optimizers.SGD:
    """The optimizer of a training that goes on: as stage one's, without its warm-up.

    Args:
        learning_rate: Of the first step; it falls to 0 as a cosine.
        steps: Of the whole training.
        schedule: In `config.json`.
        **kwargs: As in `decayed_sgd`.
    """
    falling = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return decayed_sgd(falling, schedule["weight_decay"], **kwargs)
