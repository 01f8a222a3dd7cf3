"""The objective against enumeration, finite differences and the paper's numbers."""

import numpy as np
import pytest
import tensorflow as tf

from epnet_tf import objective


def enumerated(stop_logits):
    """q_i, straight from the definition."""
    stop = 1.0 / (1.0 + np.exp(-np.asarray(stop_logits, "float64")))
    reached, distribution = 1.0, []
    for p in [*stop, 1.0]:
        distribution.append(reached * p)
        reached *= 1.0 - p
    return np.array(distribution)


def loss_and_gradient(stop_logits, correct, macs, beta):
    z = tf.constant(stop_logits)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = -tf.reduce_mean(objective.expected_benefit(z, correct, macs, beta))
    return np.asarray(loss), np.asarray(tape.gradient(loss, z))


def random_problem(images, exits, seed=0):
    rng = np.random.default_rng(seed)
    stop_logits = rng.normal(0, 2, (images, exits - 1)).astype("float32")
    correct = rng.random((images, exits)) < 0.6
    macs = np.cumsum(rng.integers(1, 10, exits)) * 1e5
    return stop_logits, correct, macs


def test_exploration_by_hand():
    macs, beta = [1e6, 2e6, 3e6], 1e-5
    correct = np.zeros([4, 3], "float32")
    even = np.zeros([4, 2], "float32")
    # At even odds half leave by the first exit, a quarter by each of the others.
    benefit = -beta * (0.5e6 + 0.25 * 2e6 + 0.25 * 3e6)
    # The entropy of each decision is log 2; at stake are 100 points and 30 of cost.
    found = objective.training_objective(even, correct, macs, beta, temperature=0.1)
    np.testing.assert_allclose(found, benefit + 0.1 * 130 * 2 * np.log(2), rtol=1e-5)
    sure = np.float32([[-200.0, 200.0]])
    found = objective.training_objective(sure, correct[:1], macs, beta, 0.1)
    np.testing.assert_allclose(found, [-20.0], rtol=1e-5)


def test_relative_objective_is_in_per_cent_of_the_stakes():
    macs, betas = [1e6, 2e6, 3e6], np.float32([[0.0], [1e-5], [1e-4]])
    problem = random_problem(3, 3)[:2]
    points = objective.training_objective(*problem, macs, betas, 0.1)
    relative = objective.training_objective(*problem, macs, betas, 0.1, relative=True)
    np.testing.assert_allclose(relative, points * np.float32([1, 1 / 1.3, 1 / 4]))


@pytest.mark.parametrize("exits", [2, 3, 12])
def test_exit_distribution_is_that_of_the_definition(exits):
    stop_logits, _, _ = random_problem(5, exits)
    q = np.exp(objective.log_exit_distribution(stop_logits))
    assert q.shape == (5, exits)
    np.testing.assert_allclose(q, [enumerated(z) for z in stop_logits], rtol=1e-5)


def test_exit_distribution_by_hand():
    stop_logits = np.log([[1.0, 3.0]]).astype("float32")  # p = 1/2, 3/4
    q = np.exp(objective.log_exit_distribution(stop_logits))
    np.testing.assert_allclose(q, [[1 / 2, 3 / 8, 1 / 8]], rtol=1e-6)


def test_exit_distribution_keeps_leading_axes():
    stop_logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    q = np.asarray(objective.log_exit_distribution(stop_logits))
    assert q.shape == (3, 4, 6)
    one = np.asarray(objective.log_exit_distribution(stop_logits[1, 2]))
    np.testing.assert_allclose(q[1, 2], one, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0])
def test_two_hundred_exits_are_finite(scale):
    rng = np.random.default_rng(1)
    for stop_logits in (
        np.full([2, 199], scale),
        np.full([2, 199], -scale),
        rng.choice([-scale, scale], (2, 199)),
    ):
        stop_logits = stop_logits.astype("float32")
        log_q = np.asarray(objective.log_exit_distribution(stop_logits))
        assert np.isfinite(log_q).all()
        np.testing.assert_allclose(np.exp(log_q).sum(axis=-1), 1.0, atol=1e-5)
        correct = rng.random((2, 200)) < 0.5
        loss, gradient = loss_and_gradient(
            stop_logits, correct, np.arange(200) * 1e5, 5e-7
        )
        assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_expected_benefit_is_the_mean_over_exits():
    stop_logits, correct, macs = random_problem(6, 4)
    expected = [
        sum(
            q * (100.0 * right - 1e-5 * spent)
            for q, right, spent in zip(enumerated(z), row, macs, strict=True)
        )
        for z, row in zip(stop_logits, correct, strict=True)
    ]
    benefits = objective.expected_benefit(stop_logits, correct, macs, 1e-5)
    np.testing.assert_allclose(benefits, expected, rtol=1e-4)


def test_beta_may_differ_between_images():
    stop_logits, correct, macs = random_problem(2, 5)
    betas = np.array([[1e-6], [2e-5]], "float32")
    together = np.asarray(objective.expected_benefit(stop_logits, correct, macs, betas))
    for i in range(2):
        alone = objective.expected_benefit(
            stop_logits[i], correct[i], macs, float(betas[i, 0])
        )
        np.testing.assert_allclose(together[i], alone, rtol=1e-5)


def test_gradient_is_that_of_finite_differences():
    stop_logits, correct, macs = random_problem(3, 5)
    _, gradient = loss_and_gradient(stop_logits, correct, macs, 1e-5)

    def loss(z):
        rewards = 100.0 * correct - 1e-5 * macs
        return -np.mean([np.dot(enumerated(r), b) for r, b in zip(z, rewards)])  # noqa: B905

    step, z = 1e-4, stop_logits.astype("float64")
    for place in np.ndindex(z.shape):
        shift = np.zeros_like(z)
        shift[place] = step
        slope = (loss(z + shift) - loss(z - shift)) / (2 * step)
        assert gradient[place] == pytest.approx(slope, abs=1e-3)


def test_gradient_by_hand():
    # One controller, p = 1/2: dB/dz = p (1 − p) (R_1 − R_2) = (100 − 40) / 4.
    loss, gradient = loss_and_gradient(
        np.zeros([1, 1], "float32"), np.array([[1, 1]]), [0.0, 60.0], 1.0
    )
    assert loss == pytest.approx(-70.0)
    assert gradient[0, 0] == pytest.approx(-15.0)


def test_rewards():
    rewards = objective.rewards(np.array([[True, False]]), [2e6, 1e7], 5e-7)
    np.testing.assert_allclose(rewards, [[99.0, -5.0]], rtol=1e-6)


@pytest.mark.parametrize(
    "logits, exit_index",
    [
        ([-1, -1, -1], 3),
        ([1, -1, 1], 0),
        ([-1, 2, 5], 1),
        ([0, 0, 0], 3),
        ([-1, -1, 1e-6], 2),
    ],
)
def test_first_stop(logits, exit_index):
    stops = np.array([logits], "float32")
    assert np.asarray(objective.first_stop(stops)).tolist() == [exit_index]


def test_first_stop_with_a_threshold():
    stops = np.array([[0.5, 1.5, 3.0]], "float32")
    assert int(objective.first_stop(stops, threshold=1.0)[0]) == 1
    assert int(objective.first_stop(stops, threshold=9.0)[0]) == 3


@pytest.mark.parametrize(
    "accuracy, mean_macs, benefit",
    [(0.8861, 1.019e7, 83.51), (0.8842, 1.203e7, 82.40)],  # Table 2, rows 3 and 1
)
def test_benefit_scores_of_the_paper(accuracy, mean_macs, benefit):
    score = objective.benefit(accuracy, mean_macs, 5e-7)
    assert score == pytest.approx(benefit, abs=0.01)
