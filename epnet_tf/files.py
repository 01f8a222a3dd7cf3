"""Files and folders that are written whole or not at all."""

import contextlib
import glob
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

# What a folder is called while it is removed, in the hidden folder of the new one.
_REPLACED = "replaced"


@contextlib.contextmanager
def write_whole(
    path: str | os.PathLike, overwrite: bool = True
) -> Iterator[pathlib.Path]:
    """Gives a temporary path, which takes the place of `path` if all goes well.

    Usage:

    ```python
    with write_whole("runs/metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics))
    ```

    Args:
        path: The file or folder to write; missing parent folders are made.
        overwrite: Whether an existing file or folder may be replaced. The old one
            stays as it is until the new one is complete. If not, whoever is done
            first wins, also among processes: of two that write the same new `path`,
            the second fails.

    Yields:
        A path that does not exist yet, of the same name in a hidden folder beside
        `path`, to write a file or make a folder at. If the block raises, nothing of
        it is left; if the process is killed, what is left goes when the same path is
        written again, and a folder that had not quite taken the place of another one
        takes it then.

    Raises:
        FileExistsError: If `overwrite` is False and `path` exists, now or when the
            block is done.
        OSError: If it cannot be written, as where a folder is in a file's place or
            the other way round; the error names `path`.
    """
    path = pathlib.Path(path)
    with _naming(path):
        _clear_abandoned(path)
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(17, "File exists", str(path))
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-")
    with holder as hidden, contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # Of file systems without locks.
            held.enter_context(_locked(pathlib.Path(hidden)))
        temporary = pathlib.Path(hidden) / path.name
        with _naming(path, hidden):
            yield temporary
            if overwrite:
                _replace(temporary, path, pathlib.Path(hidden) / _REPLACED)
            else:
                _put_at_new_name(temporary, path)


def _clear_abandoned(path: pathlib.Path) -> None:
    """Removes the hidden folders of killed processes that wrote the same path.

    Where one was killed after the folder at `path` had stepped aside, the new one,
    which is complete, takes its place first. Hidden folders of others, who have them
    locked, stay, and so does all that may be something else.
    """
    for folder in path.parent.glob(f".{glob.escape(path.name)}-????????"):
        with contextlib.suppress(OSError), _locked(folder, wait=False):
            found = set(os.listdir(folder))
            if found == {path.name, _REPLACED} and not os.path.lexists(path):
                os.rename(folder / path.name, path)
                found.remove(path.name)
            # One that is empty may be about to be locked; in the second kind, the new
            # one had taken its place.
            if found in ({path.name}, {_REPLACED}):
                shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(folder: pathlib.Path, wait: bool = True) -> Iterator[None]:
    """Holds a folder's lock, which a killed process loses."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        import fcntl  # Windows has none, nor opens folders.

        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(opened)


def _put_at_new_name(new: pathlib.Path, path: pathlib.Path) -> None:
    """Puts the new file or folder at `path`, where nothing may be."""
    if not new.is_dir():
        os.link(new, path)
        return
    # To rename a folder would replace an empty one; to make one claims the name.
    os.mkdir(path)
    try:
        os.rename(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(path)
        raise


def _replace(new: pathlib.Path, path: pathlib.Path, aside: pathlib.Path) -> None:
    """Moves the new file or folder to `path`; a folder there steps aside for a folder.

    To replace one by a file, or a file by a folder, is an error.
    """
    if not (path.is_dir() and new.is_dir()):
        os.replace(new, path)
        return
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(aside, path)
        raise


@contextlib.contextmanager
def _naming(path: pathlib.Path, hidden: str | None = None) -> Iterator[None]:
    """Lets an OSError name the path that the user knows, not the temporary one.

    With `hidden`, errors about files elsewhere keep their names.
    """
    try:
        yield
    except OSError as error:
        foreign = hidden and error.filename and hidden not in str(error.filename)
        if foreign or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
