"""The objective: the exact expected benefit of stopping (paper, equations 1 and 4).

Stopping is a Markov decision process with one stochastic part, the policy: with stop
logits z, the probability of stopping at exit i once it is reached is p_i = sigmoid(z_i)
(p_N = 1), and of leaving through it q_i = p_i · Π_{j<i} (1 − p_j). The expectation
over exits is a sum of N terms, and so is its gradient: nothing is sampled. All
functions are pure; q is made in log space, as it spans hundreds of orders of magnitude.
"""

import math

from absl import logging
from keras import ops, random

from epnet_tf.runtime import units

# What running a whole network has to cost at least, in points, for early exits to pay.
_LEAST_POINTS = 0.05


def check_beta(beta: float) -> None:
    """Checks a cost sensitivity.

    Args:
        beta: Points per unit of cost.

    Raises:
        ValueError: If it is negative, infinite or no number.
    """
    if not 0 <= beta < math.inf:
        raise ValueError(f"Expected beta >= 0. Received: beta={beta}.")


def warn_of_beta(beta: float, full: float, unit: str = units.MACS) -> None:
    """Warns of a cost sensitivity at which there is nothing to decide.

    Args:
        beta: Points per unit of cost.
        full: What the whole network takes.
        unit: Of that.
    """
    points = beta * full
    if 0 < points < _LEAST_POINTS or points > 100.0:
        reason = (
            "more than any answer is worth" if points > 100.0 else "next to nothing"
        )
        logging.warning(
            "At beta=%g running the whole network, %s, costs %.2g points: %s. From "
            "%.1g to %.1g it costs 1 to 30.",
            beta,
            units.spelled(full, unit),
            points,
            reason,
            1.0 / full,
            30.0 / full,
        )


def log_exit_distribution(stop_logits):
    """Log-probabilities of leaving through each exit.

    Args:
        stop_logits: float [..., N − 1]; stop logits of all exits but the last.

    Returns:
        float [..., N]; log q_i.
    """
    log_stop = ops.log_sigmoid(stop_logits)
    log_reach = ops.cumsum(ops.log_sigmoid(-stop_logits), axis=-1)
    return ops.concatenate(
        [
            log_stop[..., :1],
            log_reach[..., :-1] + log_stop[..., 1:],
            log_reach[..., -1:],
        ],
        axis=-1,
    )


def rewards(correct, costs, beta):
    """Benefit of leaving through each exit (equation 1, for one image).

    Args:
        correct: bool or float [..., N]; whether each exit names the right class.
        costs: float [N]; what leaving through each exit costs, in any unit.
        beta: Cost sensitivity in percentage points per unit; a scalar, or [..., 1].

    Returns:
        float32 [..., N]; percentage points.
    """
    correct = ops.cast(correct, "float32")
    return 100.0 * correct - beta * ops.cast(costs, "float32")


def expected_benefit(stop_logits, correct, costs, beta):
    """Expected benefit of each image under the stochastic policy (equation 4).

    Args:
        stop_logits: float [..., N − 1].
        correct: bool or float [..., N]; whether each exit names the right class.
        costs: float [N]; what leaving through each exit costs, in any unit.
        beta: Cost sensitivity in percentage points per unit; a scalar, or [..., 1].

    Returns:
        float32 [...]; percentage points.
    """
    exit_probabilities = ops.exp(log_exit_distribution(stop_logits))
    return ops.sum(exit_probabilities * rewards(correct, costs, beta), axis=-1)


def stakes(costs, beta):
    """What is at stake for an image: 100 points, and the cost of the last exit.

    Args:
        costs: float [N]; what leaving through each exit costs, in any unit.
        beta: Cost sensitivity in percentage points per unit; a scalar, or [..., 1].

    Returns:
        Percentage points, of the shape of `beta`.
    """
    return 100.0 + beta * float(costs[-1])


def training_objective(
    stop_logits, correct, costs, beta, temperature=0.0, relative=False
):
    """What controllers are trained to raise: expected benefit, and exploration.

    The expected benefit has plateaus: once every image leaves by an early exit, the
    later ones get no gradient. While the temperature is above 0, the entropy of the
    decisions at all exits keeps them open.

    Args:
        stop_logits: float [..., N − 1].
        correct: bool or float [..., N]; whether each exit names the right class.
        costs: float [N]; what leaving through each exit costs, in any unit.
        beta: Cost sensitivity in percentage points per unit; a scalar, or [..., 1].
        temperature: What a nat of entropy is worth, as a share of the stakes.
        relative: Whether to give per cent of the stakes instead of points. Where β
            differs from image to image, high ones drown low ones otherwise; the best
            policy for each β is the same.

    Returns:
        float32 [...].
    """
    stop, at_stake = ops.sigmoid(stop_logits), stakes(costs, beta)
    entropies = -(
        stop * ops.log_sigmoid(stop_logits)
        + (1.0 - stop) * ops.log_sigmoid(-stop_logits)
    )
    points = expected_benefit(stop_logits, correct, costs, beta)
    points += temperature * ops.sum(at_stake * entropies, axis=-1)
    return 100.0 * points / at_stake[..., 0] if relative else points


def first_stop(stop_logits, threshold=0.0):
    """The exit that the policy takes: the first whose stop logit is above a threshold.

    Args:
        stop_logits: float [..., N − 1].
        threshold: Stop logit above which the controller stops; 0 is probability ½.

    Returns:
        int32 [...]; index of the exit, from 0; N − 1 when no controller stops.
    """
    stops = ops.cast(stop_logits > threshold, "int32")
    stops = ops.concatenate([stops, ops.ones_like(stops[..., :1])], axis=-1)
    return ops.cast(ops.argmax(stops, axis=-1), "int32")


def benefit(accuracy, mean_cost, beta):
    """The benefit score (equation 1).

    Args:
        accuracy: Share of images with the right label, 0 to 1.
        mean_cost: Mean cost of an image, in any unit.
        beta: Cost sensitivity in percentage points per unit.

    Returns:
        Percentage points: 100 · accuracy − β · mean_cost.
    """
    return 100.0 * accuracy - beta * mean_cost


def reinforce_surrogate(stop_logits, correct, costs, beta, seed):
    """What REINFORCE differentiates in place of `expected_benefit` (equation 2).

    An exit is drawn for each image; log q of that exit is weighted with its benefit
    less a baseline, the mean benefit of the batch's other images. The gradient's
    expectation is that of `expected_benefit`; the value itself means nothing.

    Args:
        stop_logits: float [..., b, N − 1].
        correct: bool or float [..., b, N]; whether each exit names the right class.
        costs: float [N]; what leaving through each exit costs, in any unit.
        beta: Cost sensitivity in percentage points per unit; a scalar, or [..., 1].
        seed: A seed, or a `keras.random.SeedGenerator`.

    Returns:
        float32 [..., b].
    """
    log_q = log_exit_distribution(stop_logits)
    exits = log_q.shape[-1]
    drawn = random.categorical(ops.reshape(log_q, (-1, exits)), 1, seed=seed)
    drawn = ops.reshape(ops.one_hot(drawn[:, 0], exits), ops.shape(log_q))
    gained = ops.sum(drawn * rewards(correct, costs, beta), axis=-1)
    images = ops.cast(ops.shape(gained)[-1], "float32")
    # Less the mean of the others is less the mean of all, times b / (b − 1).
    centred = gained - ops.mean(gained, axis=-1, keepdims=True)
    advantage = centred * images / ops.maximum(images - 1.0, 1.0)
    return ops.sum(drawn * log_q, axis=-1) * ops.stop_gradient(advantage)
