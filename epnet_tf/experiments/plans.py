"""What is evaluated on each data set: the paper's settings, and what we aim at."""

import dataclasses
from collections.abc import Mapping, Sequence

from epnet_tf import objective
from epnet_tf.evaluation import paper
from epnet_tf.model import PaperController
from epnet_tf.runtime import units
from epnet_tf.runtime.cost_table import CostTable

_PAPER_CONTROLLER = PaperController((10, 10, 10), (10, 1))


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings of an evaluation.

    Attributes:
        betas: Cost sensitivities of Figure 6, points per unit of cost.
        table_beta: β of Table 1 and of Figures 9 and 10.
        exit_betas: β of the panels of cumulative exit rates (Figures 7 and 8).
        more_betas: Further β at which policies are scored.
        paper_controller: The paper's controller for the data set.
        share: The paper's share of the full network's compute, or None.
        draws: How often the training images are composed or augmented anew for the
            controllers, which then pass over them as many times less.
        validation_repeats: How often the validation states are mixed into those that
            the controllers are trained on. On images that the network has fitted it is
            surer of itself than it will be.
        paper_repeats: The same for the paper's controllers on their own network.
        benefits: β to the benefit of `epnet` that we aim at, points.
        leads: β to the lead over `softmax-per-exit` that we aim at, points.
        way: Per cent of the way from `static` to `hindsight` that we aim at.
        last_exit: Accuracy of the last exit that we aim at, per cent.
        share_accuracy: Accuracy aimed at with the paper's share, per cent.
    """

    betas: tuple[float, ...]
    table_beta: float
    exit_betas: tuple[float, ...]
    more_betas: tuple[float, ...] = ()
    paper_controller: PaperController = _PAPER_CONTROLLER
    share: float | None = None
    draws: int = 1
    validation_repeats: int = 0
    paper_repeats: int = 0
    benefits: Mapping[float, float] = dataclasses.field(default_factory=dict)
    leads: Mapping[float, float] = dataclasses.field(default_factory=dict)
    way: float | None = None
    last_exit: float | None = None
    share_accuracy: float | None = None

    @property
    def all_betas(self) -> tuple[float, ...]:
        """Every β that is scored, ascending."""
        found = {*self.betas, self.table_beta, *self.exit_betas, *self.more_betas}
        return tuple(sorted(found))


_FIFTHS = (2e-7, 4e-7, 6e-7, 8e-7, 1e-6)
_HALVES = (5e-7, 1e-6, 1.5e-6, 2e-6, 2.5e-6, 3e-6, 3.5e-6, 4e-6, 4.5e-6, 5e-6)

PLANS = {
    "digits": Plan((1e-6, 2e-6, 4e-6, 8e-6), 2e-6, (1e-6, 2e-6, 8e-6)),
    "maxmin": Plan(
        _FIFTHS,
        2e-7,
        (5e-7, 2.5e-6, 5e-6),
        more_betas=(5e-8, 1e-7),
        share=paper.SHARES["maxmin"],
        paper_repeats=3,
        benefits={2e-7: 94.2, 4e-7: 89.5, 1e-6: 76.0},
        leads=dict.fromkeys(_FIFTHS, 2.0),
        way=45,
        last_exit=98.97,
        share_accuracy=97.2,
    ),
    "multiscale": Plan(
        _FIFTHS,
        2e-7,
        (2e-7,),
        more_betas=(5e-8, 1e-7),
        share=paper.SHARES["multiscale"],
        paper_repeats=6,
        benefits={2e-7: 87.6, 4e-7: 84.5, 1e-6: 77.0},
        leads=dict.fromkeys(_FIFTHS, 1.0),
        way=22,
        last_exit=90.89,
        share_accuracy=88.7,
    ),
    "cifar10": Plan(
        _HALVES,
        5e-7,
        (5e-7,),
        more_betas=(1e-7, 2.5e-7),
        paper_controller=PaperController((100, 10, 10), (100, 100, 50, 1)),
        share=paper.SHARES["cifar10"],
        draws=3,
        validation_repeats=3,
        paper_repeats=3,
        benefits={5e-7: 84.6, 1e-6: 81.0, 2.5e-6: 72.0, 5e-6: 62.0},
        leads=dict.fromkeys(_HALVES, 0.3),
        way=15,
        last_exit=89.9,
        share_accuracy=88.7,
    ),
}


def plan_for(
    dataset: str, betas: Sequence[float] = (), costs: CostTable | None = None
) -> Plan:
    """The plan for a data set.

    Args:
        dataset: Name of the data set.
        betas: Cost sensitivities to take instead of the plan's; a data set without a
            plan needs them.
        costs: What leaving costs in another unit than MACs, for which there are no
            plans.

    Returns:
        The plan.

    Raises:
        ValueError: If there are no β, or one is negative.
    """
    for beta in betas:
        objective.check_beta(beta)
    if not betas:
        if dataset not in PLANS or costs is not None:
            unit = units.words(units.MACS if costs is None else costs.unit)[0]
            raise ValueError(
                f"Expected at least one beta, points per {unit}, for the data set "
                f"'{dataset}', for which there is no plan. Received: none."
            )
        return PLANS[dataset]
    betas = tuple(sorted(set(betas)))
    base = PLANS.get(dataset, Plan(betas, betas[0], ()))
    return dataclasses.replace(
        base, betas=betas, table_beta=betas[0], exit_betas=betas[:3], more_betas=()
    )
