"""Whether held-out states among the training states make better controllers.

    python benchmarks/held_out.py --workdir=models/maxmin

On images that it was trained on, a network is surer of itself than it will be. The
validation images are folded: controllers are trained on all training states and, some
times over, on one half of the validation states, and scored on the other half; then
the other way round. The table has the mean benefit of the halves for each β, with the
training images drawn anew once, and several times with as many passes less.
"""

import itertools
import pathlib

import numpy as np
from absl import flags

from epnet_tf import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder that train.py has filled.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_REPEATS = flags.DEFINE_multi_integer(
    "repeats", [0, 1, 3, 6], "How often each held-out state is taken."
)
_DRAWS = flags.DEFINE_multi_integer(
    "draws", [1, 3], "How often the training images are drawn anew."
)


def main(_) -> None:
    """Trains and scores with every number of repeats."""
    # Not before the flags are known to be right: this takes seconds.
    import keras

    from epnet_tf import policies
    from epnet_tf.experiments.case import mixed
    from epnet_tf.experiments.config import load_dataset, read_settings
    from epnet_tf.model import compute_states
    from epnet_tf.training import train_controllers

    workdir = pathlib.Path(_WORKDIR.value)
    config = read_settings(workdir / "config.json")
    dataset = load_dataset(config, _DATA_DIR.value)
    model = keras.saving.load_model(workdir / "classifiers.keras")
    validation, *train = (
        compute_states(model, split.images, split.labels)
        for split in (
            dataset.validation,
            *(dataset.unseen(draw) for draw in range(max(_DRAWS.value))),
        )
    )
    halves = [validation.take(slice(k, None, 2)) for k in (0, 1)]
    betas = config["betas"]
    print("draws   repeats   " + "".join(f"{beta:>9.0e}" for beta in betas))
    for draws, repeats in itertools.product(_DRAWS.value, _REPEATS.value):
        benefits = []
        for fit_on, score_on in (halves, halves[::-1]):
            states = mixed([*train[:draws], *[fit_on] * repeats])
            epochs = -(-config["schedule"]["controller_epochs"] // draws)
            sweep = train_controllers(model, states, betas, epochs=epochs, verbose=0)
            for i, beta in enumerate(betas):
                sweep.assign(i)
                score = policies.score(policies.epnet(model), score_on)
                benefits.append(score.benefit(beta))
        means = np.mean(np.reshape(benefits, [2, -1]), axis=0)
        print(
            f"{draws:<8}{repeats:<10}" + "".join(f"{m:9.2f}" for m in means), flush=True
        )


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
