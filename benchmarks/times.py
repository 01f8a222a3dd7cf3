"""What trained networks take, from Python and on the JVM: plain, early, a static exit.

    python benchmarks/times.py --workdir=models/maxmin --workdir=models/cifar10

Each folder is one that `train.py` has filled and `evaluate.py` has controllers in. The
policy is that of the data set's Table 1. All runs on one thread, in turn, on validation
images; run it where nothing else runs. Writes `results/times.md`. With
`--jvm=android_demo/engine/target/latency.json`, which `android_demo/build.sh latency`
leaves, it has the app's bundles on the JVM as well.
"""

import pathlib
import tempfile

import jvm_times
import numpy as np
from absl import flags

import epnet_tf
from epnet_tf import cli
from epnet_tf.conversion import benchmark
from epnet_tf.conversion.timing import Timing
from epnet_tf.data import Dataset
from epnet_tf.evaluation.markdown import table
from epnet_tf.experiments.case_controllers import kept_model
from epnet_tf.experiments.config import load_dataset, read_settings
from epnet_tf.experiments.plans import plan_for
from epnet_tf.files import write_whole
from epnet_tf.model import EPNet
from epnet_tf.quantization import modes
from epnet_tf.runtime.runner import SegmentRunner

_WORKDIR = flags.DEFINE_multi_string("workdir", None, "Folder that train.py filled.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_JVM = flags.DEFINE_string("jvm", None, "File that build.sh latency left.")
_RESULTS = flags.DEFINE_string("results", "results/times.md", "File to write.")
_ROUNDS = flags.DEFINE_integer(
    "rounds", 200, "In each, every contender runs ten images.", lower_bound=1
)

_MODES = {"none": "float32", "int8": "int8"}
_PLAIN = "plain backbone"
_LEFT_OUT = "runtime alone"
_INTRODUCTION = """# Times

Made by `python benchmarks/times.py`: what an image takes on one thread, all in turn:
the mean, what nine of ten images take at most, and the mean as a share of the plain
network's. The static exit is the one whose accuracy is nearest to the policy's.
"""


def main(_) -> None:
    """Measures every folder's network, and writes a table of each."""
    parts = [_INTRODUCTION]
    for workdir in _WORKDIR.value:
        parts.append(section(pathlib.Path(workdir)))
        print(parts[-1], flush=True)
    if _JVM.value:
        parts.append(jvm_times.section(jvm_times.read(_JVM.value)))
    with write_whole(_RESULTS.value) as path:
        path.write_text("\n".join(parts))


def section(workdir: pathlib.Path) -> str:
    """The times of one network, in float32 and in int8."""
    config = read_settings(workdir / "config.json")
    dataset = load_dataset(config, _DATA_DIR.value)
    beta = plan_for(dataset.name).table_beta
    model = kept_model(workdir, beta)
    found, said = {}, []
    for mode, name in _MODES.items():
        timings, share, accuracy = measured(model, dataset, mode)
        found[name] = timings
        said.append(
            f"in {name} it spends {share:.1%} of the plain network's multiply-adds and "
            f"is right on {accuracy:.2%}"
        )
    return (
        f"## {dataset.name}, LiteRT from Python\n\nPolicy for β = {beta:g}: "
        f"{', '.join(said)} of the validation images.\n\n{times_table(found)}"
    )


def measured(
    model: EPNet, dataset: Dataset, mode: str
) -> tuple[dict[str, Timing], float, float]:
    """Times of one quantization; the policy's share of the compute, its accuracy."""
    images, labels = dataset.validation.images, dataset.validation.labels
    calibration = modes.calibration_sample(dataset.train.images)
    with tempfile.TemporaryDirectory() as temporary:
        path = pathlib.Path(temporary) / "bundle"
        epnet_tf.convert(model, calibration, path, quantization=mode)
        answers = SegmentRunner(path).predict(images)
        timings = benchmark.compare(
            model, path, calibration, (images, labels), rounds=_ROUNDS.value
        )
    share = float(answers.macs.mean() / model.exit_macs.full)
    return timings, share, float(np.mean(answers.label == labels))


def times_table(found: dict[str, dict[str, Timing]]) -> str:
    """The contenders one below the other, quantizations side by side."""
    rows = []
    for place, names in enumerate(zip(*found.values(), strict=True)):
        if names[0].endswith(_LEFT_OUT):
            continue
        cells = [" / ".join(dict.fromkeys(names))]
        for timings in found.values():
            timing, plain = list(timings.values())[place], timings[_PLAIN]
            mean = timing.seconds.mean()
            cells += [f"{1e3 * mean:.3f} ms", f"{timing.milliseconds(90):.3f} ms"]
            cells.append(f"{mean / plain.seconds.mean():.2f}")
        rows.append(cells)
    columns = ("mean", "p90", "of plain")
    return table(["", *(f"{n}, {c}" for n in found for c in columns)], rows)


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
