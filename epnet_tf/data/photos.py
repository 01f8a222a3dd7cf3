"""Folders of pictures and TFRecords: lists of places and labels, the pixels unread."""

import glob
import io
import os
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from absl import logging

from epnet_tf import cli
from epnet_tf.data.streams import StreamedImages
from epnet_tf.runtime.images import read_image

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
ON_BAD_IMAGE = ("fail", "skip")
# With a class for every picture, a folder is of another kind.
_MAX_CLASSES = 50_000
_MIN_SIDE = 8
# Bad files that are named; of the others there is the count.
_NAMED = 20
# Names of the folders of the parts, and beginnings of the names of TFRecord files.
_PARTS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}


class Record(NamedTuple):
    """Where a TFRecord file has an encoded picture.

    Attributes:
        file: The file.
        number: Of the record, from 0.
        offset: Of the picture's first byte.
        length: Of the picture in bytes.
    """

    file: str
    number: int
    offset: int
    length: int

    def __str__(self) -> str:
        return f"record {self.number} of {self.file}"

    def open(self) -> io.BytesIO:
        """The encoded picture, as an open file with a name."""
        with open(self.file, "rb") as stream:
            stream.seek(self.offset)
            content = io.BytesIO(stream.read(self.length))
        content.name = str(self)
        return content


class Pictures(NamedTuple):
    """Pictures with labels, still in their files.

    Attributes:
        places: Paths, or `Record`s.
        labels: int32 [n].
    """

    places: Sequence[str | Record]
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> "Pictures":
        """Some of them."""
        return Pictures([self.places[i] for i in indices], self.labels[indices])


class Source(NamedTuple):
    """What was found, not yet split.

    Attributes:
        labels: Class names.
        parts: `train`, and `validation` and `test` where they were told apart.
    """

    labels: tuple[str, ...]
    parts: dict[str, Pictures]


def is_pictures(name: str) -> bool:
    """Whether a data set's name is that of a folder, or of TFRecord files."""
    return os.path.isdir(name) or _is_pattern(name)


def find(name: str) -> Source:
    """Finds the pictures of a folder, or of TFRecord files, and their classes.

    A folder has a folder of pictures for each class; or `train`, `validation` (or
    `val`) and `test` with such folders, of which only `train` must be. TFRecord files
    have `image/encoded`, `image/class/label` and perhaps `image/class/text`, as
    ImageNet's have; files whose names begin with those words are such parts.

    Args:
        name: The folder, or a pattern (`*`, `?`) of the names of files.

    Raises:
        ValueError: If there are no pictures, or not at least two classes of them.
    """
    return _find_in_records(name) if _is_pattern(name) else _find_in_folder(name)


def files(name: str) -> list[str]:
    """The files that `find` finds pictures in, unread, in the order of their names.

    Args:
        name: As in `find`.

    Raises:
        ValueError: If a folder is not divided as `find` says.
    """
    if _is_pattern(name):
        return sorted(glob.glob(name))
    return [
        path
        for root in _parts(pathlib.Path(name)).values()
        for folder in _folders(root)
        for path in _files_below(folder)
        if _is_picture(os.path.basename(path))
    ]


def check_shape(shape: tuple[int, ...]) -> None:
    """Checks the size to which pictures are brought.

    Raises:
        ValueError: If a side is shorter than 8 pixels.
    """
    if min(shape[:2]) < _MIN_SIDE:
        raise ValueError(
            f"Expected an image size of at least {_MIN_SIDE} pixels on each side. "
            f"Received: {shape[0]}x{shape[1]}."
        )


def streamed(pictures: Pictures, shape: tuple[int, ...], crop: bool) -> StreamedImages:
    """The pictures as images of one size, read when they are asked for.

    Args:
        pictures: The pictures.
        shape: Height, width and channels.
        crop: As in `read_image`.
    """

    def read(index: int) -> np.ndarray:
        return _read(pictures.places[index], shape, crop)

    return StreamedImages(read, (len(pictures.places), *shape))


def without_bad(
    pictures: Pictures, shape: tuple[int, ...], on_bad_image: str
) -> Pictures:
    """Reads all pictures once, for those that cannot be read.

    The order of training is a function of the list of images, so that bad ones have to
    be known before it begins.

    Args:
        pictures: The pictures.
        shape: As in `streamed`.
        on_bad_image: `fail` or `skip`; those that are skipped are named in a warning.

    Returns:
        The pictures without the bad ones.

    Raises:
        ValueError: If there are bad ones and `on_bad_image` is `fail`.
    """
    if on_bad_image not in ON_BAD_IMAGE:
        raise ValueError(
            f"Expected on_bad_image to be one of {', '.join(ON_BAD_IMAGE)}. "
            f"Received: {on_bad_image}."
        )

    def problem(place) -> str | None:
        try:
            _read(place, shape, crop=False)
        except (ValueError, OSError) as error:
            return cli.sentence(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        problems = list(threads.map(problem, pictures.places))
    bad = [text for text in problems if text is not None]
    if bad and on_bad_image == "fail":
        raise ValueError(
            f"{bad[0].rstrip('.')}. It is one of {len(bad)} such among "
            f"{len(problems)} files; on_bad_image=skip leaves them out."
        )
    for text in bad[:_NAMED]:
        logging.warning("Skipped: %s", text)
    if bad:
        logging.warning("Skipped %d of %d pictures.", len(bad), len(problems))
    return pictures.take(np.flatnonzero([text is None for text in problems]))


def _read(place: str | Record, shape: tuple[int, ...], crop: bool) -> np.ndarray:
    return read_image(place.open() if isinstance(place, Record) else place, shape, crop)


def _is_pattern(name: str) -> bool:
    return not os.path.isdir(name) and (
        any(c in name for c in "*?[") or name.endswith((".tfrecord", ".tfrecords"))
    )


def _find_in_folder(name: str) -> Source:
    found = _parts(pathlib.Path(name))
    labels = _class_names(found["train"])
    parts = {part: _pictures(folder, labels) for part, folder in found.items()}
    counts = np.bincount(parts["train"].labels, minlength=len(labels))
    if not counts.all():
        raise ValueError(
            f"Expected pictures ({', '.join(ENDINGS)}) of every class in "
            f"{found['train']}. Received: none in '{labels[int(counts.argmin())]}'."
        )
    return Source(labels, parts)


def _parts(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folders of the parts; the folder itself, if it is not divided."""
    named = [folder for folder in _folders(root) if folder.name in _PARTS]
    if not any(folder.name == "train" and _folders(folder) for folder in named):
        return {"train": root}
    found: dict[str, pathlib.Path] = {}
    for folder in named:
        other = found.setdefault(_PARTS[folder.name], folder)
        if other != folder:
            raise ValueError(
                f"Expected in {root} one folder for each part. "
                f"Received: '{other.name}' and '{folder.name}'."
            )
        if not _folders(folder):
            raise ValueError(
                f"Expected a folder for each class in {folder}. Received: none."
            )
    return found


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")
    )


def _class_names(root: pathlib.Path) -> tuple[str, ...]:
    names = tuple(p.name for p in _folders(root))
    check_classes(names, f"a folder for each class in {root}")
    return names


def check_classes(names: Sequence[str], what: str) -> None:
    """Checks the names of classes.

    Raises:
        ValueError: If there are fewer than two or too many, or two differ in case,
            spaces or the way that an accent is written alone, or not at all, or one
            has bytes that are no text.
    """
    if not 2 <= len(names) <= _MAX_CLASSES:
        found = f"one, '{names[0]}'" if len(names) == 1 else f"{len(names):,}"
        raise ValueError(
            f"Expected {what}, of 2 to {_MAX_CLASSES:,} classes. Received: {found}."
        )
    spelled: dict[str, str] = {}
    for name in names:
        # Line breaks and the like, and what was no UTF-8.
        if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
            raise ValueError(f"Expected {what}, named by text. Received: {name!r}.")
        plain = " ".join(unicodedata.normalize("NFC", name).casefold().split())
        if plain in spelled:
            other = spelled[plain]
            way = "each of another name" if other == name else "spelled in one way"
            raise ValueError(
                f"Expected {what}, {way}. Received: '{other}' and '{name}'."
            )
        spelled[plain] = name


def _pictures(root: pathlib.Path, labels: Sequence[str]) -> Pictures:
    """The pictures in the folders of classes, in the order of their names."""
    number = {name: i for i, name in enumerate(labels)}
    places: list[str] = []
    classes: list[int] = []
    # Pictures beside the folders of classes are of none.
    others = [str(file) for file in sorted(root.iterdir()) if _is_picture(file.name)]
    for folder in _folders(root):
        if folder.name not in number:
            raise ValueError(
                f"Expected in {root} the classes of the training pictures. "
                f"Received: '{folder.name}'."
            )
        for path in _files_below(folder):
            if _is_picture(os.path.basename(path)) and not _is_special(path):
                places.append(path)
                classes.append(number[folder.name])
            else:
                others.append(path)
    if others:
        logging.warning(
            "Left out %d files that are not %s in the folder of a class, such as %s.",
            len(others),
            ", ".join(ENDINGS),
            others[0],
        )
    return Pictures(places, np.array(classes, np.int32))


def _files_below(folder: pathlib.Path) -> Iterator[str]:
    """The files in a folder and in those within it, in the order of their names."""
    for path, below, names in os.walk(folder):
        below[:] = sorted(d for d in below if not d.startswith("."))
        for name in sorted(n for n in names if not n.startswith(".")):
            yield os.path.join(path, name)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def _is_special(path: str) -> bool:
    """Whether it is a pipe, a socket or a device: to open one may take for ever."""
    return os.path.exists(path) and not os.path.isfile(path)


def _find_in_records(pattern: str) -> Source:
    files = sorted(glob.glob(pattern))
    if not files:
        raise ValueError(f"Expected TFRecord files. Received: none of name {pattern}")
    found: dict[str, list] = {}
    for file in files:
        base = os.path.basename(file)
        part = next((p for b, p in _PARTS.items() if base.startswith(b)), "train")
        found.setdefault(part, []).extend(_records(file))
    if "train" not in found:
        raise ValueError(
            "Expected TFRecord files to train on, whose names do not begin with "
            f"validation, val or test. Received: {', '.join(files[:3])}."
        )
    numbers = sorted({label for _, label, _ in found["train"]})
    texts = {label: text for _, label, text in found["train"]}
    labels = tuple(texts[n] or str(n) for n in numbers)
    check_classes(labels, f"pictures in {pattern}")
    number = {n: i for i, n in enumerate(numbers)}
    parts = {}
    for part, records in found.items():
        unknown = [(place, label) for place, label, _ in records if label not in number]
        if unknown:
            raise ValueError(
                "Expected the classes of the training pictures. Received: "
                f"image/class/label {unknown[0][1]} in {unknown[0][0]}."
            )
        classes = np.array([number[label] for _, label, _ in records], np.int32)
        parts[part] = Pictures([place for place, _, _ in records], classes)
    return Source(labels, parts)


def _records(file: str) -> list[tuple[Record, int, str]]:
    """Place, label and class name of each picture in a TFRecord file."""
    import tensorflow as tf  # only needed here

    found: list[tuple[Record, int, str]] = []
    position = 0
    try:
        for number, raw in enumerate(tf.data.TFRecordDataset(file).as_numpy_iterator()):
            features = tf.train.Example.FromString(raw).features.feature
            names = sorted(features)  # To ask for one adds it.
            encoded = features["image/encoded"].bytes_list.value
            label = features["image/class/label"].int64_list.value
            if len(encoded) != 1 or len(label) != 1:
                raise ValueError(
                    "Expected one image/encoded and one image/class/label in each "
                    f"record. Received: {', '.join(names) or 'nothing'} in "
                    f"record {number} of {file}."
                )
            text = features["image/class/text"].bytes_list.value
            # Before a record stand its length and a checksum, and one behind it.
            offset = position + 12 + raw.find(encoded[0])
            position += 12 + len(raw) + 4
            place = Record(file, number, offset, len(encoded[0]))
            found.append(
                (place, label[0], text[0].decode(errors="replace") if text else "")
            )
    except ValueError:
        raise
    except Exception as error:  # TensorFlow's and protobuf's, of no common class.
        raise ValueError(
            "Expected a whole, uncompressed TFRecord file of tf.train.Example. "
            f"Received: {file}, broken behind {len(found)} records."
        ) from error
    return found
