"""Models: backbones, exits and their heads, EPNet, and what it all costs."""

from epnet_tf.model.backbones import (
    BACKBONES,
    alexnet,
    densenet,
    msdnet,
    resnet,
    resnet10,
    resnet12,
    resnet18,
    resnet20,
)
from epnet_tf.model.classifiers import BranchClassifier, PaperClassifier
from epnet_tf.model.cost import ExitCosts, exit_costs, model_macs
from epnet_tf.model.epnet import EPNet
from epnet_tf.model.heads import ConfidenceThreshold, Controller, PaperController
from epnet_tf.model.states import ExitStates, compute_states, state_model

__all__ = [
    "BACKBONES",
    "BranchClassifier",
    "ConfidenceThreshold",
    "Controller",
    "EPNet",
    "ExitCosts",
    "ExitStates",
    "PaperClassifier",
    "PaperController",
    "alexnet",
    "compute_states",
    "densenet",
    "exit_costs",
    "model_macs",
    "msdnet",
    "resnet",
    "resnet10",
    "resnet12",
    "resnet18",
    "resnet20",
    "state_model",
]
