"""The reader of the Android demo's benchmark."""

import copy
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from epnet_tf import device_report

ROOT = pathlib.Path(__file__).parents[1]


def latency(median: float) -> dict:
    return {"mean_ms": median + 0.01, "median_ms": median, "p90_ms": median + 0.1}


def exit_entry(number: int, macs: int) -> dict:
    return {
        "exit": number,
        "layer": f"block_{number}",
        "macs": macs,
        "cumulative_macs": number * macs,
        "segment": latency(0.2),
        "reaching": latency(0.2 * number),
    }


REPORT = {
    "format": "epnet-device-report",
    "version": 1,
    "created": "2026-11-22T12:00:00Z",
    "device": {
        "manufacturer": "Acme",
        "model": "Phone 1",
        "android_sdk": 34,
        "abi": "arm64-v8a",
        "cores": 8,
        "thermal_before": "none",
        "thermal_after": "light",
    },
    "tflite": "1.4.2",
    "threads": 1,
    "warm_up": 50,
    "repetitions": 200,
    "bundle": {
        "name": "maxmin-4e-07",
        "quantization": "int8",
        "beta": 4e-07,
        "full_macs": 3_500_000,
    },
    "exits": [exit_entry(k, 1_000_000) for k in (1, 2, 3)],
    "network": latency(0.5) | {"macs": 3_500_000},
    "examples": {"segments": latency(0.25), "one_file": latency(0.35)},
    "early_exit": latency(0.3) | {"images": 1000, "accuracy": 0.97, "mean_macs": 1.5e6},
}


@pytest.fixture
def write(tmp_path):
    def write_report(content) -> str:
        path = tmp_path / "benchmark.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write_report


def test_costs_of_the_exits_in_milliseconds(write):
    report = device_report.read_device_report(write(REPORT))
    np.testing.assert_allclose(report.exit_costs_ms, [0.2, 0.4, 0.6])
    assert report.macs.tolist() == [1_000_000, 2_000_000, 3_000_000]
    assert report.layers == ("block_1", "block_2", "block_3")
    assert report.network == device_report.Latency(0.51, 0.5, 0.6)


def test_table(write):
    text = device_report.format_report(device_report.read_device_report(write(REPORT)))
    assert "Acme Phone 1, Android SDK 34" in text
    assert "thermal state none to light" in text
    assert "block_3" in text
    assert "whole network 3.50 M: median 0.5000 ms, p90 0.6000 ms" in text
    assert "accuracy 0.9700, mean 1.50 M MACs" in text
    assert "on the examples, segments: median 0.2500 ms, p90 0.3500 ms" in text
    assert "on the examples, one file: median 0.3500 ms, p90 0.4500 ms" in text


def test_what_is_not_measured_may_be_missing(write):
    content = copy.deepcopy(REPORT)
    for name in ("network", "early_exit", "examples"):
        del content[name]
    for name in ("thermal_before", "thermal_after"):
        del content["device"][name]
    report = device_report.read_device_report(write(content))
    text = device_report.format_report(report)
    assert report.network is None and report.examples == {}
    assert "on the examples" not in text
    assert "thermal state unknown to unknown" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format="other"), "format 'epnet-device-report'"),
        (lambda r: r.update(version=2), "version 1. Received: version 2"),
        (lambda r: r.pop("exits"), "not a complete report: KeyError"),
        (lambda r: r["device"].pop("model"), "not a complete report: KeyError"),
        (lambda r: r["bundle"].update(beta=None), "not a complete report: KeyError"),
        (lambda r: r["early_exit"].pop("p90_ms"), "not a complete report: KeyError"),
        (
            lambda r: r["examples"]["one_file"].pop("p90_ms"),
            "not a complete report: KeyError",
        ),
        (
            lambda r: r["exits"][0]["segment"].update(mean_ms="x"),
            "not a complete report: ValueError",
        ),
        (lambda r: r.update(examples=[]), "not a complete report: AttributeError"),
        (lambda r: r["exits"].reverse(), "rising MACs"),
        (lambda r: r["exits"].clear(), "rising MACs"),
    ],
)
def test_other_files_are_refused(write, change, message):
    content = copy.deepcopy(REPORT)
    change(content)
    with pytest.raises(ValueError, match=message):
        device_report.read_device_report(write(content))


def test_command(write, capsys):
    device_report.main(["device_report", write(REPORT), write(REPORT)])
    assert capsys.readouterr().out.count("block_1") == 2


def test_command_tells_a_wrong_file_before_any_table(tmp_path):
    (tmp_path / "good.json").write_text(json.dumps(REPORT))
    (tmp_path / "list.json").write_text("[]")
    for names, code, sentence in (
        (["good.json", "list.json"], 1, "error: Expected a file of format"),
        (["good.json", "no.json"], 1, "error: No such file or directory: "),
        ([], 2, "error: expected REPORT..., see --help."),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "epnet_tf.device_report"]
            + [str(tmp_path / name) for name in names],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == code and done.stdout == ""
        assert done.stderr.startswith(sentence) and done.stderr.count("\n") == 1
        assert all(name in done.stderr for name in names[1:])
