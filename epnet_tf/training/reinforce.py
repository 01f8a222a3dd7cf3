"""The paper's first option for stage two: REINFORCE, for comparison (4.3, 5.5)."""

import numpy as np
from keras import ops

from epnet_tf import objective
from epnet_tf.training.sweep import ControllerSweep


class ReinforceSweep(ControllerSweep):
    """As `ControllerSweep`, with the gradient estimated from one drawn exit per image.

    Takes the same arguments; not for a model with `beta_range`.
    """

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """A surrogate: its gradient is REINFORCE's, its value means nothing."""
        betas = np.array(self.betas, "float32")[:, None, None]
        surrogate = objective.reinforce_surrogate(
            y_pred, y[None], self.costs, betas, self.seed_generator
        )
        return ops.sum(self.mean_loss(-surrogate, sample_weight))
