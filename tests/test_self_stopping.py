"""The model that stops by itself, in bundles and alone: answers, limits, faults."""

import dataclasses
import json
import os
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
from conftest import BETA_RANGE

import epnet_tf
from epnet_tf.conversion import convert
from epnet_tf.runtime import bundle
from epnet_tf.runtime.prediction import first_stop
from epnet_tf.runtime.self_stopping import SelfStoppingModel, read_file
from epnet_tf.tflite import export, one_file, verify

MODEL = "model.tflite"


@pytest.fixture(scope="module")
def alone(epnet, images, labels, tmp_path_factory):
    """A `Conversion` to one file without segments. Not to be changed."""
    return epnet_tf.convert(
        epnet,
        images,
        tmp_path_factory.mktemp("alone") / "bundle",
        evaluation_data=(images, labels),
        labels=["zero", "one", "two", "three"],
        formats="one_file",
    )


@pytest.fixture
def copied(int8_bundle, tmp_path):
    """A model without its bundle, which a test may spoil."""
    return pathlib.Path(shutil.copy(int8_bundle.path / MODEL, tmp_path))


def assert_same(answers, expected):
    for found, wanted in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["float_bundle", "int8_bundle", "beta_bundle"])
def test_one_file_answers_as_the_segments(name, images, request):
    path = request.getfixturevalue(name).path
    segments = epnet_tf.SegmentRunner(path)
    alone = epnet_tf.SegmentRunner(path / MODEL)
    betas = [None] if name != "beta_bundle" else [*BETA_RANGE, 1e-5]
    taken = set()
    for beta in betas:
        expected = segments.predict(images, beta)
        taken |= set(expected.exit)
        assert_same(alone.predict(images, beta), expected)
        assert_same(alone.predict(images, beta, num_workers=2), expected)
    assert taken == {1, 2, 3, 4}


@pytest.mark.parametrize("mode", ["float16", "dynamic", "int8-full"])
def test_other_quantizations(epnet_with_beta, images, tmp_path, mode):
    path = tmp_path / "bundle"
    epnet_tf.convert(epnet_with_beta, images, path, quantization=mode)
    segments, alone = map(epnet_tf.SegmentRunner, (path, path / MODEL))
    expected = segments.predict(images, beta=1e-5)
    assert len(set(expected.exit)) > 1
    assert_same(alone.predict(images, beta=1e-5), expected)
    if mode == "int8-full":  # It takes bytes: 99.6 is nearer to 100 than to 99.
        for runner in (segments, alone):
            nearly = np.maximum(images - 0.4, 0.0)
            assert_same(runner.predict(nearly, beta=1e-5), expected)


@pytest.mark.parametrize("file", ["", MODEL])
@pytest.mark.parametrize("max_exit", [1, 2, 3, 4])
def test_no_image_passes_the_limit(int8_bundle, images, file, max_exit):
    runner = epnet_tf.SegmentRunner(int8_bundle.path / file)
    free = runner.predict(images)
    limited = runner.predict(images, max_exit=max_exit)
    np.testing.assert_array_equal(limited.exit, np.minimum(free.exit, max_exit))
    early = free.exit <= max_exit
    assert_same([a[early] for a in limited], [a[early] for a in free])
    assert_same(runner.predict(images), free)


def test_the_limited_exit_answers_with_its_own_logits(epnet, float_bundle, images):
    outputs = epnet.predict(images, verbose=0)
    for file in ("", MODEL):
        runner = epnet_tf.SegmentRunner(float_bundle.path / file)
        runner.predict(images[:1])
        answers = runner.predict(images, max_exit=2)
        second = answers.exit == 2
        labels = outputs["logits_02"].argmax(axis=1)
        np.testing.assert_array_equal(answers.label[second], labels[second])


@pytest.mark.parametrize("file", ["", MODEL])
@pytest.mark.parametrize("max_exit", [0, -1, 5])
def test_limits_that_no_exit_has_are_refused(int8_bundle, images, file, max_exit):
    runner = epnet_tf.SegmentRunner(int8_bundle.path / file)
    with pytest.raises(ValueError, match=f"from 1 to 4. Received: {max_exit}"):
        runner.predict(images, max_exit=max_exit)


def test_a_file_alone_has_labels_costs_and_policy(int8_bundle, beta_bundle):
    for conversion in (int8_bundle, beta_bundle):
        manifest = epnet_tf.SegmentRunner(conversion.path / MODEL).manifest
        expected = conversion.manifest
        assert manifest.labels == expected.labels
        assert manifest.policy == expected.policy
        assert manifest.input == expected.input
        assert [e.layer for e in manifest.exits] == [e.layer for e in expected.exits]
        np.testing.assert_array_equal(
            manifest.cumulative_macs, expected.cumulative_macs
        )


def test_a_bundle_of_one_file(alone, int8_bundle, images):
    report = ["report.md", "report.png"]
    files = ["epnet.json", "epnet.json.sha256", MODEL, *report]
    assert sorted(os.listdir(alone.path)) == files
    assert alone.manifest.segments == ()
    assert bundle.read_manifest(alone.path) == alone.manifest
    expected = epnet_tf.SegmentRunner(int8_bundle.path).predict(images)
    assert_same(epnet_tf.SegmentRunner(alone.path).predict(images), expected)
    names = [time.name for time in alone.manifest.metrics.cost.times]
    assert names[3:] == ["one file that stops by itself"]
    assert alone.manifest.metrics.cost.bundle_bytes == alone.manifest.model.bytes


def test_a_bundle_of_segments(epnet, images, tmp_path):
    conversion = epnet_tf.convert(epnet, images, tmp_path / "b", formats="segments")
    assert conversion.manifest.model is None
    assert MODEL not in os.listdir(conversion.path)
    with pytest.raises(ValueError, match="Expected a bundle"):
        epnet_tf.SegmentRunner(conversion.path / MODEL)


def test_other_formats_are_refused(epnet, images, tmp_path):
    with pytest.raises(ValueError, match="Received: tflite"):
        epnet_tf.convert(epnet, images, tmp_path / "b", formats="tflite")
    assert os.listdir(tmp_path) == []


def with_rates(metrics, *rates):
    policy = dataclasses.replace(metrics.bundle, exit_rates=rates)
    return dataclasses.replace(metrics, bundle=policy)


def test_exits_where_no_image_leaves_are_joined(epnet, float_tflite, images, alone):
    metrics = with_rates(alone.manifest.metrics, 0.0, 0.5, 0.0, 0.5)
    assert convert._never_taken(epnet, float_tflite, images, metrics) == [1, 3]
    metrics = with_rates(metrics, 0.5, 0.5, 0.0, 0.0)
    assert convert._never_taken(epnet, float_tflite, images, metrics) == [3]
    assert convert._never_taken(epnet, float_tflite, images, None) == []


def test_exits_where_images_leave_at_another_beta_are_not_joined(
    epnet_with_beta, images, beta_bundle
):
    metrics = with_rates(beta_bundle.manifest.metrics, 0.0, 0.0, 0.0, 1.0)
    tflite = export.to_tflite(epnet_with_beta)
    model = epnet_with_beta
    ends = [model.classify(images, beta=beta).exit for beta in BETA_RANGE]
    never = {1, 2, 3} - set(np.concatenate(ends))
    assert convert._never_taken(model, tflite, images, metrics) == sorted(never)
    assert never != {1, 2, 3}


@pytest.mark.parametrize("joined", [(), (2,)])
def test_a_model_that_differs_from_the_whole_is_noticed(float_tflite, images, joined):
    feeds = [{"image": image[np.newaxis].astype(np.float32)} for image in images[:6]]
    one = one_file.build(float_tflite, 0.0, joined)
    verify.compare_one_file(float_tflite, one, 0.0, joined, feeds)
    for threshold in (-np.inf, np.inf):
        other = one_file.build(float_tflite, threshold, joined)
        with pytest.raises(ValueError, match="differs from the whole model at exit"):
            verify.compare_one_file(float_tflite, other, 0.0, joined, feeds)


def test_every_path_is_verified(float_tflite, images, monkeypatch):
    """Of images that all leave at once, too."""
    feeds = [{"image": images[:1].astype(np.float32)}] * 2
    taken = set()
    check = verify._check_answer

    def note(answer, exit, logits):
        taken.add(int(answer["exit"][0]))
        check(answer, exit, logits)

    monkeypatch.setattr(verify, "_check_answer", note)
    monkeypatch.setattr(verify, "_check_limits", lambda *_: None)
    one = one_file.build(float_tflite)
    verify.compare_one_file(float_tflite, one, 0.0, (), feeds)
    assert taken == {1, 2, 3, 4}


def test_thresholds_lead_some_image_through_every_exit():
    rng = np.random.default_rng(0)
    for count, exits in ((1, 6), (3, 6), (20, 6), (5, 1)):
        stops = rng.normal(size=(count, exits - 1)).astype(np.float32)
        taken = set()
        for thresholds in verify.thresholds_for_all_paths(stops):
            taken |= set(first_stop(stops, thresholds) + 1)
        assert taken == set(range(1, exits + 1))


def test_the_threshold_of_one_file_is_fixed(int8_bundle, images):
    runner = epnet_tf.SegmentRunner(int8_bundle.path / MODEL)
    runner.threshold = 1.0
    with pytest.raises(ValueError, match="part of a model that stops by itself"):
        runner.predict(images)


def test_a_file_without_its_description_runs_by_itself(float_bundle, images):
    content = (float_bundle.path / MODEL).read_bytes()
    expected = epnet_tf.SegmentRunner(float_bundle.path).predict(images[:5])
    model = SelfStoppingModel(content[: content.rindex(b"labels.txt") - 30])
    found = [model.run(image)[0] + 1 for image in images[:5]]
    assert found == list(expected.exit)


def test_labels_are_where_tools_look_for_them(int8_bundle):
    with zipfile.ZipFile(int8_bundle.path / MODEL) as archive:
        assert archive.read("labels.txt").decode() == "zero\none\ntwo\nthree\n"


def test_altered_files_are_refused(int8_bundle, copied, tmp_path):
    content = copied.read_bytes()
    bundle_dir = shutil.copytree(int8_bundle.path, tmp_path / "bundle")
    entry = int8_bundle.manifest.model
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), 100):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << rng.integers(8)
        (bundle_dir / MODEL).write_bytes(spoilt)
        with pytest.raises(ValueError, match="altered"):
            bundle.read_tflite(bundle_dir, entry)
    start = content.rindex(b"labels.txt") - 30
    for place in rng.integers(0, start, 50):
        spoilt = bytearray(content)
        spoilt[place] ^= 1
        copied.write_bytes(spoilt)
        with pytest.raises(ValueError, match="altered"):
            epnet_tf.SegmentRunner(copied)


def test_a_damaged_archive_is_refused_or_says_the_same(copied):
    content = copied.read_bytes()
    manifest, _ = read_file(copied)
    rng = np.random.default_rng(0)
    refused = 0
    for place in range(content.rindex(b"PK\x03\x04"), len(content)):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << rng.integers(8)
        copied.write_bytes(spoilt)
        try:
            assert read_file(copied)[0] == manifest
        except ValueError:
            refused += 1
    assert refused > 500


def test_truncated_or_other_files_are_refused(copied):
    content = copied.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        copied.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"Expected a model\.tflite"):
            epnet_tf.SegmentRunner(copied)
    with zipfile.ZipFile(copied, "w") as archive:
        archive.writestr("epnet.json", json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match="format 'epnet-bundle'"):
        epnet_tf.SegmentRunner(copied)
