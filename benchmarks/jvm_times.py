"""What android_demo/build.sh latency measured on the JVM, for the table of times."""

from epnet_tf.evaluation.markdown import table
from epnet_tf.runtime.device_report import read_json

_FORMAT = "epnet-jvm-times"


def read(file: str) -> dict:
    """What `android_demo/build.sh latency` measured.

    Raises:
        ValueError: If the file holds something else.
        OSError: If it cannot be read.
    """
    found, kind = read_json(file)
    if kind != _FORMAT:
        raise ValueError(
            f"Expected a file of build.sh latency, of format '{_FORMAT}'. "
            f"Received: '{file}' of format {kind}."
        )
    return found


def section(found: dict) -> str:
    """The app's bundles on the JVM, as from `read`, a table of each."""
    parts = [
        f"## TFLite {found['tflite']} on the JVM\n\nThe app's bundles, one thread's "
        f"processor time, {found['images']:,} test images {found['rounds']} times.\n"
    ]
    for bundle in found["tables"]:
        rows = bundle["rows"]
        (plain,) = (r["mean_ms"] for r in rows if r["name"] == "plain network")
        cells = [
            [
                row["name"],
                f"{row['accuracy']:.2%}",
                f"{row['mean_macs'] / 1e6:.2f} M",
                f"{row['mean_ms']:.3f} ms",
                f"{row['p90_ms']:.3f} ms",
                f"{row['mean_ms'] / plain:.2f}",
            ]
            for row in rows
        ]
        head = [bundle["name"], "accuracy", "multiply-adds", "mean", "p90", "of plain"]
        parts.append(table(head, cells))
    return "\n".join(parts)
