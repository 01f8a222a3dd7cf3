"""What a benchmark of a bundle has measured on a device.

The Android demo's benchmark exports it, and `python -m epnet_tf.measure_costs` writes
it. `epnet_tf.read_costs` makes of it what takes the place of multiply-adds.
"""

import dataclasses
import json
import os
import pathlib

import numpy as np

FORMAT = "epnet-device-report"
VERSION = 1

# What is always there; the thermal state is not.
_DEVICE = ("manufacturer", "model", "abi", "cores")
_CONDITIONS = ("tflite", "threads", "warm_up", "repetitions", "created")
_BUNDLE = ("name", "quantization", "beta", "full_macs")
_EARLY_EXIT = ("images", "accuracy", "mean_macs", "mean_ms", "p90_ms")


@dataclasses.dataclass(frozen=True)
class Latency:
    """Latencies of the same work, in milliseconds."""

    mean: float
    median: float
    p90: float


@dataclasses.dataclass(frozen=True)
class DeviceReport:
    """A benchmark of one bundle on one device.

    Attributes:
        device: What the device says about itself: manufacturer, model, abi, cores; of
            a phone android_sdk, and its thermal state before and after.
        conditions: Version of TFLite, threads, warm_up and repetitions.
        bundle: The bundle's name, quantization, beta and full_macs.
        layers: The layer of each exit, to tell which model the costs are for.
        macs: int64 [exits], multiply-adds of leaving through each exit.
        segments: Latency of each exit's own segment.
        reaching: Latency up to and with each exit: what leaving there costs.
        network: The whole network without early exits, or None.
        early_exit: Early exit on the packaged test images, or None: `images`,
            `accuracy`, `mean_macs` and latencies.
        examples: Latency of early exit on the example images by what ran it,
            `segments` and, where the bundle has it, `one_file`; empty if not measured.
    """

    device: dict
    conditions: dict
    bundle: dict
    layers: tuple[str, ...]
    macs: np.ndarray
    segments: tuple[Latency, ...]
    reaching: tuple[Latency, ...]
    network: Latency | None
    early_exit: dict | None
    examples: dict[str, Latency]

    @property
    def exit_costs_ms(self) -> np.ndarray:
        """float64 [exits], milliseconds of leaving through each exit.

        The sums of the segments' medians: they never fall from exit to exit, and a
        moment in which the device was busy disturbs them least.
        """
        return np.cumsum([latency.median for latency in self.segments])


def read_device_report(path: str | os.PathLike) -> DeviceReport:
    """Reads the JSON that the app exports, or `epnet_tf.measure_costs` writes.

    Args:
        path: The file.

    Returns:
        The `DeviceReport`.

    Raises:
        ValueError: If this is no such report, or one of another version.
        OSError: If the file cannot be read.
    """
    return report_of(*read_json(path), path)


def read_json(path: str | os.PathLike) -> tuple[dict, object]:
    """Reads a JSON file that tells its format.

    Args:
        path: The file.

    Returns:
        Its content and its `format`; of what is no object, nothing and its type.

    Raises:
        ValueError: If it is no JSON.
        OSError: If the file cannot be read.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from None
    if not isinstance(content, dict):
        return {}, type(content)
    return content, content.get("format")


def report_of(content: dict, found, path: str | os.PathLike) -> DeviceReport:
    """Reads a report's content, as `read_device_report` does.

    Args:
        content: What the file holds.
        found: Its format.
        path: Where it is from, for messages.

    Returns:
        The `DeviceReport`.

    Raises:
        ValueError: If this is no such report, or one of another version.
    """
    if found != FORMAT:
        raise ValueError(
            f"Expected a file of format '{FORMAT}'. Received: {found} in {path}"
        )
    if content.get("version") != VERSION:
        raise ValueError(
            f"Expected a report of version {VERSION}. "
            f"Received: version {content.get('version')} in {path}"
        )
    try:
        report = _decode(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a complete report: {error!r}") from None
    if not report.layers or np.any(np.diff(report.macs) <= 0):
        raise ValueError(
            f"Expected exits with rising MACs. Received: {report.macs} in {path}"
        )
    return report


def _decode(content: dict) -> DeviceReport:
    exits = content["exits"]
    network, early_exit = content.get("network"), content.get("early_exit")
    for part, names in ((content["device"], _DEVICE), (content["bundle"], _BUNDLE)):
        _require(part, names)
    if early_exit is not None:
        _require(early_exit, _EARLY_EXIT)
    return DeviceReport(
        device=dict(content["device"]),
        conditions={name: content[name] for name in _CONDITIONS},
        bundle=dict(content["bundle"]),
        layers=tuple(str(e["layer"]) for e in exits),
        macs=np.array([e["cumulative_macs"] for e in exits], np.int64),
        segments=tuple(_latency(e["segment"]) for e in exits),
        reaching=tuple(_latency(e["reaching"]) for e in exits),
        network=None if network is None else _latency(network),
        early_exit=early_exit,
        examples={
            name: _latency(measured)
            for name, measured in content.get("examples", {}).items()
        },
    )


def _require(content: dict, names: tuple[str, ...]) -> None:
    for name in names:
        if content[name] is None:
            raise KeyError(name)


def _latency(content: dict) -> Latency:
    values = (content["mean_ms"], content["median_ms"], content["p90_ms"])
    return Latency(*map(float, values))


def format_report(report: DeviceReport) -> str:
    """The report as a table, with a line about the device before it."""
    device, conditions = report.device, report.conditions
    heat = device.get("thermal_before"), device.get("thermal_after")
    system = ""
    if "android_sdk" in device:
        system = f", Android SDK {device['android_sdk']}"
    lines = [
        f"{device['manufacturer']} {device['model']}{system}, {device['abi']}, "
        f"{device['cores']} cores, "
        f"thermal state {heat[0] or 'unknown'} to {heat[1] or 'unknown'}",
        f"bundle {report.bundle['name']} ({report.bundle['quantization']}), "
        f"beta {report.bundle['beta']:g}, TFLite {conditions['tflite']}, "
        f"{conditions['threads']} thread(s), {conditions['repetitions']} repetitions",
        "",
        f"{'':39}  {'segment, ms':>19}  {'reaching, ms':>19}",
        f"{'exit':>4}  {'layer':<24} {'MACs':>8}" + 2 * f"  {'median':>9} {'p90':>9}",
    ]
    rows = zip(
        report.layers, report.macs, report.segments, report.reaching, strict=True
    )
    for number, (layer, macs, segment, reaching) in enumerate(rows, start=1):
        lines.append(
            f"{number:>4}  {layer:<24} {macs / 1e6:>6.2f} M  "
            f"{segment.median:>9.4f} {segment.p90:>9.4f}  "
            f"{reaching.median:>9.4f} {reaching.p90:>9.4f}"
        )
    if report.network is not None:
        lines.append(
            f"whole network {report.bundle['full_macs'] / 1e6:.2f} M: "
            f"median {report.network.median:.4f} ms, p90 {report.network.p90:.4f} ms"
        )
    if report.early_exit is not None:
        early = report.early_exit
        lines.append(
            f"early exit on {early['images']} images: "
            f"accuracy {early['accuracy']:.4f}, "
            f"mean {early['mean_macs'] / 1e6:.2f} M MACs, "
            f"mean {early['mean_ms']:.4f} ms, p90 {early['p90_ms']:.4f} ms"
        )
    for name, latency in report.examples.items():
        lines.append(
            f"early exit on the examples, {name.replace('_', ' ')}: "
            f"median {latency.median:.4f} ms, p90 {latency.p90:.4f} ms"
        )
    return "\n".join(lines)
