"""Make the app's bundles for digits, from a trained network of models/.

    python android_demo/tools/make_digit_bundles.py runs/bundles

leaves there maxmin-2e-07 and maxmin-1e-06, for package_bundles.py: the controllers are
those of the evaluation, int8 ranges come from training images. The last one has the
model in one file as well.
"""

import argparse
import pathlib

from epnet_tf.conversion.convert import convert
from epnet_tf.data import load_dataset
from epnet_tf.experiments.case_controllers import kept_model
from epnet_tf.quantization import modes

WORKDIR = pathlib.Path(__file__).resolve().parents[2] / "models" / "maxmin"
# One in the app is enough to show, of a megabyte.
FORMATS = {2e-7: "segments", 1e-6: "both"}


def main() -> None:
    """Reads the command line and converts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=pathlib.Path, help="folder of the bundles")
    parser.add_argument("--data_dir", help="as for train.py")
    arguments = parser.parse_args()
    dataset = load_dataset("maxmin", arguments.data_dir)
    calibration = modes.calibration_sample(dataset.train.images)
    for beta, formats in FORMATS.items():
        convert(
            kept_model(WORKDIR, beta),
            calibration,
            arguments.output / f"maxmin-{beta:g}",
            labels=dataset.labels,
            name=dataset.name,
            formats=formats,
            overwrite=True,
        )


if __name__ == "__main__":
    main()
