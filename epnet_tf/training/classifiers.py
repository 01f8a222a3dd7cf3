"""Stage one: main branch and branch classifiers, by the sum of cross-entropies."""

from collections.abc import Sequence

import keras
from keras import ops

from epnet_tf.model import graph
from epnet_tf.model.states import split_state_model
from epnet_tf.training.stage import num_replicas
from epnet_tf.training.trainer import ExitTrainer


def depth_weights(num_exits: int, power: float) -> list[float]:
    """Weights of the exits' cross-entropies that grow with depth, 1 on average.

    What the early exits ask of the first layers costs the last exit accuracy; growing
    weights leave these layers to the later exits. That pays at small β alone
    (`benchmarks/exit_weights.py`).

    Args:
        num_exits: Number of exits N.
        power: The weight of exit i is in proportion to i to this power; 0 for 1 each.

    Returns:
        N weights, that of exit 1 first.
    """
    powers = [i**power for i in range(1, num_exits + 1)]
    return [num_exits * p / sum(powers) for p in powers]


def gradient_shares(main_branch: keras.Model) -> dict[str, float]:
    """What gradient equilibrium leaves of the gradients of the main branch's layers.

    A layer is pulled by the losses of all exits behind it: the first ones of a resnet12
    by twelve, the last ones by one. Equilibrium (Li et al., ICCV 2019, section 3.2)
    gives each exit 1/k of what reaches a layer with k exits behind it, and hands on
    (k − 1)/k: telescoped, the mean of these k gradients in place of their sum.

    Args:
        main_branch: A functional model from images to what each exit reads.

    Returns:
        1/k by the name of each layer, as it is called in the model's graph.
    """
    exits_behind: dict[str, int] = {}
    for features in main_branch.outputs:
        for name in {n.operation.name for n in graph.ancestors([features])}:
            exits_behind[name] = exits_behind.get(name, 0) + 1
    return {name: 1 / count for name, count in exits_behind.items()}


@keras.saving.register_keras_serializable("epnet_tf")
class ClassifierTrainer(ExitTrainer):
    """Trains main branch and classifiers by the sum of their cross-entropies (4.3).

    Compile with an optimizer (the loss is built in) and fit on raw images and labels,
    integers or one-hot. Reports `accuracy` (of the last exit) and `exits_accuracy`
    (mean over all exits). Of a model that is `frozen`, it trains the heads alone.

    Args:
        model: The `EPNet` that is trained in place.
        exit_weights: Weights of the N cross-entropies; None for 1 each.
        equilibrium: Whether each layer of the main branch follows the mean of the
            gradients of the exits behind it, in place of their sum
            (`gradient_shares`).
        frozen_statistics: Whether the main branch runs as in inference while it is
            trained: its batch normalizations keep their statistics and it drops
            nothing. For fine-tuning a pretrained network with a small learning rate.

    Raises:
        ValueError: If the number of weights is not that of the exits.
    """

    def __init__(
        self,
        model: keras.Model,
        exit_weights: Sequence[float] | None = None,
        frozen_statistics: bool = False,
        equilibrium: bool = False,
        **kwargs,
    ):
        super().__init__(model, **kwargs)
        if exit_weights is not None and len(exit_weights) != model.num_exits:
            raise ValueError(
                f"Expected {model.num_exits} exit_weights, one for each exit. "
                f"Received: {len(exit_weights)}."
            )
        self.exit_weights = tuple(exit_weights) if exit_weights else None
        self.frozen_statistics = frozen_statistics
        self.equilibrium = equilibrium
        self.main_branch, self.heads = split_state_model(model)
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.exits_accuracy = keras.metrics.Mean(name="exits_accuracy")

    @property
    def trainable_weights(self):
        """Main branch, if not frozen, and classifiers; controllers take no part."""
        trained = self.heads if self.model.frozen else self.states
        return trained.trainable_weights

    def call(self, inputs, training=None):
        """States of the images: the logits of all exits among them."""
        if not (training and (self.model.frozen or self.frozen_statistics)):
            return self.states(inputs, training=training)
        return self.heads(self.main_branch(inputs, training=False), training=True)

    def adjusted(self, gradients):
        """The gradients, those of the main branch in equilibrium if it is asked for."""
        if not self.equilibrium:
            return gradients
        shares = {
            id(weight): share
            for name, share in gradient_shares(self.main_branch).items()
            for weight in self.main_branch.get_layer(name).weights
        }
        return [
            gradient if gradient is None else gradient * shares.get(id(weight), 1)
            for gradient, weight in zip(gradients, self.trainable_weights, strict=True)
        ]

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The (weighted) sum of the exits' cross-entropies, mean over the batch."""
        targets = self.targets(y)
        weights = self.exit_weights or [1.0] * self.model.num_exits
        losses = sum(
            weight * ops.categorical_crossentropy(targets, logits, from_logits=True)
            for weight, logits in zip(weights, self.logits(y_pred), strict=True)
        )
        # Regularizers of the user's backbone add to it.
        penalties = sum(self.losses) / num_replicas()
        return self.mean_loss(losses, sample_weight) + penalties

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Accuracy of the last exit, and the mean over the exits."""
        correct = self.correct(y, self.logits(y_pred))
        self.accuracy.update_state(correct[-1], sample_weight)
        self.exits_accuracy.update_state(sum(correct) / len(correct), sample_weight)
        return self.get_metrics_result()

    def get_config(self):
        """The constructor's arguments."""
        return super().get_config() | {
            "exit_weights": self.exit_weights,
            "frozen_statistics": self.frozen_statistics,
            "equilibrium": self.equilibrium,
        }
