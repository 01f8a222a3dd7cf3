"""Shows what the Android demo's benchmark has measured on a device.

python -m epnet_tf.device_report benchmark.json ...
"""

from epnet_tf import cli
from epnet_tf.runtime.device_report import (
    DeviceReport,
    Latency,
    format_report,
    read_device_report,
)

__all__ = ["DeviceReport", "Latency", "format_report", "read_device_report"]


def main(arguments: list[str]) -> None:
    """Reads all reports first, so that a wrong one is told before any table."""
    reports = [read_device_report(path) for path in arguments[1:]]
    print("\n\n".join(map(format_report, reports)))


if __name__ == "__main__":
    cli.run(main, positional="REPORT...")
