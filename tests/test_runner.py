"""The runner: right answers, real stops, and one sentence for whatever is wrong."""

import gc
import hashlib
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import BETA_RANGE
from PIL import Image

import epnet_tf
from epnet_tf import run
from epnet_tf.conversion import benchmark
from epnet_tf.runtime import bundle
from epnet_tf.runtime import runner as runner_module
from epnet_tf.runtime.litert import LiteRTModel

ROOT = pathlib.Path(__file__).parents[1]
# In segments, and in one file.
DIGITS = ROOT / "android_demo/app/src/main/assets/bundles/maxmin-1e-06"


@pytest.fixture
def copied(int8_bundle, tmp_path):
    """A bundle that a test may spoil."""
    return shutil.copytree(int8_bundle.path, tmp_path / "bundle")


def edit_manifest(path, change):
    """Changes a manifest as someone does who knows of its checksum."""
    content = json.loads((path / "epnet.json").read_text())
    change(content)
    (path / "epnet.json").write_text(json.dumps(content))
    bundle.write_checksum(path)


def test_float_segments_answer_like_the_keras_model(epnet, float_bundle, images):
    answers = epnet_tf.SegmentRunner(float_bundle.path).predict(images)
    expected = epnet.classify(images)
    np.testing.assert_array_equal(answers.label, expected.label)
    np.testing.assert_array_equal(answers.exit, expected.exit)
    np.testing.assert_array_equal(answers.macs, expected.macs)
    np.testing.assert_allclose(answers.probabilities, expected.probabilities, atol=1e-5)
    assert set(answers.exit) == {1, 2, 3, 4}


def test_float_images_answer_like_uint8(int8_bundle, images):
    runner = epnet_tf.SegmentRunner(int8_bundle.path)
    for expected, value in zip(
        runner.predict(images), runner.predict(images.astype(np.float64)), strict=True
    ):
        np.testing.assert_array_equal(expected, value)


def test_order_of_the_images_does_not_matter(int8_bundle, images):
    forward = epnet_tf.SegmentRunner(int8_bundle.path).predict(images)
    backward = epnet_tf.SegmentRunner(int8_bundle.path).predict(images[::-1])
    for expected, value in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(expected, value[::-1])


def test_segments_behind_the_exit_are_never_opened(copied, images):
    exits = epnet_tf.SegmentRunner(copied).predict(images).exit
    runner = epnet_tf.SegmentRunner(copied)
    assert runner.opened == 0
    for number in (3, 4):
        (copied / f"segment_{number:02d}.tflite").unlink()
    runner.predict(images[exits == 1])
    assert runner.opened == 1
    runner.predict(images[exits == 2])
    assert runner.opened == 2
    with pytest.raises(ValueError, match=r"segment_03\.tflite is missing"):
        runner.predict(images[exits == 3])


def test_threshold_decides(int8_bundle, images):
    runner = epnet_tf.SegmentRunner(int8_bundle.path)
    assert runner.threshold == 0.0
    runner.threshold = np.inf
    assert set(runner.predict(images).exit) == {4}
    runner.threshold = -np.inf
    assert set(runner.predict(images).exit) == {1}


def test_no_images_no_answers(int8_bundle, images):
    answers = epnet_tf.SegmentRunner(int8_bundle.path).predict(images[:0])
    assert [a.shape for a in answers] == [(0,), (0,), (0,), (0, 4)]


def test_beta_is_given_with_each_call(epnet_with_beta, beta_bundle, images):
    runner = epnet_tf.SegmentRunner(beta_bundle.path)
    exits = [runner.predict(images, beta).exit.tolist() for beta in BETA_RANGE]
    assert exits[0] != exits[1]
    assert exits[0] == runner.predict(images, BETA_RANGE[0]).exit.tolist()
    agree = [
        np.mean(epnet_with_beta.classify(images, beta=beta).exit == of_bundle)
        for beta, of_bundle in zip(BETA_RANGE, exits, strict=True)
    ]
    assert min(agree) > 0.8


@pytest.mark.parametrize("beta", [None, 1e-7, 1.0, np.nan])
def test_beta_out_of_range_is_refused(beta_bundle, images, beta):
    runner = epnet_tf.SegmentRunner(beta_bundle.path)
    with pytest.raises(ValueError, match=r"beta from 1e-06 to 0\.0001"):
        runner.predict(images, beta)


def test_superfluous_beta_is_refused(int8_bundle, images):
    runner = epnet_tf.SegmentRunner(int8_bundle.path)
    with pytest.raises(ValueError, match="no beta"):
        runner.predict(images, 1e-5)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda x: x[0], r"Received: shape \[16, 16, 1\]"),
        (lambda x: x[:, :, :8], r"Received: shape \[60, 16, 8, 1\]"),
        (lambda x: x.astype(np.float32) * np.nan, "Received: NaN"),
        (lambda x: x * 2.0, "Received: values from 0 to"),
        (lambda x: x > 9, "Received: bool"),
    ],
)
def test_bad_images_are_refused(int8_bundle, images, spoil, message):
    runner = epnet_tf.SegmentRunner(int8_bundle.path)
    with pytest.raises(ValueError, match=message):
        runner.predict(spoil(images))


def test_truncated_segment_is_refused(copied):
    path = copied / "segment_03.tflite"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"segment_03\.tflite is truncated"):
        epnet_tf.SegmentRunner(copied)


def test_altered_segment_is_refused(copied):
    path = copied / "segment_02.tflite"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"segment_02\.tflite is altered"):
        epnet_tf.SegmentRunner(copied)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected a bundle"):
        epnet_tf.SegmentRunner(tmp_path)
    with pytest.raises(ValueError, match="Expected a bundle"):
        epnet_tf.SegmentRunner(tmp_path / "nothing")
    for content in (b"{", b"\xff\xfe\xfd"):
        (tmp_path / "epnet.json").write_bytes(content)
        with pytest.raises(ValueError, match="no valid JSON"):
            epnet_tf.SegmentRunner(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: m.update(format="other"), "format 'epnet-bundle'"),
        (lambda m: m.update(version=2), "Received: version 2"),
        (lambda m: m.pop("labels"), "epnet.json: labels is missing"),
        (lambda m: m["segments"][1].pop("sha256"), r"segments\[1\]: sha256 is missing"),
        (lambda m: m["segments"][0].update(bytes="1"), "bytes is not as expected"),
        (lambda m: m.update(segments=[], model=None), "no segments"),
        (lambda m: m["segments"][0].update(file="../x"), "outside the bundle"),
        (lambda m: m["policy"].update(type="entropy"), "unknown type 'entropy'"),
        (lambda m: m["policy"].pop("beta"), "exactly one of beta and beta_range"),
        (lambda m: m["input"].update(dtype="int8"), "its input is int8"),
        (lambda m: m.update(labels=[]), "no labels"),
        (lambda m: m["segments"][2].update(exit=2), "_03.tflite has exit 2 after ex"),
        (
            lambda m: m["segments"][1].update(cumulative_macs=7),
            "segment_02.tflite has cumulative_macs 7, where",
        ),
        (
            lambda m: m["policy"].update(beta=None, beta_range=[1e-4, 1e-6]),
            r"no range above 0: \[0\.0001, 1e-06\]",
        ),
    ],
)
def test_bad_manifests_are_refused(copied, change, message):
    edit_manifest(copied, change)
    with pytest.raises(ValueError, match=message):
        epnet_tf.SegmentRunner(copied)


@pytest.mark.parametrize("kept", ["segments", "model"])
def test_labels_of_other_classes_are_refused(tmp_path, kept):
    copied = shutil.copytree(DIGITS, tmp_path / "bundle")

    def change(manifest):
        manifest["labels"] = manifest["labels"][:3]
        if kept == "model":
            manifest["segments"] = []

    edit_manifest(copied, change)
    said = r"labels for the 10 classes of .*\.tflite\. Received: 3 labels"
    with pytest.raises(ValueError, match=said):
        epnet_tf.SegmentRunner(copied).predict(np.zeros([1, 50, 50, 1], np.uint8))


def test_an_image_at_the_threshold_goes_on(int8_bundle, images):
    """Compared in float32: in float64, 0.1 is less than the 0.1 of a segment."""
    runner = epnet_tf.SegmentRunner(int8_bundle.path)
    runner.predict(images[:1])
    segment = runner._workers[0]._segments[0]
    stop = np.array([0.1], np.float32)
    runner._workers[0]._segments[0] = segment._replace(stop=stop.data)
    runner.threshold = 0.1
    assert runner.predict(images[:1]).exit > 1
    stop[0] = np.nextafter(stop[0], np.float32(1))
    assert runner.predict(images[:1]).exit == 1


def test_an_altered_manifest_is_refused(copied):
    manifest = copied / "epnet.json"
    content = manifest.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert (copied / "epnet.json.sha256").read_text() == f"{digest}  epnet.json\n"
    manifest.write_bytes(content.replace(b'"threshold": 0.0', b'"threshold": 0.1'))
    with pytest.raises(ValueError, match=r"bundle/epnet\.json is altered: its sha256"):
        epnet_tf.SegmentRunner(copied)


@pytest.mark.parametrize("found", [b"", b"no sum", b"\xff"])
def test_a_checksum_that_is_none_is_refused(copied, found):
    (copied / "epnet.json.sha256").write_bytes(found)
    with pytest.raises(ValueError, match=r"not the one in epnet\.json\.sha256"):
        epnet_tf.SegmentRunner(copied)


def test_bundles_of_before_have_no_checksum(copied, images):
    (copied / "epnet.json.sha256").unlink()
    epnet_tf.SegmentRunner(copied).predict(images[:1])


def test_unknown_keys_in_the_manifest_are_passed_over(copied, images):
    edit_manifest(copied, lambda m: m["input"].update(comment="later"))
    epnet_tf.SegmentRunner(copied).predict(images[:1])


def test_command_reads_files_as_the_model_wants_them(images, tmp_path):
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "gray.png")
    read = run.read_image(tmp_path / "gray.png", (16, 16, 1))
    np.testing.assert_array_equal(read, images[0])


def test_command_tells_label_exit_and_cost(int8_bundle, images):
    runner = epnet_tf.SegmentRunner(int8_bundle.path)
    answer = runner.predict(images[:1])
    line = run.describe(runner, images[0], beta=None)
    pattern = (
        rf"{runner.manifest.labels[answer.label[0]]} +\d+\.\d%  exit {answer.exit[0]}/4"
        r"  0\.\d\d M MACs  \d+% of full  \d+\.\d\d ms"
    )
    assert re.fullmatch(pattern, line)


@pytest.mark.parametrize("file", ["", "model.tflite"])
def test_command(int8_bundle, images, tmp_path, file):
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "a.png")
    (tmp_path / "no.png").write_text("no image")
    command = [sys.executable, "-m", "epnet_tf.run", str(int8_bundle.path / file)]
    for names, code in ((["a.png"], 0), (["a.png", "no.png"], 1)):
        result = subprocess.run(
            [*command, *(str(tmp_path / name) for name in names)],
            capture_output=True,
            text=True,
            check=False,
            cwd=pathlib.Path(__file__).parent.parent,
        )
        assert result.returncode == code
        if code == 0:
            assert result.stdout.startswith("a.png")
        else:
            assert result.stdout == ""
            last = result.stderr.splitlines()[-1]
            assert (
                last.startswith("error: Expected an image file.") and "no.png" in last
            )
            assert "Traceback" not in result.stderr


def test_benchmark_times_every_contender(epnet, int8_bundle, images, labels):
    timings = benchmark.compare(
        epnet, int8_bundle.path, images[:5], (images, labels), rounds=2
    )
    assert len(timings) == 8
    for timing in timings.values():
        assert timing.seconds.shape == (20,)
        assert 0 < timing.milliseconds(10) <= timing.milliseconds(50)
    assert timings[benchmark.WHOLE].ratio(timings[benchmark.WHOLE]) == 1.0
    rows = benchmark.table(timings).splitlines()
    assert [row[:34].strip() for row in rows[1:]] == list(timings)


def test_benchmark_takes_the_static_exit_of_nearest_accuracy(epnet, images):
    outputs = epnet.predict(images, verbose=0)
    third = outputs["logits_03"].argmax(axis=1)
    assert benchmark.static_exit(epnet, images, third, accuracy=1.0) == 3


def test_benchmark_gives_bytes_to_a_bundle_that_takes_them(epnet, images, tmp_path):
    made = epnet_tf.convert(epnet, images, tmp_path / "b", quantization="int8-full")
    assert made.manifest.input.dtype == "uint8"
    parts = benchmark._open_segments(made.path, images[0] + np.float32(0.4), None)
    assert len(parts) == epnet.num_exits
    np.testing.assert_array_equal(parts[0].inputs["image"][0], images[0])


def assert_same(answers, expected):
    for value, wanted in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("num_workers", [2, 3, 200])
def test_workers_answer_the_same_in_the_same_order(int8_bundle, images, num_workers):
    many = np.concatenate([images, images[::-1], images])
    expected = epnet_tf.SegmentRunner(int8_bundle.path).predict(many)
    runner = epnet_tf.SegmentRunner(int8_bundle.path)
    for _ in range(3):
        assert_same(runner.predict(many, num_workers=num_workers), expected)
    assert_same(runner.predict(many), expected)


def test_workers_take_beta_and_threshold(beta_bundle, images):
    alone = epnet_tf.SegmentRunner(beta_bundle.path)
    runner = epnet_tf.SegmentRunner(beta_bundle.path)
    # With one value the workers stay behind, with the next they come along.
    for beta, workers in [(BETA_RANGE[0], 2), (BETA_RANGE[1], 1), (BETA_RANGE[0], 3)]:
        answers = runner.predict(images, beta, num_workers=workers)
        assert_same(answers, alone.predict(images, beta))
    runner.threshold = np.inf
    assert set(runner.predict(images, BETA_RANGE[0], num_workers=3).exit) == {4}


def test_workers_without_images(int8_bundle, images):
    answers = epnet_tf.SegmentRunner(int8_bundle.path).predict(
        images[:0], num_workers=2
    )
    assert [a.shape for a in answers] == [(0,), (0,), (0,), (0, 4)]


@pytest.mark.parametrize("num_workers", [0, -1])
def test_no_worker_is_refused(int8_bundle, images, num_workers):
    runner = epnet_tf.SegmentRunner(int8_bundle.path)
    message = rf"Expected num_workers >= 1\. Received: {num_workers}\."
    with pytest.raises(ValueError, match=message):
        runner.predict(images, num_workers=num_workers)


def test_a_worker_s_error_surfaces_and_the_others_stop(copied, images):
    expected = epnet_tf.SegmentRunner(copied).predict(images)
    late = np.flatnonzero(expected.exit == 4)[0]
    runner = epnet_tf.SegmentRunner(copied)
    last = copied / "segment_04.tflite"
    content = last.read_bytes()
    last.unlink()
    many = np.concatenate([images[late : late + 1], *[images] * 50])
    with pytest.raises(ValueError, match=r"segment_04\.tflite is missing"):
        runner.predict(many, num_workers=2)
    last.write_bytes(content)
    assert_same(runner.predict(images, num_workers=2), expected)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_threads_may_share_a_runner(beta_bundle, images, num_workers):
    path, betas = beta_bundle.path, BETA_RANGE
    expected = {b: epnet_tf.SegmentRunner(path).predict(images, b) for b in betas}
    for _ in range(5):
        runner, gate = epnet_tf.SegmentRunner(path), threading.Barrier(4)

        def work(first, runner=runner, gate=gate):
            gate.wait()
            beta = betas[first % 2]
            found = [
                runner.predict(images[i : i + 2], beta, num_workers=num_workers)
                for i in range(first, len(images) - 1, 4)
            ]
            return first, beta, found

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(work, range(4)))
        for first, beta, found in answers:
            for i, answer in zip(range(first, len(images) - 1, 4), found, strict=True):
                assert_same(answer, [a[i : i + 2] for a in expected[beta]])
        assert_same(runner.predict(images, betas[0]), expected[betas[0]])


def test_threads_may_share_run_image(int8_bundle, images):
    alone = epnet_tf.SegmentRunner(int8_bundle.path)
    expected = [alone.run_image(image) for image in images]
    shared = epnet_tf.SegmentRunner(int8_bundle.path)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(shared.run_image, images))
    for (index, logits), (wanted_index, wanted) in zip(found, expected, strict=True):
        assert index == wanted_index
        np.testing.assert_array_equal(logits, wanted)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["LiteRTModel", "_bind"])
def test_an_error_in_the_middle_leaves_the_runner_usable(
    int8_bundle, images, monkeypatch, error, where
):
    expected = epnet_tf.SegmentRunner(int8_bundle.path).predict(images)
    runner = epnet_tf.SegmentRunner(int8_bundle.path)
    works = getattr(runner_module, where)
    calls = itertools.count()

    def fails_at_third(*arguments):
        if next(calls) == 2:
            raise error
        return works(*arguments)

    monkeypatch.setattr(runner_module, where, fails_at_third)
    with pytest.raises(error):
        runner.predict(images)
    assert runner.opened == 2
    assert_same(runner.predict(images), expected)


def test_a_model_s_invoke_works_by_what_is_private_in_litert(int8_bundle, images):
    # Where LiteRT no longer has it, let `invoke` be the interpreter's own: workers then
    # wait for each other longer, and all is right.
    entry = int8_bundle.manifest.segments[0]
    model = LiteRTModel(bundle.read_tflite(int8_bundle.path, entry))
    expected = model.run(image=images[:1])
    invoke, outputs = model.invoke, model.outputs
    for memory in outputs.values():
        memory[...] = 0
    # What it needs stays.
    del model
    gc.collect()
    invoke()
    for name, memory in outputs.items():
        np.testing.assert_array_equal(memory, expected[name])
