"""What the commands share: bad input ends in one sentence and an exit code."""

import logging as python_logging
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from epnet_tf import extras

_LESS_MEMORY = "Smaller images, or fewer in a batch, need less."


def run(main: Callable[[list[str]], None], positional: str = "") -> None:
    """Parses the absl flags and runs a command's main function.

    A `ValueError`, an `OSError`, the lack of memory or of an extra of the installation
    becomes one sentence on stderr and exit code 1, wrong flags one sentence and exit
    code 2; `--verbosity=1` adds the traceback, and what TensorFlow says of itself.
    Flags are parsed first: a command that imports TensorFlow within `main` answers to
    `--help` at once.

    Args:
        main: Takes the program's name and its positional arguments.
        positional: What positional arguments there must be, such as
            `"BUNDLE IMAGE..."`; empty if the command takes none.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            arguments = flags.FLAGS(list(argv))
        except flags.Error as error:
            _fail(error, code=2)
        if len(arguments) - 1 < len(positional.split()):
            _fail(ValueError(f"expected {positional}, see --help."), code=2)
        if not positional and len(arguments) > 1:
            _fail(ValueError(f"unexpected argument '{arguments[1]}'."), code=2)
        return arguments

    def guarded(arguments: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            # TensorFlow tells of its insides at the level of information, and of a GPU
            # that is not there as of an error.
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            logging.set_verbosity(logging.WARNING)
            python_logging.getLogger("tensorflow").setLevel("WARNING")
        try:
            with extras.needed_by(pathlib.Path(arguments[0]).name):
                main(arguments)
        except (ValueError, OSError, MemoryError, extras.MissingExtra) as error:
            logging.debug("Traceback", exc_info=error)
            _fail(error, code=1)
        except KeyboardInterrupt:
            sys.exit(130)

    app.run(guarded, flags_parser=parse)


def sentence(error: Exception) -> str:
    """An error's message in one line; for an OSError its reason and the file."""
    if isinstance(error, MemoryError):  # Pillow's and Python's say nothing.
        return f"Out of memory. {_LESS_MEMORY} {error}".strip()
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return " ".join(str(error).split())


def _fail(error: Exception, code: int) -> None:
    print(f"error: {sentence(error)}", file=sys.stderr)
    sys.exit(code)
