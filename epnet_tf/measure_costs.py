"""Measures what leaving through each exit of a bundle takes on this machine.

python -m epnet_tf.measure_costs --bundle=DIR --output=costs.json

One thread; all exits and the plain network, which is joined from the segments, run in
turn. What `train.py --costs=costs.json` then trains for are sums of the segments'
medians: run it where nothing else runs. The file is like the one that the app's
benchmark exports.
"""

import json
import os

from absl import flags

from epnet_tf import cli
from epnet_tf.files import write_whole
from epnet_tf.runtime import bundle, device_report, latency
from epnet_tf.runtime.runner import SegmentRunner


def main(_) -> None:
    """Measures, writes the file and prints it as a table."""
    # Not before the flags are known to be right.
    from epnet_tf.tflite import joining

    given = flags.FLAGS
    runner = SegmentRunner(given.bundle)
    segments = runner.manifest.segments
    if not segments:
        raise bundle.without_segments(runner.manifest)
    contents = [bundle.read_tflite(given.bundle, entry) for entry in segments]
    last = f"logits_{segments[-1].exit:02d}"
    network = joining.cut(joining.join(contents), [last])
    if os.path.isdir(given.output):
        raise ValueError(f"Expected as --output a file. Received: '{given.output}'.")
    # What cannot be written there is told before it is measured.
    with write_whole(given.output) as path:
        report = latency.measure(runner, network, given.rounds, given.beta)
        path.write_text(json.dumps(report, indent=1))
    print(device_report.format_report(device_report.read_device_report(given.output)))
    print(f"Costs in milliseconds are in {given.output}")


if __name__ == "__main__":
    flags.DEFINE_string("bundle", None, "The bundle.", required=True)
    flags.DEFINE_string("output", "costs.json", "The file to write.")
    flags.DEFINE_integer(
        "rounds", 1000, "In each, every exit answers one image.", lower_bound=1
    )
    flags.DEFINE_float("beta", None, "For bundles whose controllers take it.")
    cli.run(main)
