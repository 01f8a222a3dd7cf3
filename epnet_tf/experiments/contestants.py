"""All policies on the exits of a case: who they are."""

from collections.abc import Sequence

import numpy as np

from epnet_tf import policies
from epnet_tf.evaluation.contest import Contestants
from epnet_tf.experiments.case import Case
from epnet_tf.experiments.case_controllers import trained_controllers
from epnet_tf.policies import Policy
from epnet_tf.policies.learned import ControllerWeights


def contestants(case: Case) -> Contestants:
    """Makes every policy for every β of the plan, on training and validation states.

    Args:
        case: The case.

    Returns:
        For each name, for each β, a policy for each seed (one, where nothing is
        drawn); all but `epnet-paper`, which may decide on other states.
    """
    learned, _ = trained_controllers(case, "epnet")
    found: Contestants = {}
    for beta, weights in zip(case.plan.all_betas, learned, strict=True):
        epnets = _from_weights(case.model, weights, "epnet")
        spent = [policies.score(p, case.validation).mean_cost for p in epnets]
        for of_seeds in [epnets, *_rules(case, beta, float(np.mean(spent)))]:
            found.setdefault(of_seeds[0].name, {})[beta] = of_seeds
    return found


def paper_contestants(case: Case) -> Contestants:
    """Makes the paper's controllers for every β of the plan.

    Args:
        case: The case whose exits they are on.

    Returns:
        `epnet-paper`, as in `contestants`.
    """
    model = case.model.with_new_controllers(case.plan.paper_controller)
    learned, _ = trained_controllers(case, "epnet-paper", model)
    return {
        "epnet-paper": {
            beta: _from_weights(model, weights, "epnet-paper")
            for beta, weights in zip(case.plan.all_betas, learned, strict=True)
        }
    }


def _from_weights(model, weights: Sequence[ControllerWeights], name) -> list[Policy]:
    return [policies.epnet(model, weights=w, name=name) for w in weights]


def _rules(case: Case, beta: float, spent: float) -> list[list[Policy]]:
    """The policies that have no seeds; `spent` is what EPNet spends on an image."""
    validation, costs = case.validation, case.model.exit_costs
    return [
        [policy]
        for policy in (
            policies.backward_induction(case.train, costs, beta),
            policies.softmax_per_exit(validation, costs, beta),
            policies.softmax_gate_tuned(validation, costs, beta),
            policies.softmax_gate_oracle(validation, costs, spent),
            policies.softmax_gate(0.2, costs),
            policies.softmax_gate(0.1, costs),
            policies.softmax_gate(0.01, costs),
            policies.branchynet_tuned(validation, costs, beta),
            policies.branchynet_oracle(validation, costs, spent),
            policies.branchynet(0.2, costs),
            policies.branchynet(0.3, costs),
            policies.static(validation, costs, beta),
            policies.resnet(costs),
            policies.hindsight(costs, beta),
        )
    ]
