"""Put bundles, test images and the networks to compare with into the page.

    PYTHONPATH=android_demo/tools python web_demo/tools/make_bundles.py \
        --dataset=maxmin --output=web_demo/site/bundles/maxmin BUNDLE

replaces one folder of web_demo/site/bundles with

    epnet.json, segment_NN.tflite   the bundle; the model in one file is left out
    network/                        the plain network without early exits
    images.json, images.bin.gz      images of the test split, and their labels
"""

import argparse
import gzip
import json
import pathlib
import shutil

import networks
import package_bundles

from epnet_tf.data import load_dataset
from epnet_tf.runtime.bundle import MANIFEST, write_checksum

IMAGES = 200


def write_bundle(bundle: pathlib.Path, output: pathlib.Path) -> None:
    """Copies the segments, and cuts the plain network out of them."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest.pop("model", None)
    package_bundles.fresh(output)
    for segment in manifest["segments"]:
        shutil.copy(bundle / segment["file"], output)
    package_bundles.write_json(output / MANIFEST, manifest)
    write_checksum(output)
    last = len(manifest["segments"])
    graph = package_bundles.joined(bundle, manifest)
    network = networks.cut(graph, [f"logits_{last:02d}"])
    plain = manifest | {"policy": {"type": "controller", "threshold": 0.0, "beta": 0.0}}
    package_bundles.write_network(output / "network", plain, network, last)


def write_images(dataset, output: pathlib.Path) -> None:
    """Writes the first test images, packed, and what is known of them."""
    images, described = package_bundles.test_images(dataset, IMAGES)
    # Without a time in it, the file is the same whenever it is made.
    packed = gzip.compress(images.tobytes(), mtime=0)
    (output / "images.bin.gz").write_bytes(packed)
    package_bundles.write_json(output / "images.json", described)


def main() -> None:
    """Reads the command line and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=pathlib.Path, metavar="BUNDLE")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--dataset", required=True, help="as for train.py")
    parser.add_argument("--data_dir", help="as for train.py")
    parser.add_argument("--seed", type=int, default=0, help="as for train.py")
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.dataset, arguments.data_dir, arguments.seed)
    write_bundle(arguments.bundle, arguments.output)
    write_images(dataset, arguments.output)


if __name__ == "__main__":
    main()
