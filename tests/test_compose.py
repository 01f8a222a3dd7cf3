"""Composed images: labels that can be read, known parts, the same from a seed."""

import hashlib

import numpy as np
import pytest

from epnet_tf.data.compose import compose_max_min, compose_multi_scale


def blocks(count=40, size=28, seed=7):
    """Digits as solid blocks whose brightness gives them away: 10 + index."""
    rng = np.random.default_rng(seed)
    digits = np.zeros((count, size, size), np.uint8)
    for index in range(count):
        height, width = rng.integers(6, 21, 2)
        top, left = rng.integers(0, size - np.array([height, width]) + 1)
        digits[index, top : top + height, left : left + width] = 10 + index
    return digits, rng.integers(0, 10, count)


def garments(count=30, seed=3):
    """Two brightnesses in a frame: 200 in the left half, 100 in the right."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 4:24, 4:14], images[:, 4:24, 14:24] = 200, 100
    return images, np.random.default_rng(seed).integers(0, 10, count)


def checksum(*arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.astype("<i4").tobytes())
    return digest.hexdigest()[:16]


def bounding_box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def test_max_min_digits_are_whole_apart_and_labelled():
    digits, values = blocks()
    areas = (digits > 0).sum((1, 2))
    images, labels, difficulty = compose_max_min(
        digits, values, 200, np.random.default_rng(0)
    )
    for image, label, level in zip(images, labels, difficulty, strict=True):
        shown, pixels = np.unique(image[image > 0], return_counts=True)
        sources = shown.astype(int) - 10
        assert len(sources) == (1, 2, 4)[level]
        # Blocks fill their boxes: an overlap would have taken pixels from one.
        np.testing.assert_array_equal(pixels, areas[sources])
        expected = np.ptp(values[sources]) if level else values[sources[0]]
        assert label == expected


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 101])
def test_max_min_levels_are_two_one_one(count):
    *arrays, difficulty = compose_max_min(*blocks(), count, np.random.default_rng(1))
    assert [len(array) for array in arrays] == [count, count]
    counts = np.bincount(difficulty, minlength=3)
    assert counts.sum() == count
    assert np.all(np.abs(counts - count * np.array([0.5, 0.25, 0.25])) < 1)


def test_max_min_uses_every_digit_equally():
    digits, values = blocks()
    images, _, difficulty = compose_max_min(
        digits, values, 200, np.random.default_rng(2)
    )
    for level in range(3):
        shown = [np.unique(image[image > 0]) for image in images[difficulty == level]]
        uses = np.bincount(np.concatenate(shown).astype(int) - 10, minlength=40)
        assert uses.max() - uses.min() <= 1


def test_max_min_places_are_uniform():
    digits = np.full((1, 10, 10), 255, np.uint8)
    images, _, difficulty = compose_max_min(
        digits, np.array([3]), 8200, np.random.default_rng(0)
    )
    easy = images[difficulty == 0]
    counts = np.bincount((easy > 0).any(2).argmax(1), minlength=41)
    assert len(counts) == 41  # 0 to 40, both ends included
    assert np.all(np.abs(counts - 100) < 50)  # five standard deviations


def test_max_min_needs_room_for_four_digits():
    digits, values = blocks()
    with pytest.raises(ValueError, match=r"largest digit \(20 pixels\).*canvas=39"):
        compose_max_min(digits, values, 8, np.random.default_rng(0), canvas=39)


def test_multi_scale_types():
    images, labels = garments()
    composed, _, kinds = compose_multi_scale(
        images, labels, 80, np.random.default_rng(0)
    )
    assert np.bincount(kinds).tolist() == [20, 20, 20, 20]
    corners = {kind: set() for kind in range(4)}
    for image, kind in zip(composed, kinds, strict=True):
        top, left, bottom, right = bounding_box(image > 0)
        corners[kind].add((top, left))
        size = {0: 20 * 17 / 28, 3: None}.get(kind, 20 * 42 / 28)
        if size:
            assert abs(bottom - top - size) <= 2 and abs(right - left - size) <= 2
    # 28 pixels become 42, so the frame of 4 becomes 6; the rest is centred in 50.
    assert all(abs(y - 10) <= 1 and abs(x - 10) <= 1 for y, x in corners[1])
    assert len(corners[1]) == 1
    assert len(corners[0]) > 10 and len(corners[2]) > 10


def test_multi_scale_small_garment_lies_on_top_and_gives_the_label():
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 4:24, 4:24], images[1, 4:24, 4:24] = 100, 200
    composed, labels, kinds = compose_multi_scale(
        images, np.array([5, 7]), 400, np.random.default_rng(0)
    )
    checked = 0
    for image, label in zip(composed[kinds == 3], labels[kinds == 3], strict=True):
        small, large = (100, 200) if label == 5 else (200, 100)
        if not (image == large).any():  # the same garment twice
            continue
        top, left, bottom, right = bounding_box(image == small)
        # Nothing of the large one shows inside the small one.
        assert (image[top:bottom, left:right] == small).all()
        assert {bottom - top, right - left} <= {10, 11, 12}
        checked += 1
    assert checked > 50


def test_multi_scale_needs_room_for_a_large_garment():
    with pytest.raises(ValueError, match=r"1\.5 times its size \(42.*canvas=41"):
        compose_multi_scale(*garments(), 8, np.random.default_rng(0), canvas=41)


@pytest.mark.parametrize(
    ("compose", "sources", "expected"),
    [
        (compose_max_min, blocks(), "a7296470c40a6859"),
        (compose_multi_scale, garments(), "af7886bfaf491b5f"),
    ],
)
def test_a_seed_composes_what_it_always_did(compose, sources, expected):
    """Trained models depend on it: a new checksum here is a new data set."""
    composed = compose(*sources, 40, np.random.default_rng(0))
    assert [array.dtype for array in composed] == [np.uint8, np.int32, np.int8]
    assert checksum(*composed) == expected
    other = compose(*sources, 40, np.random.default_rng(1))
    assert checksum(*other) != expected
