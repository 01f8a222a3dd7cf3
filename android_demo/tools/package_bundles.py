"""Put bundles, test images and Python's answers for them into the demo app.

    python android_demo/tools/package_bundles.py --dataset=maxmin BUNDLE ...

replaces what the app and its tests are packaged with. In app/src/main/assets:

    bundles/NAME/       the bundles, each with a checksum of its manifest; names.txt
    test_images/        images of the test split, and their labels
    answers/NAME.json   what `SegmentRunner` answers for each image
    networks/network/   the plain network without early exits

and in engine/src/jvmTest/resources/networks:

    whole/              the multi-exit model in one piece
    static-NN/          for each bundle the network that always stops at exit NN, the
                        one of the nearest accuracy

The networks are the bundles' own segments, joined again: the same weights. They are
bundles too, of one segment.

With --collection=photos all this is in app/src/main/assets/photos, and the test images
are spread over the whole test split. Networks to compare with and models in one file
are left out: each would take as much place as the segments.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import shutil

import networks
import numpy as np
from answers import answers_at

from epnet_tf.data import Dataset, load_dataset
from epnet_tf.runtime.bundle import (
    MANIFEST,
    read_manifest,
    write_checksum,
    write_manifest,
)
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.runner import SegmentRunner
from epnet_tf.tflite.flatbuffer import Graph

DEMO = pathlib.Path(__file__).resolve().parents[1]
ASSETS = DEMO / "app" / "src" / "main" / "assets"
TEST_NETWORKS = DEMO / "engine" / "src" / "jvmTest" / "resources" / "networks"
# The app's collections, and where they are in its assets.
FOLDERS = {"digits": ASSETS, "photos": ASSETS / "photos"}
EXAMPLES_PER_DIFFICULTY = 4


def test_images(dataset: Dataset, places: np.ndarray) -> tuple[np.ndarray, dict]:
    """The test images at some places, uint8, and what images.json says of them."""
    split = dataset.test
    images, labels = np.asarray(split.images[places]), split.labels[places]
    difficulty = np.zeros(len(places), int)
    # By hand one chooses from all difficulties or, where there are none, all classes.
    groups, of_each = labels, 1
    if split.difficulty is not None:
        difficulty = split.difficulty[places]
        groups, of_each = difficulty, EXAMPLES_PER_DIFFICULTY
    examples = [
        int(index)
        for group in np.unique(groups)
        for index in np.flatnonzero(groups == group)[:of_each]
    ]
    described = {
        "dataset": dataset.name,
        "count": len(places),
        "shape": list(images.shape[1:]),
        "labels": labels.tolist(),
        "difficulties": list(dataset.difficulties),
        "difficulty": difficulty.tolist(),
        "examples": examples,
    }
    return images.astype(np.uint8), described


def write_test_images(
    assets: pathlib.Path, dataset: Dataset, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Writes test images with their labels; returns both."""
    images, described = test_images(dataset, places)
    folder = fresh(assets / "test_images")
    (folder / "images.bin").write_bytes(images.tobytes())
    write_json(folder / "images.json", described)
    return images, dataset.test.labels[places]


def copy_bundle(assets: pathlib.Path, bundle: pathlib.Path, one_file: bool) -> dict:
    """Copies a bundle into the assets, with a checksum, and returns its manifest.

    The model in one file comes along only if `one_file`.
    """
    folder = fresh(assets / "bundles" / bundle.name)
    if one_file:
        shutil.copy(bundle / MANIFEST, folder)
        # Bundles of before have none.
        write_checksum(folder)
    else:
        write_manifest(dataclasses.replace(read_manifest(bundle), model=None), folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    model = manifest.get("model")
    for part in [*manifest["segments"], *([model] if model else [])]:
        shutil.copy(bundle / part["file"], folder)
    return manifest


def write_answers(
    assets: pathlib.Path, bundle: pathlib.Path, whole: LiteRTModel, images: np.ndarray
) -> np.ndarray:
    """Writes what Python's runner answers for each image; returns the labels.

    The runner keeps its logits to itself; they come from the whole model, with which
    the segments in a row agree bit for bit.
    """
    prediction = SegmentRunner(bundle).predict(images)
    found = answers_at(whole, images, prediction.exit)
    if found["labels"] != prediction.label.tolist():
        raise ValueError("Expected the runner and the whole model to agree.")
    write_json(assets / "answers" / f"{bundle.name}.json", found)
    return prediction.label


def write_network(
    folder: pathlib.Path, manifest: dict, content: bytes, exit_number: int
) -> None:
    """Writes a network that always answers at one exit, as a bundle of one segment."""
    outputs = list(LiteRTModel(content).outputs)
    cost = networks.macs(content)
    segment = {
        "file": "network.tflite",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "exit": exit_number,
        "layer": manifest["segments"][exit_number - 1]["layer"],
        "inputs": [manifest["input"]["name"]],
        "outputs": outputs,
        "macs": cost,
        "cumulative_macs": cost,
    }
    described = manifest | {"name": folder.name, "segments": [segment]}
    for name in ("metrics", "model", "cost_unit", "costs", "full_cost"):
        described.pop(name, None)
    # There is nothing to decide.
    described["policy"] = {"type": "controller", "threshold": 0.0, "beta": 0.0}
    fresh(folder)
    (folder / "network.tflite").write_bytes(content)
    write_json(folder / MANIFEST, described)
    write_checksum(folder)


def static_accuracies(
    whole: LiteRTModel, images: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Accuracy of every exit, if all images left there."""
    names = sorted(name for name in whole.outputs if name.startswith("logits_"))
    answers = [whole.run(image=image[None]) for image in images]
    found = [[answer[name].argmax() for name in names] for answer in answers]
    return np.mean(np.equal(found, labels[:, None]), axis=0)


def joined(bundle: pathlib.Path, manifest: dict) -> Graph:
    """A bundle's segments as one graph."""
    files = [(bundle / s["file"]).read_bytes() for s in manifest["segments"]]
    return networks.join(files)


def write_networks(
    manifest: dict, graph: Graph, static: np.ndarray, accuracies: list[float]
) -> None:
    """Writes the networks to compare with, cut out of one bundle's graph."""
    last = len(manifest["segments"])
    fresh(TEST_NETWORKS)
    write_network(TEST_NETWORKS / "whole", manifest, networks.whole_model(graph), last)
    for k in {int(np.abs(static - accuracy).argmin()) + 1 for accuracy in accuracies}:
        content = networks.cut(graph, [f"logits_{k:02d}"])
        write_network(TEST_NETWORKS / f"static-{k:02d}", manifest, content, k)
    network = networks.cut(graph, [f"logits_{last:02d}"])
    write_network(ASSETS / "networks" / "network", manifest, network, last)


def package(
    assets: pathlib.Path,
    bundles: list[pathlib.Path],
    dataset: Dataset,
    places: np.ndarray,
) -> None:
    """Replaces what a collection of the app is packaged with, and its tests."""
    for name in ("bundles", "answers", "networks"):
        shutil.rmtree(assets / name, ignore_errors=True)
    images, labels = write_test_images(assets, dataset, places)
    accuracies = []
    for bundle in bundles:
        manifest = copy_bundle(assets, bundle, one_file=assets == ASSETS)
        graph = joined(bundle, manifest)
        whole = LiteRTModel(networks.whole_model(graph))
        answered = write_answers(assets, bundle, whole, images)
        accuracies.append(float(np.mean(answered == labels)))
        print(f"{bundle.name}: accuracy {accuracies[-1]:.4f} on {len(images)} images")
    names = [bundle.name for bundle in bundles]
    (assets / "bundles" / "names.txt").write_text("\n".join(names) + "\n")
    if assets == ASSETS:
        static = static_accuracies(whole, images, labels)
        print("accuracy of each exit:", static.round(4).tolist())
        write_networks(manifest, graph, static, accuracies)


def load(arguments: argparse.Namespace) -> Dataset:
    """The data set; pictures are read as the first bundle wants them."""
    manifest = read_manifest(arguments.bundles[0])
    shape = manifest.input.shape[1:]
    crops = manifest.crops
    name, folder = arguments.dataset, arguments.data_dir
    return load_dataset(name, folder, arguments.seed, image_shape=shape, crop=crops)


def chosen(collection: str, count: int, available: int) -> np.ndarray:
    """Places of test images: the first, or of photos, which lie class by class, all."""
    if collection == "digits":
        return np.arange(count)
    return np.linspace(0, available - 1, count).astype(int)


def fresh(folder: pathlib.Path) -> pathlib.Path:
    """Makes `folder` empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_json(file: pathlib.Path, content: dict) -> None:
    """Writes `content` in one line, with its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, separators=(",", ":")) + "\n")


def main() -> None:
    """Reads the command line and packages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "bundles",
        nargs="+",
        type=pathlib.Path,
        metavar="BUNDLE",
        help="most accurate first",
    )
    parser.add_argument("--collection", choices=FOLDERS, default="digits")
    parser.add_argument("--dataset", required=True, help="as for train.py")
    parser.add_argument("--data_dir", help="as for train.py")
    parser.add_argument("--seed", type=int, default=0, help="as for train.py")
    parser.add_argument("--count", type=int, default=1000, help="test images")
    arguments = parser.parse_args()
    dataset = load(arguments)
    places = chosen(arguments.collection, arguments.count, len(dataset.test.labels))
    package(FOLDERS[arguments.collection], arguments.bundles, dataset, places)


if __name__ == "__main__":
    main()
