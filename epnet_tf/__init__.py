"""EPNet for Keras: exits after every convolution, and a learned policy that stops."""

from epnet_tf.data import load_dataset
from epnet_tf.deployment.convert import convert
from epnet_tf.deployment.runner import SegmentRunner
from epnet_tf.model import Controller, EPNet, PaperController, resnet10, resnet12
from epnet_tf.prediction import Prediction
from epnet_tf.training import (
    ClassifierTrainer,
    ControllerTrainer,
    ExitStates,
    compute_states,
    train_controllers,
)

__all__ = [
    "ClassifierTrainer",
    "Controller",
    "ControllerTrainer",
    "EPNet",
    "ExitStates",
    "PaperController",
    "Prediction",
    "SegmentRunner",
    "compute_states",
    "convert",
    "load_dataset",
    "resnet10",
    "resnet12",
    "train_controllers",
]
