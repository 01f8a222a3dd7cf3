"""Backward induction: the value of going on, fitted from the last exit to the first."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from epnet_tf.model.cost import ExitCosts
from epnet_tf.model.heads import ConfidenceFeatures
from epnet_tf.model.states import ExitStates
from epnet_tf.policies.policy import Policy


def backward_induction(
    train: ExitStates,
    costs: ExitCosts,
    beta: float,
    max_images: int = 12_000,
    seed: int = 0,
) -> Policy:
    """Stops where boosted trees expect nothing of going on.

    At each exit, last first, trees are fitted to what going on gains over stopping,
    given that all later exits are decided so; they see what a controller sees. It is
    charged as if its trees were controllers: they do comparisons, not multiply-adds.

    Args:
        train: States of training images.
        costs: The model's costs.
        beta: Cost sensitivity, points per unit of cost.
        max_images: States used, the first of them; the time goes with their number.
        seed: Seed of the trees.
    """
    states = train.take(slice(max_images))
    rewards = 100.0 * states.correct - beta * costs.with_controllers
    value = rewards[:, -1]
    fitted: dict[int, HistGradientBoostingRegressor] = {}
    for i in reversed(range(rewards.shape[1] - 1)):
        trees = HistGradientBoostingRegressor(
            max_iter=50,
            max_features=0.3,
            max_leaf_nodes=15,
            min_samples_leaf=50,
            learning_rate=0.1,
            early_stopping=False,
            random_state=seed,
        )
        x = _features(states, i)
        # Threads that wait for busy cores make it ten times slower, not faster.
        with threadpool_limits(1):
            fitted[i] = trees.fit(x, value - rewards[:, i])
            value = np.where(trees.predict(x) > 0, value, rewards[:, i])

    def decide(states: ExitStates) -> np.ndarray:
        stops = np.ones(states.correct.shape, bool)
        with threadpool_limits(1):
            for i, trees in fitted.items():
                stops[:, i] = trees.predict(_features(states, i)) <= 0
        return stops.argmax(axis=1) + 1

    return Policy("backward-induction", decide, costs.with_controllers)


def _features(states: ExitStates, index: int) -> np.ndarray:
    """What a controller sees at an exit, counted from 0: float32 [n, features]."""
    logits = states.logits[:, index]
    confidence = np.asarray(ConfidenceFeatures()(logits))
    return np.concatenate([confidence, logits, states.pooled[index]], axis=1)
