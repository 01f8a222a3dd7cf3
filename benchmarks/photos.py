"""A network that is good already, on a folder of photos: frozen, then fine-tuned.

    python benchmarks/photos.py --workdir=runs/photos --images=4000

EfficientNet-Lite0 with its ImageNet weights on CIFAR-10 as a folder of JPEGs: heads at
ends of blocks are trained on the frozen network, the network is fine-tuned, controllers
are trained, and one model becomes an int8 bundle. All of it is done by train.py and
convert.py, whose commands are printed; the results are in --results. `--images=45000`
is the whole training set. Run again, it resumes.
"""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
from absl import flags

from epnet_tf import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for pictures and networks.")
_RESULTS = flags.DEFINE_string(
    "results", "results/photos", "Folder for the report and its picture."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with cifar10.npz.")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "EfficientNet-Lite0's .pth file; default: the installed package's."
)
_IMAGES = flags.DEFINE_integer("images", 4000, "To train on.", lower_bound=100)
_VALIDATION = flags.DEFINE_integer("validation", 1000, "To tune on.", lower_bound=100)
_TEST = flags.DEFINE_integer("test", 5000, "To test on.", lower_bound=100)
_SIZE = flags.DEFINE_integer("size", 96, "Side of the pictures.", lower_bound=32)
_EXITS = flags.DEFINE_string("exits", "8", "As train.py's.")
_EPOCHS = flags.DEFINE_integer("epochs", 6, "With the network frozen.", lower_bound=1)
_UNFREEZE_EPOCHS = flags.DEFINE_integer(
    "unfreeze_epochs", 6, "Of fine-tuning.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "As train.py's.", lower_bound=1)
_BETA = flags.DEFINE_multi_float(
    "beta", [3e-8, 6e-8, 1.2e-7, 2.4e-7, 4.8e-7], "Cost sensitivities."
)

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_JPEG_QUALITY = 95


def main(_) -> None:
    """Makes the folder, trains, converts, reports."""
    # Not before the flags are known to be right: this takes seconds.
    import begun
    import photos_report

    workdir = pathlib.Path(_WORKDIR.value)
    begun.begin(
        workdir,
        images=_IMAGES.value,
        validation=_VALIDATION.value,
        test=_TEST.value,
        size=_SIZE.value,
    )
    pictures, backbone = workdir / "pictures", workdir / "backbone.keras"
    if not pictures.exists():
        write_pictures(pictures)
    if not backbone.exists():
        write_backbone(backbone)
    trained = workdir / "trained"
    betas = sorted(_BETA.value)
    train = [
        "train.py",
        f"--dataset={pictures}",
        f"--image_size={_SIZE.value}",
        f"--workdir={trained}",
        f"--backbone={backbone}",
        "--freeze",
        f"--exits={_EXITS.value}",
        f"--epochs={_EPOCHS.value}",
        f"--unfreeze_epochs={_UNFREEZE_EPOCHS.value}",
        f"--batch_size={_BATCH_SIZE.value}",
        *(f"--beta={beta:g}" for beta in betas),
    ]
    commands = [train]
    run(train)
    beta, states = photos_report.cheapest_within_a_point(trained, betas)
    bundle = workdir / f"photos-{beta:g}"
    commands.append(
        [
            "convert.py",
            f"--model={trained / f'beta-{beta:g}' / 'model.keras'}",
            f"--dataset={pictures}",
            f"--output={bundle}",
            "--name=photos",
        ]
    )
    if not bundle.exists():
        run(commands[-1])
    results = pathlib.Path(_RESULTS.value)
    photos_report.write(results, trained, bundle, states, commands)


def run(command: list[str]) -> None:
    """Runs a script of ours, and stops where it does."""
    print("python", *command, flush=True)
    subprocess.run([sys.executable, str(_ROOT / command[0]), *command[1:]], check=True)


def write_pictures(folder: pathlib.Path) -> None:
    """CIFAR-10 as JPEGs in `train/`, `validation/` and `test/`, whole or not at all.

    The images of a part are as many of each class, the first of a random order.
    """
    from PIL import Image

    from epnet_tf import data

    dataset = data.load_dataset("cifar10", _DATA_DIR.value)
    parts = {
        "train": (dataset.train, _IMAGES.value),
        "validation": (dataset.validation, _VALIDATION.value),
        "test": (dataset.test, _TEST.value),
    }
    begun = folder.with_name(f".{folder.name}")
    shutil.rmtree(begun, ignore_errors=True)
    for part, (split, count) in parts.items():
        for number in chosen(split.labels, count):
            name = dataset.labels[split.labels[number]]
            file = begun / part / name / f"{number:05d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            size = (_SIZE.value, _SIZE.value)
            picture = Image.fromarray(split.images[number])
            picture = picture.resize(size, Image.Resampling.BICUBIC)
            picture.save(file, quality=_JPEG_QUALITY)
    begun.rename(folder)


def chosen(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of about as many images of each class, `count` in all."""
    order = np.random.default_rng(0).permutation(len(labels))
    rank = np.empty(len(labels), int)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    return np.sort(np.argsort(rank, kind="stable")[:count])


def write_backbone(file: pathlib.Path) -> None:
    """EfficientNet-Lite0 with its ImageNet weights, without its classifier."""
    import efficientnet_lite0

    from epnet_tf.model.loading import save_model

    weights = _WEIGHTS.value or efficientnet_lite0.weights_file()
    shape = (_SIZE.value, _SIZE.value, 3)
    save_model(efficientnet_lite0.efficientnet_lite0(shape, weights), file)


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
