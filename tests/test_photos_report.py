"""What the report of photos says of numbers."""

import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))

import photos_report


@pytest.mark.parametrize(
    "points, words",
    [
        (-0.8, "0.80 points less"),
        (0.8, "0.80 points more"),
        (-12.345, "12.35 points less"),
        (0.006, "0.01 points more"),
        (0.004, "as accurate"),
        (-0.0, "as accurate"),
    ],
)
def test_a_difference_of_accuracy_is_said_without_a_sign(points, words):
    assert photos_report.compared(points) == words


def test_what_is_shipped_may_be_another_policy_at_each_beta():
    metrics = {
        "shipped": [{"policy": "softmax-per-exit"}, {"policy": "epnet"}],
        "policies": {
            "epnet": [{"accuracy": 0.1}, {"accuracy": 0.2}],
            "softmax-per-exit": [{"accuracy": 0.3}, {"accuracy": 0.4}],
        },
    }
    found = photos_report.shipped_rows(metrics)
    assert [row["accuracy"] for row in found] == [0.3, 0.2]
