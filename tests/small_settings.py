"""What the tests of the documents run instead of what takes minutes.

    python tests/small_settings.py train.py --dataset=digits --workdir=runs/digits

runs train.py with few images of `digits`, a small network behind every name, and one
epoch of each stage; other scripts, `-m` and `-c` as Python does, the scripts that
train or convert with the same images and networks.
"""

import os
import runpy
import subprocess
import sys

import numpy as np
import pytest

ONE_EPOCH = ("--epochs=1", "--controller_epochs=1", "--controller_seeds=1")
_SCRIPTS = ("train.py", "convert.py", "evaluate.py", "benchmarks/input_pipeline.py")


def small_network(image_shape):
    """Four convolutions, in place of any main branch."""
    import keras
    from keras import layers

    images = x = keras.Input(image_shape)
    for block, (width, stride) in enumerate([(8, 2), (8, 1), (16, 2), (16, 1)], 1):
        x = layers.Conv2D(width, 3, stride, "same", name=f"conv{block}")(x)
        x = layers.ReLU(name=f"relu{block}")(x)
    return keras.Model(images, x)


def shrink(monkeypatch):
    """Puts small data and networks in place, until the patches are undone."""
    from epnet_tf.data import dataset
    from epnet_tf.model import backbones, pretrained

    monkeypatch.setattr(dataset, "_DIGITS_COUNTS", (600, 200, 200))
    monkeypatch.setattr(
        pretrained, "pretrained", lambda name, shape, *_: small_network(shape)
    )
    for name in backbones.BACKBONES:
        monkeypatch.setitem(backbones.BACKBONES, name, small_network)


def write_data(folder):
    """Small mnist.npz, fashion_mnist.npz and cifar10.npz of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    digits, labels = load_digits(return_X_y=True)
    digits = (digits.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    digits = digits.repeat(2, axis=1).repeat(2, axis=2)
    gray = np.pad(digits, [(0, 0), (6, 6), (6, 6)])
    colours = np.pad(gray, [(0, 0), (2, 2), (2, 2)])[..., np.newaxis].repeat(3, axis=-1)
    for name, images in (
        ("mnist", gray),
        ("fashion_mnist", gray),
        ("cifar10", colours),
    ):
        np.savez(
            folder / f"{name}.npz",
            x_train=images[:600],
            y_train=labels[:600],
            x_test=images[600:800],
            y_test=labels[600:800],
        )


def main(arguments):
    """Runs what Python would run."""
    script = arguments[0]
    if script not in _SCRIPTS:
        sys.exit(subprocess.call([sys.executable, *arguments]))
    if script == "train.py":
        arguments = [*arguments, *ONE_EPOCH]
    sys.path[0] = os.getcwd()
    sys.argv = arguments
    if not any(argument.startswith("--help") for argument in arguments):
        shrink(pytest.MonkeyPatch())
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
