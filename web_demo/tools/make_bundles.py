"""Put a trained model, test images and the network to compare with into the page.

    PYTHONPATH=android_demo/tools python web_demo/tools/make_bundles.py \
        --model=models/maxmin/model.keras --dataset=maxmin

replaces web_demo/site/bundles/maxmin, in int8, its ranges taken from training images:

    epnet.json, segment_NN.tflite   the bundle, without the model in one file
    network/                        the plain network without early exits
    images.json, images.bin.gz      images of the test split, and their labels
"""

import argparse
import gzip
import json
import pathlib

import networks
import numpy as np
import package_bundles

from epnet_tf.conversion.convert import convert
from epnet_tf.data import Dataset, load_dataset
from epnet_tf.model import loading
from epnet_tf.quantization import modes
from epnet_tf.runtime.bundle import MANIFEST

BUNDLES = pathlib.Path(__file__).resolve().parents[1] / "site" / "bundles"
IMAGES = 200


def write_bundle(model: pathlib.Path, dataset: Dataset, output: pathlib.Path) -> None:
    """Converts the model, and cuts the plain network out of its segments."""
    convert(
        loading.load_model(model),
        modes.calibration_sample(dataset.train.images),
        output,
        labels=dataset.labels,
        name=dataset.name,
        formats="segments",
        overwrite=True,
    )
    manifest = json.loads((output / MANIFEST).read_text())
    last = len(manifest["segments"])
    graph = package_bundles.joined(output, manifest)
    network = networks.cut(graph, [f"logits_{last:02d}"])
    package_bundles.write_network(output / "network", manifest, network, last)


def write_images(dataset: Dataset, output: pathlib.Path) -> None:
    """Writes the first test images, packed, and what is known of them."""
    images, described = package_bundles.test_images(dataset, np.arange(IMAGES))
    write_packed(images.tobytes(), output)
    package_bundles.write_json(output / "images.json", described)


def write_packed(images: bytes, output: pathlib.Path) -> None:
    """Writes the raw pixels of test images, packed."""
    # Without a time in it, the file is the same whenever it is made.
    (output / "images.bin.gz").write_bytes(gzip.compress(images, mtime=0))


def main() -> None:
    """Reads the command line and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--dataset", required=True, help="as for train.py")
    parser.add_argument("--data_dir", help="as for train.py")
    parser.add_argument("--seed", type=int, default=0, help="as for train.py")
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.dataset, arguments.data_dir, arguments.seed)
    output = BUNDLES / dataset.name
    write_bundle(arguments.model, dataset, output)
    write_images(dataset, output)


if __name__ == "__main__":
    main()
