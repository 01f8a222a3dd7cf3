"""Policies: exit states in, the exit of each image out.

A policy is a name, a function of `ExitStates`, and what it pays at each exit. A new one
is a function of a few lines that returns a `Policy`; rules with parameters are tuned on
validation states by the function that makes them.
"""

from epnet_tf.policies.backward_induction import backward_induction
from epnet_tf.policies.folds import score_folded
from epnet_tf.policies.learned import (
    assign_controllers,
    controller_weights,
    epnet,
    epnet_matched,
    stop_logits,
)
from epnet_tf.policies.policy import Policy, Score, score, score_exits
from epnet_tf.policies.rules import (
    branchynet,
    branchynet_oracle,
    branchynet_tuned,
    hindsight,
    resnet,
    softmax_gate,
    softmax_gate_oracle,
    softmax_gate_tuned,
    softmax_per_exit,
    static,
    tuned_confidence,
)
from epnet_tf.policies.selection import select_exits

__all__ = [
    "Policy",
    "Score",
    "assign_controllers",
    "backward_induction",
    "branchynet",
    "branchynet_oracle",
    "branchynet_tuned",
    "controller_weights",
    "epnet",
    "epnet_matched",
    "hindsight",
    "resnet",
    "score",
    "score_exits",
    "score_folded",
    "select_exits",
    "softmax_gate",
    "softmax_gate_oracle",
    "softmax_gate_tuned",
    "softmax_per_exit",
    "static",
    "stop_logits",
    "tuned_confidence",
]
