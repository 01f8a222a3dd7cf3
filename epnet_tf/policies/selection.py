"""Which exits to keep: those whose absence costs least are dropped, one by one.

An exit is paid for by every image that passes it. What a set of exits is worth is asked
of a policy that is quick to tune: a threshold on confidence for each exit, which pays
for classifiers and controllers, as the learned policy will.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from epnet_tf import objective
from epnet_tf.model.cost import ExitCosts
from epnet_tf.model.states import ExitStates
from epnet_tf.policies.rules import ascend, lack_of_confidence, mean_reward

# Images to choose on: more tell the same.
_IMAGES = 5_000


def select_exits(
    model: keras.Model, states: ExitStates, betas: Sequence[float], count: int = 8
) -> list[str]:
    """Chooses the exits that pay, on validation states.

    What exits cost is in the unit of `model.costs`, or MACs.

    Usage:

    ```python
    names = epnet_tf.select_exits(model, validation_states, [5e-7, 1e-6])
    model = model.with_exits(names)  # Its controllers are to be trained now.
    ```

    Args:
        model: An `EPNet` with trained classifiers.
        states: Its states of images that it was not trained on.
        betas: Cost sensitivities that count alike, points per unit of cost.
        count: Exits to keep at most, the last one, the network itself, counted.

    Returns:
        Names of layers as `EPNet.with_exits` takes them, in the order in which they
        are reached; the last exit is not among them.

    Raises:
        ValueError: If there are no β, no states, or fewer than 2 exits to keep.
    """
    for beta in betas:
        objective.check_beta(beta)
    if not betas or not len(states) or count < 2:
        raise ValueError(
            "Expected betas, states of images and a count of at least 2. Received: "
            f"betas={list(betas)}, states of {len(states)} images, count={count}."
        )
    if len(states) > _IMAGES:
        order = np.random.default_rng(0).permutation(len(states))
        states = states.take(order[:_IMAGES])
    sets = _Sets(states, betas, model.costs_by_exits())
    kept = list(range(1, model.num_exits + 1))
    limits = sets.tuned(kept, np.zeros([len(betas), len(kept)]))
    while len(kept) > 2:
        fewer = max(
            ([n for n in kept if n != out] for out in kept[:-1]),
            key=lambda numbers: sets.worth(numbers, limits),
        )
        better = sets.tuned(fewer, limits)
        lost = sets.worth(kept, limits) - sets.worth(fewer, better)
        if len(kept) <= count and lost > 0:
            break
        kept, limits = fewer, better
    return [model.exit_layers[number - 1] for number in kept[:-1]]


class _Sets:
    """What sets of exits are worth, with a threshold for each exit and β.

    Args:
        states: States of n images at all N exits.
        betas: B cost sensitivities.
        costs: Numbers of exits to what leaving through them costs.
    """

    def __init__(
        self,
        states: ExitStates,
        betas: Sequence[float],
        costs: Callable[[Sequence[int]], ExitCosts],
    ):
        self.values = lack_of_confidence(states)
        self.correct = states.correct
        self.betas = betas
        self.costs = costs

    def worth(self, numbers: list[int], limits: np.ndarray) -> float:
        """Mean benefit over images and β, percentage points.

        Args:
            numbers: The exits, from 1.
            limits: [B, N].
        """
        at = np.array(numbers) - 1
        values = self.values[:, at]
        return float(
            np.mean(
                [
                    mean_reward(values, rewards, limit[at])
                    for rewards, limit in zip(self._rewards(at), limits, strict=True)
                ]
            )
        )

    def tuned(self, numbers: list[int], limits: np.ndarray) -> np.ndarray:
        """The limits [B, N], with those of the exits tuned from where they are."""
        at = np.array(numbers) - 1
        values, tuned = self.values[:, at], limits.copy()
        for rewards, limit in zip(self._rewards(at), tuned, strict=True):
            limit[at] = ascend(values, rewards, limit[at])
        return tuned

    def _rewards(self, at: np.ndarray) -> list[np.ndarray]:
        paid = self.costs((at + 1).tolist()).with_controllers
        return [100.0 * self.correct[:, at] - beta * paid for beta in self.betas]
