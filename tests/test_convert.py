"""Conversion: what a bundle holds, that it is verified, and never half-written."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import BETA, BETA_RANGE

import epnet_tf
from epnet_tf.model.loading import load_model, save_model
from epnet_tf.quantization import modes
from epnet_tf.runtime import bundle
from epnet_tf.tflite import flatbuffer, slicer, verify


def test_bundle_holds_what_its_manifest_says(epnet, int8_bundle):
    content = json.loads((int8_bundle.path / "epnet.json").read_text())
    assert content["format"] == "epnet-bundle"
    assert content["version"] == 1
    assert content["name"] == "epnet"
    assert content["input"] == {
        "name": "image",
        "shape": [1, 16, 16, 1],
        "dtype": "float32",
        "quantization": None,
    }
    assert content["labels"] == ["zero", "one", "two", "three"]
    assert content["quantization"] == "int8"
    assert content["policy"] == {"type": "controller", "threshold": 0.0, "beta": BETA}
    assert content["full_macs"] == epnet.exit_costs.full
    segments = content["segments"]
    files = [f"segment_{i:02d}.tflite" for i in (1, 2, 3, 4)]
    model = content["model"]
    assert model["file"] == "model.tflite"
    assert model["exits"] == [
        {"layer": s["layer"], "cumulative_macs": s["cumulative_macs"]} for s in segments
    ]
    assert [s["file"] for s in segments] == files
    report = ["report.md", "report.png"]
    assert sorted(os.listdir(int8_bundle.path)) == [
        "epnet.json",
        "epnet.json.sha256",
        "model.tflite",
        *report,
        *files,
    ]
    assert [s["exit"] for s in segments] == [1, 2, 3, 4]
    assert [s["layer"] for s in segments] == list(epnet.exit_layers)
    costs = [int(c) for c in epnet.exit_costs.with_controllers]
    assert [s["cumulative_macs"] for s in segments] == costs
    assert [s["macs"] for s in segments] == [costs[0], *np.diff(costs)]
    assert segments[0]["inputs"] == ["image"]
    assert segments[1]["outputs"][:2] == ["logits_02", "stop_02"]
    assert segments[3]["outputs"] == ["logits_04"]
    for segment in segments:
        tflite = (int8_bundle.path / segment["file"]).read_bytes()
        assert segment["bytes"] == len(tflite)
        assert segment["sha256"] == hashlib.sha256(tflite).hexdigest()


def test_manifest_is_read_as_it_was_written(int8_bundle, beta_bundle):
    for conversion in (int8_bundle, beta_bundle):
        assert bundle.read_manifest(conversion.path) == conversion.manifest


def test_float_bundle_agrees_with_keras(float_bundle):
    metrics = float_bundle.manifest.metrics
    assert metrics.float == metrics.bundle
    assert metrics.same_exit == metrics.same_label == 1.0
    assert metrics.images == 60


def test_metrics_are_those_of_the_policy(epnet, int8_bundle, images, labels):
    metrics = int8_bundle.manifest.metrics
    answers = epnet.classify(images)
    accuracy = np.mean(answers.label == labels)
    assert metrics.float.accuracy == accuracy
    assert metrics.float.mean_macs == answers.macs.mean()
    assert metrics.float.benefit == 100 * accuracy - BETA * answers.macs.mean()
    assert metrics.beta == BETA
    rates = [np.mean(answers.exit == i) for i in (1, 2, 3, 4)]
    assert metrics.float.exit_rates == tuple(rates)
    assert min(rates) > 0
    assert sum(metrics.bundle.exit_rates) == pytest.approx(1.0)
    assert metrics.same_exit > 0.8
    assert metrics.same_label > 0.8


def test_beta_is_an_input_of_each_segment_with_a_controller(beta_bundle):
    manifest = beta_bundle.manifest
    assert manifest.policy.beta is None
    assert manifest.policy.beta_range == BETA_RANGE
    assert manifest.metrics.beta == pytest.approx(1e-5)
    has_beta = ["beta" in segment.inputs for segment in manifest.segments]
    assert has_beta == [True, True, True, False]


def test_without_evaluation_data_nothing_is_measured(epnet, images, tmp_path):
    conversion = epnet_tf.convert(
        epnet, images[:5], tmp_path / "bundle", quantization="none", name="mine"
    )
    assert conversion.manifest.metrics is None
    assert "report.md" not in os.listdir(conversion.path)
    assert conversion.manifest.name == "mine"
    assert conversion.manifest.labels == ("0", "1", "2", "3")
    assert bundle.read_manifest(tmp_path / "bundle") == conversion.manifest


def test_segments_that_differ_from_the_whole_are_noticed(float_tflite, images):
    segments = slicer.slice_model(float_tflite)
    feeds = [{"image": images[:1].astype(np.float32)}]
    verify.compare(float_tflite, segments, feeds)
    buffers = flatbuffer.read(segments[2].content).model.buffers
    weights = max((b.data.tobytes() for b in buffers if b.data is not None), key=len)
    spoilt = segments[2].content.replace(weights, bytes(len(weights)))
    segments[2] = flatbuffer.read(spoilt)
    with pytest.raises(ValueError, match="logits_03"):
        verify.compare(float_tflite, segments, feeds)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small", "DenseNet121"])
def test_networks_of_keras_applications(name, quantization, tmp_path):
    backbone = getattr(keras.applications, name)(
        input_shape=(64, 64, 3), include_top=False, weights=None
    )
    model = epnet_tf.EPNet(backbone, 10, exits=6, beta=1e-6)
    images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    conversion = epnet_tf.convert(
        model,
        images,
        tmp_path / "bundle",
        quantization=quantization,
        evaluation_data=(images, np.zeros(20, int)),
    )
    assert len(conversion.manifest.segments) == model.num_exits
    if quantization == "none":
        assert conversion.manifest.metrics.same_exit == 1.0


def with_nan(images):
    images = images.astype(np.float32)
    images[3, 0, 0, 0] = np.nan
    return images


@pytest.mark.parametrize(
    "change, message",
    [
        ({"quantization": "int3"}, "Received: int3"),
        ({"images": lambda x: x[:, :8]}, r"Received: shape \[60, 8, 16, 1\]"),
        ({"images": lambda x: x[:0]}, "at least one calibration image"),
        ({"images": with_nan}, "Received: NaN"),
        ({"images": lambda x: x - 300.0}, "Received: values from -3"),
        ({"images": lambda x: x.astype(np.int64)}, "Received: int64"),
        ({"labels": ["a", "b"]}, "Received: 2 labels"),
        ({"labels": ["a", "b", 3, "d"]}, r"labels that are text\. Received: 3"),
        ({"evaluation": lambda x, y: (x, y[:5])}, "each of 60 images. Received: 5"),
        ({"evaluation": lambda x, y: (x, y + 1)}, "0 to 3, for 4 classes.*from 1 to 4"),
        ({"evaluation": lambda x, y: (with_nan(x), y)}, "Received: NaN"),
        (
            {"test_data": (np.zeros([2, 16, 16, 1]), [0])},
            "in test_data, one for each of 2",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(
    epnet, images, labels, tmp_path, change, message
):
    calibration = change.pop("images", lambda x: x)(images)
    evaluation = change.pop("evaluation", lambda x, y: (x, y))(images, labels)
    with pytest.raises(ValueError, match=message):
        epnet_tf.convert(
            epnet, calibration, tmp_path / "b", evaluation_data=evaluation, **change
        )
    assert os.listdir(tmp_path) == []


def test_test_data_alone_are_refused(epnet, images, labels, tmp_path):
    with pytest.raises(ValueError, match="Received: test_data alone"):
        epnet_tf.convert(epnet, images, tmp_path / "b", test_data=(images, labels))
    assert os.listdir(tmp_path) == []


def test_untrained_or_other_models_are_refused(epnet, images, tmp_path):
    other = keras.Model(epnet.input, epnet.output)
    with pytest.raises(ValueError, match="Received: Functional"):
        epnet_tf.convert(other, images, tmp_path / "b")
    untrained = epnet_tf.EPNet(
        keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)]), 2
    )
    with pytest.raises(ValueError, match="controllers are trained"):
        epnet_tf.convert(untrained, images, tmp_path / "b")


def test_existing_output_is_kept(epnet, images, tmp_path):
    path = tmp_path / "output"
    path.mkdir()
    (path / "precious").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        epnet_tf.convert(epnet, images, path)
    with pytest.raises(ValueError, match="no bundle"):
        epnet_tf.convert(epnet, images, path, overwrite=True)
    assert os.listdir(path) == ["precious"]


def test_old_bundle_survives_a_failure_and_is_replaced_by_success(
    epnet, images, labels, float_bundle, tmp_path
):
    path = tmp_path / "bundle"
    shutil.copytree(float_bundle.path, path)
    old = bundle.read_manifest(path)

    broken = epnet_tf.EPNet.from_config(epnet.get_config())
    broken.set_weights([np.full_like(w, np.nan) for w in epnet.get_weights()])
    with pytest.raises(ValueError, match="not finite"):
        epnet_tf.convert(broken, images, path, quantization="none", overwrite=True)
    assert bundle.read_manifest(path) == old
    assert os.listdir(tmp_path) == ["bundle"]

    new = epnet_tf.convert(epnet, images, path, quantization="none", overwrite=True)
    assert bundle.read_manifest(path) == dataclasses.replace(
        old, labels=new.manifest.labels, metrics=None, model=new.manifest.model
    )
    assert os.listdir(tmp_path) == ["bundle"]


KILLED = """
import os
import signal
import sys

import numpy as np

import epnet_tf
from epnet_tf.model.loading import load_model
from epnet_tf.runtime import bundle

model, images, output = sys.argv[1:]
bundle.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
epnet_tf.convert(load_model(model), np.load(images), output, quantization="none")
"""


def test_killed_it_leaves_nothing_to_the_same_command(
    epnet, images, labels, float_bundle, tmp_path
):
    folder = tmp_path / "bundles"
    path, model, file = folder / "bundle", tmp_path / "m.keras", tmp_path / "i.npy"
    save_model(epnet, model)
    np.save(file, images)
    command = [sys.executable, "-c", KILLED, model, file, path]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (half,) = folder.iterdir()
    assert (half / "bundle" / "segment_04.tflite").exists()
    again = epnet_tf.convert(
        load_model(str(model)),
        images,
        path,
        quantization="none",
        evaluation_data=(images, labels),
        labels=["zero", "one", "two", "three"],
    )
    assert os.listdir(folder) == ["bundle"]
    # But for the times.
    expected = dataclasses.replace(float_bundle.manifest.metrics, cost=None)
    assert dataclasses.replace(again.manifest.metrics, cost=None) == expected
    assert again.manifest.segments == float_bundle.manifest.segments


def test_output_that_cannot_be_written_is_an_error(epnet, images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        epnet_tf.convert(epnet, images, tmp_path / "file" / "bundle")


def test_command_ends_bad_input_in_one_sentence(epnet, tmp_path):
    script = os.path.join(os.path.dirname(os.path.dirname(__file__)), "convert.py")
    flags = ["--model=x.keras", "--dataset=digits", f"--output={tmp_path / 'b'}"]
    result = subprocess.run(
        [sys.executable, script, *flags, "--quantization=int3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == (
        "error: flag --quantization=int3: value should be one of "
        f"<{'|'.join(modes.MODES)}>\n"
    )
    assert "Traceback" not in result.stderr
    assert os.listdir(tmp_path) == []


# Two commands in one process, since TensorFlow takes its time to start.
COMMANDS = """
import sys
from absl import flags
import convert
from epnet_tf import cli

model, *outputs = sys.argv[1:]
for output in outputs:
    flags.FLAGS.unparse_flags()
    given = [f"--model={model}", "--dataset=absent", f"--output={output}"]
    sys.argv = ["convert.py", *given]
    try:
        cli.run(convert.main)
    except SystemExit as exit:
        assert exit.code == 1
"""


def test_command_looks_at_output_and_model_before_it_reads_data(epnet, tmp_path):
    untrained, taken = tmp_path / "classifiers.keras", tmp_path / "taken"
    save_model(epnet.with_new_controllers(), untrained)
    taken.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, untrained, taken, tmp_path / "new"],
        capture_output=True,
        text=True,
        cwd=os.path.dirname(os.path.dirname(__file__)),
        check=True,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "exists already" in errors[0] and "controllers are trained" in errors[1]
