"""What makes controllers good: variants on the exit states of a trained experiment.

    python benchmarks/controllers.py --workdir=runs/demo

Every variant trains on the same training states and is scored on the same test states;
the table has the mean benefit over seeds, for each β of the experiment.
"""

import dataclasses
import pathlib

import keras
import numpy as np
from absl import flags
from keras import layers

from epnet_tf import cli, policies
from epnet_tf.experiments.config import load_dataset, read_settings
from epnet_tf.model import Controller, PaperController, compute_states, heads
from epnet_tf.training import train_controllers

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder that train.py has filled.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with the .npz files.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds to average over.", lower_bound=1)


@keras.saving.register_keras_serializable("epnet_tf.benchmarks")
@dataclasses.dataclass(frozen=True)
class PartialController(Controller):
    """Our controller with some of its inputs, and another start.

    Args:
        confidence: Whether it sees the confidence features.
        state: Whether it sees logits and pooled features.
        bias: First bias of the stop logit; 0 is probability ½.
    """

    confidence: bool = True
    state: bool = True
    bias: float = heads.CONTINUE_BIAS

    def build(self, name, channels, num_classes, beta_range=None):
        """As `Controller.build`."""
        pooled = keras.Input([channels])
        logits = keras.Input([num_classes])
        parts = [heads.ConfidenceFeatures()(logits)] if self.confidence else []
        parts += [logits, pooled] if self.state else []
        x = layers.Concatenate()(parts) if parts[1:] else parts[0]
        x = layers.BatchNormalization(momentum=0.9, center=False, scale=False)(x)
        x = layers.Dense(self.units, activation="relu")(x)
        x = layers.Dropout(self.dropout)(x)
        bias = keras.initializers.Constant(self.bias)
        stop = layers.Dense(1, bias_initializer=bias)(x)
        return keras.Model([pooled, logits], stop, name=name)


WITHOUT_EXPLORATION = "the first, without exploration"
VARIANTS = {
    "confidence + logits + features": Controller(),
    WITHOUT_EXPLORATION: Controller(),
    "logits + features": PartialController(confidence=False),
    "confidence alone": PartialController(state=False),
    "all, started at probability 1/2": PartialController(bias=0.0),
    "the paper's, 10-10-10 / 10-1": PaperController((10, 10, 10), (10, 1)),
    "the paper's, 100-10-10 / 100-100-50-1": PaperController(
        (100, 10, 10), (100, 100, 50, 1)
    ),
}


def main(_) -> None:
    """Trains and scores every variant."""
    workdir = pathlib.Path(_WORKDIR.value)
    config = read_settings(workdir / "config.json")
    dataset = load_dataset(config, _DATA_DIR.value)
    model = keras.saving.load_model(workdir / "classifiers.keras")
    train, validation, test = (
        compute_states(model, split.images, split.labels)
        for split in (dataset.unseen(), dataset.validation, dataset.test)
    )
    betas, costs = config["betas"], model.exit_costs
    print(f"{'':40}" + "".join(f"{beta:>9.0e}" for beta in betas))
    for tune in (policies.static, policies.softmax_gate_tuned):
        rules = [tune(validation, costs, beta) for beta in betas]
        benefits = [
            policies.score(rule, test).benefit(beta)
            for rule, beta in zip(rules, betas, strict=True)
        ]
        print(f"{rules[0].name:40}" + "".join(f"{b:9.2f}" for b in benefits))
    for name, controller in VARIANTS.items():
        variant = model.with_new_controllers(controller)
        exploration = {"temperature": 0.0} if name == WITHOUT_EXPLORATION else {}
        benefits = np.zeros([_SEEDS.value, len(betas)])
        for seed in range(_SEEDS.value):
            sweep = train_controllers(
                variant,
                train,
                betas,
                seed=seed,
                epochs=config["schedule"]["controller_epochs"],
                verbose=0,
                **exploration,
            )
            for i, beta in enumerate(betas):
                sweep.assign(i)
                score = policies.score(policies.epnet(variant), test)
                benefits[seed, i] = score.benefit(beta)
        cells = (f"{m:9.2f}" for m in benefits.mean(axis=0))
        print(f"{name:40}" + "".join(cells), flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    cli.run(main)
