"""Training: classifiers, then controllers, on images or on cached states."""

from epnet_tf.training.classifiers import ClassifierTrainer
from epnet_tf.training.controllers import ControllerTrainer
from epnet_tf.training.cross_fitting import cross_fitted_states
from epnet_tf.training.distributed import fit_distributed
from epnet_tf.training.exploration import Exploration
from epnet_tf.training.sweep import ControllerSweep, train_controllers

__all__ = [
    "ClassifierTrainer",
    "ControllerSweep",
    "ControllerTrainer",
    "Exploration",
    "cross_fitted_states",
    "fit_distributed",
    "train_controllers",
]
