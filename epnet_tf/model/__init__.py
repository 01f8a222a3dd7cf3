"""Models: backbones, exits and their heads, EPNet, and what it all costs."""

from epnet_tf.model.backbones import BACKBONES, resnet10, resnet12
from epnet_tf.model.cost import ExitCosts, exit_costs, model_macs
from epnet_tf.model.epnet import EPNet
from epnet_tf.model.heads import Controller, PaperController

__all__ = [
    "BACKBONES",
    "Controller",
    "EPNet",
    "ExitCosts",
    "PaperController",
    "exit_costs",
    "model_macs",
    "resnet10",
    "resnet12",
]
