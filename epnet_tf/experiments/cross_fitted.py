"""Cross-fitting in an experiment: when controllers' states are made so, and how."""

import dataclasses

from epnet_tf import data
from epnet_tf.experiments.config import FEW_IMAGES, Schedule
from epnet_tf.experiments.stage_one import classifier_optimizer
from epnet_tf.model import EPNet
from epnet_tf.model.states import ExitStates
from epnet_tf.training.cross_fitting import cross_fitted_states


def applies(schedule: Schedule, dataset: data.Dataset) -> bool:
    """Whether controllers see what classifiers say of images that are new to them.

    So it is with few images on a network that stays frozen: there controllers lose
    most otherwise, and classifiers are trained in no time.

    Args:
        schedule: How the network is trained.
        dataset: The data set.
    """
    stays_frozen = schedule.freeze and not schedule.unfreeze_epochs
    return stays_frozen and len(dataset.train) <= FEW_IMAGES


def states(
    model: EPNet,
    dataset: data.Dataset,
    schedule: Schedule,
    draws: int,
    seed: int,
    verbose="auto",
) -> ExitStates:
    """States of the training images by classifiers that have not seen them.

    Args:
        model: The `EPNet`, `frozen`.
        dataset: The data set.
        schedule: How its classifiers were trained.
        draws: How often the images are composed or augmented anew.
        seed: Of folds, weights and order.
        verbose: As in `keras.Model.fit`.
    """
    unseen = dataset.unseen_draws(draws)
    # As many steps as stage one, which sees one draw in each epoch.
    short = dataclasses.replace(schedule, epochs=-(-schedule.epochs // draws))
    return cross_fitted_states(
        model,
        unseen.images,
        unseen.labels,
        lambda steps: classifier_optimizer(short, steps),
        short.epochs,
        schedule.batch_size,
        draws,
        seed,
        verbose,
    )
