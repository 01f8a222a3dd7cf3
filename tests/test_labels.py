"""Labels: one check for every form, and its one sentence."""

import re

import numpy as np
import pytest

from epnet_tf.data.labels import check_labels

NUMBERS = [2, 0, 3, 1, 1]


@pytest.mark.parametrize(
    "labels",
    [
        NUMBERS,
        np.array(NUMBERS, "uint8"),
        np.array(NUMBERS, "float16"),
        np.array(NUMBERS)[:, None],
        np.eye(4)[NUMBERS],
        np.eye(4, dtype=bool)[NUMBERS],
    ],
    ids=["list", "bytes", "floats", "column", "one-hot", "one-hot bools"],
)
@pytest.mark.parametrize("num_classes", [4, None])
def test_labels_of_every_form(labels, num_classes):
    found = check_labels(labels, num_classes, count=5)
    assert found.tolist() == NUMBERS and np.issubdtype(found.dtype, np.integer)
    assert num_classes is None or found.dtype == np.int32


def test_booleans_are_two_classes():
    assert check_labels([True, False], 2).tolist() == [1, 0]


def test_rows_of_probabilities_only_where_they_are_asked_for():
    mixed = [[0.7, 0.3, 0.0], [0.1, 0.1, 0.8]]
    assert check_labels(mixed, 3, soft=True).tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"one-hot rows.*row 0 .* 0 to 0.7"):
        check_labels(mixed, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3, 4], r"within 0 to 3, for 4 classes\. Received: label 4, .* 1 to 4"),
        ([100, 100], r"within 0 to 3, for 4 classes\. Received: label 100"),
        ([-1, 0], r"within 0 to 3, for 4 classes\. Received: label -1"),
        (np.array([2**40]), r"for 4 classes\. Received: label 1099511627776"),
        ([0.0, np.inf], r"whole numbers\. Received: label inf"),
        ([0.0, 1.5], r"whole numbers\. Received: label 1\.5"),
        ([0.0, np.nan], r"whole numbers\. Received: label nan"),
        (["cat", "dog"], r"numbers of classes\. Received: 'cat'\."),
        (np.array([b"cat"], object), r"Received: b'cat'"),
        (None, "Received: None"),
        (2, r"\[n, 4\]\. Received: shape \[\]"),
        (np.zeros([2, 3]), r"\[n, 4\]\. Received: shape \[2, 3\]"),
        (np.zeros([2, 4, 1]), r"Received: shape \[2, 4, 1\]"),
        (np.zeros([2, 4]), r"one-hot rows.*row 0 .* which sum to 0"),
        (np.ones([2, 4]), r"one-hot rows.*row 0 .* which sum to 4"),
        ([[1, 0, 0, 0], [2, -1, 0, 0]], r"one-hot rows.*row 1 .* from -1 to 2"),
        ([], r"Expected labels, at least one\. Received: 0"),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_wrong_labels(labels, message, soft):
    with pytest.raises(ValueError) as raised:
        check_labels(labels, 4, soft=soft)
    text = str(raised.value)
    if soft:
        message = message.replace("one-hot rows", "rows of probabilities")
    assert re.search(message, text) and "\n" not in text
    assert text.startswith("Expected labels")


def test_a_label_for_each_image():
    with pytest.raises(
        ValueError, match=r"Expected y_test, one for each of 3 .* Received: 2\."
    ):
        check_labels([0, 1], 4, count=3, what="y_test")
