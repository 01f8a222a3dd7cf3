"""Images as they come: from Keras, from scikit-learn, or from a user's .npz file.

Whatever the source, what leaves this module has been checked; the error says what
was found and what was expected.
"""

import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from epnet_tf.data.labels import check_labels
from epnet_tf.data.pixels import warn_of_range

DATA_DIR_VARIABLE = "EPNET_DATA_DIR"
DIGIT_NAMES = tuple("0123456789")
GARMENT_NAMES = tuple(
    "T-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot".split(
        ","
    )
)
CIFAR10_NAMES = tuple(
    "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck".split(",")
)

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_KERAS_DATASETS = {  # image shape, class names
    "mnist": ((28, 28, 1), DIGIT_NAMES),
    "fashion_mnist": ((28, 28, 1), GARMENT_NAMES),
    "cifar10": ((32, 32, 3), CIFAR10_NAMES),
}


class Source(NamedTuple):
    """Checked images and labels, not yet split or composed.

    Attributes:
        x_train: uint8 or float32 `[n, h, w, c]`, raw pixels 0 to 255.
        y_train: int32 `[n]`.
        x_test: the same for the test images.
        y_test: int32 `[m]`.
        labels: class names; as many as there are classes.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    labels: tuple[str, ...]


def read_keras_dataset(name: str, data_dir: str | os.PathLike | None = None) -> Source:
    """Read `mnist`, `fashion_mnist` or `cifar10`.

    Args:
        name: the data set's name in `keras.datasets`.
        data_dir: folder with `<name>.npz`. Default: the environment variable
            EPNET_DATA_DIR; without either, `keras.datasets` downloads the data.

    Raises:
        ValueError: the file is missing or is not this data set, or the download
            failed.
    """
    shape, names = _KERAS_DATASETS[name]
    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if data_dir:
        where = str(Path(data_dir) / f"{name}.npz")
        arrays = _read_arrays(where)
    else:
        where = f"keras.datasets.{name}"
        arrays = _download(name)
    source = check_arrays({**arrays, "labels": np.array(names)}, where)
    if source.x_train.shape[1:] != shape or source.x_train.dtype != np.uint8:
        raise ValueError(
            f"{where} must hold {name}, uint8 images of shape {shape}. "
            f"Received: {source.x_train.dtype} images of shape "
            f"{source.x_train.shape[1:]}"
        )
    return source


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's embedded digits: uint8 `[1797, 8, 8]` (0-255), int32 `[1797]`."""
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    images, labels = load_digits(return_X_y=True)
    images = images.astype(int).reshape(-1, 8, 8) * 255 // 16
    return images.astype(np.uint8), labels.astype(np.int32)


def read_npz(path: str | os.PathLike) -> Source:
    """Read and check a data set in the layout of Keras's mnist.npz.

    Args:
        path: file with `x_train`, `y_train`, `x_test`, `y_test`, and optionally
            `labels` (class names). Images are `[n, h, w]` or `[n, h, w, c]` with 1 or
            3 channels, uint8 or floats within 0 to 255; labels are whole numbers,
            `[n]` or `[n, 1]`, or one-hot.

    Raises:
        ValueError: the file is missing or unreadable, or its arrays are not so.
    """
    return check_arrays(_read_arrays(path), str(path))


def check_arrays(arrays: dict[str, np.ndarray], where: str) -> Source:
    """Check the arrays of a data set and bring them into one form.

    Args:
        arrays: as `read_npz` describes them.
        where: where they come from, for the error's text.

    Raises:
        ValueError: anything is not as `read_npz` says.
    """
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ValueError(
            f"{where} must contain {', '.join(_KEYS)}; it lacks {', '.join(missing)}. "
            f"Received: {', '.join(sorted(arrays)) or 'no arrays'}"
        )
    x_train, x_test = (
        _check_images(arrays[key], f"{key} in {where}") for key in ("x_train", "x_test")
    )
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"Training and test images in {where} must have the same shape. Received: "
            f"{x_train.shape[1:]} and {x_test.shape[1:]}"
        )
    where_y = {key: f"{key} in {where}" for key in ("y_train", "y_test")}
    y_train = check_labels(
        arrays["y_train"], count=len(x_train), what=where_y["y_train"]
    )
    names = _class_names(arrays.get("labels"), y_train, where)
    y_train, y_test = (
        check_labels(arrays[key], len(names), count=len(x), what=where_y[key])
        for key, x in (("y_train", x_train), ("y_test", x_test))
    )
    return Source(x_train, y_train, x_test, y_test, names)


def _read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise ValueError(
            "A data set's .npz file must exist; without a data folder, the named data "
            f"sets are downloaded. Received: {path}"
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(
            "A data set must be a whole .npz file; this one is cut short or something "
            f"else. Received: {path}"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: np.asarray(archive[key]) for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            "A data set's .npz file must hold undamaged arrays of numbers or text, no "
            f"pickled objects. Received: {path} ({error})"
        ) from error


def _download(name: str) -> dict[str, np.ndarray]:
    import keras  # not needed to read files

    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a plain Exception when offline.
        raise ValueError(
            f"Could not download {name}; put {name}.npz into a folder and name that "
            f"folder by data_dir or {DATA_DIR_VARIABLE}. Received: {error}"
        ) from error
    return dict(zip(_KEYS, (*train, *test), strict=True))


def _check_images(x: np.ndarray, where: str) -> np.ndarray:
    if x.ndim == 3:
        x = x[..., np.newaxis]
    if x.ndim != 4:
        raise ValueError(
            f"{where} must have shape [n, height, width] or [n, height, width, "
            f"channels]. Received: shape {x.shape}"
        )
    if x.shape[-1] not in (1, 3):
        raise ValueError(
            f"{where} must have 1 or 3 channels, in the last axis. "
            f"Received: {x.shape[-1]} channels, shape {x.shape}"
        )
    if not x.size:
        raise ValueError(
            f"{where} must hold at least one image. Received: shape {x.shape}"
        )
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(
            f"{where} must be uint8, or floats within 0 to 255. "
            f"Received: dtype {x.dtype}"
        )
    _check_pixels(x, where)
    return x.astype(np.float32)


def _check_pixels(x: np.ndarray, where: str) -> None:
    nans = np.isnan(x)
    if nans.any():
        raise ValueError(
            f"{where} must not hold NaN. Received: {nans.sum()} NaN values, in "
            f"{nans.any(axis=(1, 2, 3)).sum()} of {len(x)} images"
        )
    if x.min() < 0 or x.max() > 255:
        raise ValueError(
            f"{where} must hold pixels within 0 to 255. "
            f"Received: values from {x.min()} to {x.max()}"
        )
    warn_of_range(x, where)


def _class_names(
    labels: np.ndarray | None, y_train: np.ndarray, where: str
) -> tuple[str, ...]:
    """The names given; without any, the numbers of the classes in `y_train`."""
    if labels is not None:
        if labels.ndim != 1 or labels.dtype.kind not in "US" or len(labels) < 2:
            raise ValueError(
                f"labels in {where} must be a list of at least two class names. "
                f"Received: dtype {labels.dtype}, shape {labels.shape}"
            )
        return tuple(labels.astype(str).tolist())
    found = np.unique(y_train)
    # Labels that start at 1, or a stray 255, would make classes that nobody meant.
    if len(found) < 2 or not np.array_equal(found, np.arange(len(found))):
        raise ValueError(
            f"Without class names (labels) in {where}, y_train must hold every label "
            "from 0 to the number of classes less one, and at least two. "
            f"Received: {len(found)} different labels from {found[0]} to {found[-1]}"
        )
    return tuple(str(label) for label in found)
