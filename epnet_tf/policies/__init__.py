"""Policies: exit states in, the exit of each image out.

A policy is a name, a function of `ExitStates`, and what it pays at each exit. A new one
is a function of a few lines that returns a `Policy`; rules with parameters are tuned on
validation states by the function that makes them.
"""

from epnet_tf.policies.learned import epnet, stop_logits
from epnet_tf.policies.policy import Policy, Score, score
from epnet_tf.policies.rules import (
    resnet,
    softmax_gate,
    softmax_gate_tuned,
    static,
)

__all__ = [
    "Policy",
    "Score",
    "epnet",
    "resnet",
    "score",
    "softmax_gate",
    "softmax_gate_tuned",
    "static",
    "stop_logits",
]
