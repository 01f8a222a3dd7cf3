"""What tells a user's own files from others: all of them decide which are held out."""

import hashlib
import os
import pathlib

from epnet_tf.data import photos


def fingerprint(name: str | os.PathLike) -> str | None:
    """The files of a data set in a few letters.

    Args:
        name: As in `load_dataset`.

    Returns:
        The SHA-256 of a .npz file, or of the names and sizes of pictures or TFRecord
        files, which are not read; None for a data set with a name, which its seed
        decides, and where there are no files.

    Raises:
        ValueError: If a folder is not divided as `load_dataset` wants it.
    """
    name = os.fspath(name)
    digest, files = hashlib.sha256(), []
    if name.endswith(".npz"):
        if os.path.isfile(name):
            return hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest()
    elif photos.is_pictures(name):
        files = photos.files(name)
    for file in files:
        # A link may lead nowhere.
        size = os.path.getsize(file) if os.path.exists(file) else 0
        digest.update(os.fsencode(file) + f"\0{size}\0".encode())
    return digest.hexdigest() if files else None
