"""A runner written from docs/bundle.md alone answers as `SegmentRunner` does."""

import hashlib
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from conftest import BETA, BETA_RANGE
from PIL import Image, ImageOps

import epnet_tf
from epnet_tf.runtime.images import read_image


class Runner:
    """The bundle's loop, in as few lines as the page says. Nothing here is ours."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        text = (folder / "epnet.json").read_bytes()
        line = f"{hashlib.sha256(text).hexdigest()}  epnet.json\n"
        assert (folder / "epnet.json.sha256").read_bytes() == line.encode()
        self.manifest = json.loads(text)
        assert self.manifest["format"] == "epnet-bundle"
        assert self.manifest["version"] == 1
        assert self.manifest["policy"]["type"] in ("controller", "threshold")
        self.segments = []
        for entry in self.manifest["segments"]:
            content = (folder / entry["file"]).read_bytes()
            assert len(content) == entry["bytes"]
            assert hashlib.sha256(content).hexdigest() == entry["sha256"]
            self.segments.append(Interpreter(model_content=content))

    def image(self, file):
        height, width, _ = self.manifest["input"]["shape"][1:]
        mode = self.manifest["preprocessing"]["channels"]
        picture = ImageOps.exif_transpose(Image.open(file)).convert(mode)
        if self.manifest["preprocessing"]["crop"] == "center":
            full = picture.size
            w = max(1, min(full[0], full[1] * width // height))
            h = max(1, min(full[1], full[0] * height // width))
            left, top = (full[0] - w) // 2, (full[1] - h) // 2
            picture = picture.crop((left, top, left + w, top + h))
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(picture).reshape(height, width, -1)

    def classify(self, image, beta=None, max_exit=None):
        dtype = self.manifest["input"]["dtype"]
        known = {"image": np.asarray(image, dtype)[np.newaxis]}
        known["beta"] = np.array([[beta or 0.0]], np.float32)
        threshold = np.float32(self.manifest["policy"]["threshold"])
        for entry, segment in zip(
            self.manifest["segments"], self.segments, strict=True
        ):
            run = segment.get_signature_runner("serving_default")
            known |= run(**{name: known[name] for name in entry["inputs"]})
            number = entry["exit"]
            stops = number in (len(self.segments), max_exit)
            if stops or known[f"stop_{number:02d}"][0, 0] > threshold:
                logits = known[f"logits_{number:02d}"][0]
                return logits.argmax(), number, entry["cumulative_macs"]


def answers(runner, images, **options):
    return np.transpose([runner.classify(image, **options) for image in images])


def expected(bundle, images, **options):
    found = epnet_tf.SegmentRunner(bundle).predict(images, **options)
    return np.stack([found.label, found.exit, found.macs])


def several_exits(found):
    assert len(np.unique(found[1])) > 1  # Otherwise nothing is compared.
    return found


@pytest.mark.parametrize("fixture", ["float_bundle", "int8_bundle"])
def test_controllers(fixture, request, images):
    bundle = request.getfixturevalue(fixture).path
    found = several_exits(answers(Runner(bundle), images))
    np.testing.assert_array_equal(found, expected(bundle, images))


def test_thresholds(epnet, images, tmp_path):
    logits = epnet.predict(images, verbose=0)
    sure = [
        float(np.median(np.asarray(tf.nn.softmax(logits[f"logits_0{i}"])).max(axis=1)))
        for i in (1, 2, 3)
    ]
    model = epnet.with_thresholds(sure, BETA)
    bundle = epnet_tf.convert(model, images, tmp_path / "bundle").path
    runner = Runner(bundle)
    assert runner.manifest["policy"]["type"] == "threshold"
    found = several_exits(answers(runner, images))
    np.testing.assert_array_equal(found, expected(bundle, images))


def test_a_latest_exit(int8_bundle, images):
    bundle = int8_bundle.path
    found = several_exits(answers(Runner(bundle), images, max_exit=2))
    assert found[1].max() == 2
    np.testing.assert_array_equal(found, expected(bundle, images, max_exit=2))


@pytest.mark.parametrize("beta", [BETA_RANGE[0], 1e-5, BETA_RANGE[1]])
def test_a_range_of_beta(beta_bundle, images, beta):
    bundle = beta_bundle.path
    found = answers(Runner(bundle), images, beta=beta)
    np.testing.assert_array_equal(found, expected(bundle, images, beta=beta))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("crop", ["none", "center"])
def test_pictures(tmp_path, orientation, crop):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 97, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    runner = Runner.__new__(Runner)
    runner.manifest = {
        "input": {"shape": [1, 16, 24, 3]},
        "preprocessing": {"channels": "RGB", "crop": crop},
    }
    np.testing.assert_array_equal(
        runner.image(tmp_path / "a.png"),
        read_image(tmp_path / "a.png", (16, 24, 3), crop == "center"),
    )
