"""How controllers learned: benefit while training, exactly and by REINFORCE."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from epnet_tf import policies
from epnet_tf.evaluation.reports import row
from epnet_tf.model.states import ExitStates
from epnet_tf.policies import Policy


@dataclasses.dataclass(frozen=True, eq=False)
class Learning:
    """Benefit while controllers are trained, by the exact gradient and by REINFORCE.

    Attributes:
        beta: Cost sensitivity, points per unit of cost.
        steps: [T]; training steps at which the benefit was measured.
        curves: `exact` and `reinforce` to the benefit on validation images [seeds, T].
        policies: `exact` and `reinforce` to what they ended with, for each seed.
    """

    beta: float
    steps: np.ndarray
    curves: dict[str, np.ndarray]
    policies: dict[str, list[Policy]]

    def summary(self, test: ExitStates) -> dict:
        """Final benefits, and the steps to reach what REINFORCE ends with.

        Args:
            test: States of the test images, on which both are scored at the end.
        """
        exact, sampled = (
            self.curves[name].mean(axis=0) for name in ("exact", "reinforce")
        )
        goal = sampled[-1]
        return {
            "beta": self.beta,
            "steps": int(self.steps[-1]),
            "exact_final": float(exact[-1]),
            "reinforce_final": float(goal),
            "reinforce_std": float(self.curves["reinforce"][:, -1].std()),
            "exact_std": float(self.curves["exact"][:, -1].std()),
            **{
                f"{name}_test": row(
                    self.beta, [policies.score(p, test) for p in ended]
                )["benefit"]
                for name, ended in self.policies.items()
            },
            "exact_steps_to_reinforce_final": _first(self.steps, exact >= goal),
            "reinforce_steps_to_it": _first(self.steps, sampled >= goal),
        }


def _first(steps: np.ndarray, reached: Sequence[bool]) -> int | None:
    """The first step at which something is so, or None."""
    return int(steps[np.argmax(reached)]) if np.any(reached) else None
