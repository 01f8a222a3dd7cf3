"""Scores every policy on trained networks; writes the paper's tables and figures.

    python evaluate.py --workdir=runs/maxmin --workdir=runs/cifar10 --results=results

A thin script over `epnet_tf.experiments.study`. Each folder is one that `train.py` has
filled; what comes out is in a folder of the data set's name under --results.
"""

import pathlib

from absl import flags, logging

from epnet_tf import cli

_WORKDIR = flags.DEFINE_multi_string("workdir", None, "Folder that train.py filled.")
_RESULTS = flags.DEFINE_string("results", "results", "Folder for what comes out.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder with the .npz files; default: EPNET_DATA_DIR."
)
_BETA = flags.DEFINE_multi_float(
    "beta",
    [],
    "Cost sensitivity instead of the paper's, points per multiply-add, or per unit of "
    "--costs.",
)
_COSTS = flags.DEFINE_string(
    "costs",
    None,
    "JSON file of what leaving through each exit costs, instead of multiply-adds; "
    "default: what train.py was given.",
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 3, "Trainings of the controllers to average.", lower_bound=1
)
_BUDGET = flags.DEFINE_multi_string(
    "budget",
    [],
    "Mean multiply-adds to promise, such as 10e6 or 45% of the full network, or with "
    "--costs such as 1.5ms; needs a folder that train.py --beta_range filled.",
)
_MAX_ACCURACY_DROP = flags.DEFINE_multi_float(
    "max_accuracy_drop",
    [],
    "Points of accuracy to lose at most against the full network; needs the same.",
)


def main(_) -> None:
    """Evaluates each folder, then draws all data sets side by side."""
    # Not before the flags are known to be right: this takes seconds.
    from epnet_tf.evaluation import figures, policy_figures
    from epnet_tf.experiments import study

    logging.set_verbosity(logging.INFO)
    results = pathlib.Path(_RESULTS.value)
    for workdir in _WORKDIR.value:
        study.evaluate(
            workdir,
            results,
            _DATA_DIR.value,
            tuple(_BETA.value),
            _SEEDS.value,
            tuple(_BUDGET.value),
            tuple(_MAX_ACCURACY_DROP.value),
            _COSTS.value,
        )
    reports = study.reports_in(results)
    for ending in ("png", "svg"):
        figure = policy_figures.benefit_against_beta(list(reports.values()))
        figures.save(figure, results / f"benefit.{ending}")
    print("\n".join(str(file.with_name("report.md")) for file in reports))


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
