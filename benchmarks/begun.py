"""What a benchmark's files in a folder were made by: of other settings, it says so."""

import json
import os
import pathlib

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
