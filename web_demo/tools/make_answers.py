"""Write what Python answers, for the tests of the page to compare with.

    PYTHONPATH=android_demo/tools python web_demo/tools/make_answers.py

writes web_demo/build/answers: bundles that take beta, each with images and what
`SegmentRunner` answers for them. The page's own, and the Max-Min network in float32.
"""

import gzip
import json
import pathlib
import shutil

import answers
import numpy as np

from epnet_tf.conversion.convert import convert
from epnet_tf.model import loading
from epnet_tf.runtime.bundle import read_manifest

WEB = pathlib.Path(__file__).resolve().parents[1]
ROOT = WEB.parent
TEST_IMAGES = ROOT / "android_demo" / "app" / "src" / "main" / "assets" / "test_images"
ANSWERS = WEB / "build" / "answers"
IMAGES = 500
CALIBRATION = 100


def app_images() -> np.ndarray:
    """The first of the app's test images, which are Max-Min's."""
    described = json.loads((TEST_IMAGES / "images.json").read_text())
    pixels = np.frombuffer((TEST_IMAGES / "images.bin").read_bytes(), np.uint8)
    return pixels.reshape(-1, *described["shape"])[:IMAGES]


def page_images(bundle: pathlib.Path) -> np.ndarray:
    """The images that the page has for a bundle."""
    content = gzip.decompress((bundle / "images.bin.gz").read_bytes())
    pixels = np.frombuffer(content, np.uint8)
    return pixels.reshape(-1, *read_manifest(bundle).input.shape[1:])


def write(bundle: pathlib.Path, images: np.ndarray) -> None:
    """Writes images and answers into a bundle: a frugal beta, and one in the middle."""
    manifest = read_manifest(bundle)
    low, high = manifest.policy.beta_range
    betas = [(low * high) ** 0.5, high]
    answers.write_answers(bundle, images, betas, len(manifest.segments) // 2)


def main() -> None:
    """Copy or convert, and write the answers."""
    shutil.rmtree(ANSWERS, ignore_errors=True)
    images = app_images()
    for name, given in (("maxmin", images), ("cifar10", None)):
        page = WEB / "site" / "bundles" / name
        shutil.copytree(page, ANSWERS / f"{name}-int8")
        write(ANSWERS / f"{name}-int8", page_images(page) if given is None else given)
    convert(
        loading.load_model(ROOT / "models" / "maxmin" / "model.keras"),
        images[:CALIBRATION],
        ANSWERS / "maxmin-float32",
        quantization="none",
        formats="segments",
    )
    write(ANSWERS / "maxmin-float32", images)


if __name__ == "__main__":
    main()
