"""What weighting the exits by their depth does to each of them, against the plain sum.

    python benchmarks/exit_weights.py --dataset=cifar10 --workdir=runs/exit-weights

Stage one is run for a few epochs with every power of `--exit_weight_power`, from the
same seed. The table has each exit's accuracy on the validation images, per cent, and
below it the best benefit that a single exit has. Run again, it resumes.
"""

import pathlib

import numpy as np
from absl import flags

from epnet_tf import cli

_DATASET = flags.DEFINE_string("dataset", "cifar10", "As in train.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the networks.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Epochs of stage one.", lower_bound=1)
_POWER = flags.DEFINE_multi_float("power", [0.0, 1.0], "Powers of the depth.")
_BETA = flags.DEFINE_multi_float("beta", [5e-7, 2.5e-6, 5e-6], "Cost sensitivities.")


def main(_) -> None:
    """Trains with every power, and prints the table."""
    # Not before the flags are known to be right: this takes seconds.
    from epnet_tf import data, policies
    from epnet_tf.experiments import experiment
    from epnet_tf.model import compute_states

    dataset = data.load_dataset(_DATASET.value, _DATA_DIR.value)
    accuracies, benefits = [], []
    for power in _POWER.value:
        workdir = (
            pathlib.Path(_WORKDIR.value) / f"{_EPOCHS.value}-epochs-power-{power:g}"
        )
        workdir.mkdir(parents=True, exist_ok=True)
        schedule = experiment.schedule_for(
            _DATASET.value, epochs=_EPOCHS.value, exit_weight_power=power
        )
        config = experiment.Config(
            _DATASET.value, schedule, (), precision="mixed_bfloat16"
        )
        model = experiment.trained_classifiers(config, dataset, workdir, verbose=2)
        validation = dataset.validation
        states = compute_states(model, validation.images, validation.labels, verbose=0)
        accuracies.append(100 * states.correct.mean(axis=0))
        costs = model.exit_costs
        benefits.append(
            [
                policies.score(policies.static(states, costs, b), states).benefit(b)
                for b in _BETA.value
            ]
        )
    print(f"{'power':15}" + "".join(f"{power:9g}" for power in _POWER.value))
    for i, row in enumerate(np.transpose(accuracies), start=1):
        print(f"{f'exit {i}':15}" + "".join(f"{x:9.2f}" for x in row))
    for beta, row in zip(_BETA.value, np.transpose(benefits), strict=True):
        print(f"{f'best at {beta:g}':15}" + "".join(f"{x:9.2f}" for x in row))


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
