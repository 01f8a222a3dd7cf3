"""The table of what the JVM measured."""

import json
import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))
import jvm_times


def row(name, mean):
    figures = {"accuracy": 0.9876, "mean_macs": 26.7e6, "mean_ms": mean, "p90_ms": 3.0}
    return {"name": name} | figures


def test_times_on_the_jvm_are_shares_of_the_plain_network(tmp_path):
    rows = [row("maxmin", 1.0), row("plain network", 4.0)]
    found = {"format": "epnet-jvm-times", "tflite": "2.16.1", "images": 1000}
    found |= {"rounds": 5, "tables": [{"name": "maxmin", "rows": rows}]}
    file = tmp_path / "latency.json"
    file.write_text(json.dumps(found))
    text = jvm_times.section(jvm_times.read(file))
    assert "| maxmin | 98.76% | 26.70 M | 1.000 ms | 3.000 ms | 0.25 |" in text
    assert "| plain network | 98.76% | 26.70 M | 4.000 ms | 3.000 ms | 1.00 |" in text
    assert "1,000 test images 5 times" in text


def test_another_file_is_refused(tmp_path):
    file = tmp_path / "latency.json"
    file.write_text('{"format": "epnet-device-report"}')
    with pytest.raises(ValueError, match="of format epnet-device-report"):
        jvm_times.read(file)
