"""The losses against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.config import CrossEntropyLoss, LenetMapLoss
from cnnjax.train.losses import cross_entropy, lenet_map, make_loss

LOGITS = np.random.default_rng(0).normal(0, 3, (6, 5))
LABELS = np.array([0, 4, 2, 2, 1, 3])


def cross_entropy_in_numpy(logits, labels, smoothing):
    classes = logits.shape[1]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
    return -(targets * np.log(probabilities)).sum(1)


def equation_9(penalties, labels, rubbish):
    own = penalties[np.arange(len(labels)), labels]
    return own + np.log(np.exp(-rubbish) + np.exp(-penalties).sum(1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy(smoothing):
    found = make_loss(CrossEntropyLoss(label_smoothing=smoothing))(jnp.float32(LOGITS), LABELS)
    assert found.shape == (6,)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, cross_entropy_in_numpy(LOGITS, LABELS, smoothing), rtol=1e-5)


def test_cross_entropy_of_a_guess_is_the_logarithm_of_the_classes():
    np.testing.assert_allclose(cross_entropy(jnp.zeros((1, 10)), jnp.array([3])), [np.log(10)], rtol=1e-6)


@pytest.mark.parametrize("loss", [cross_entropy, lambda *args: lenet_map(*args, 0.1)])
def test_large_logits_stay_finite(loss):
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    found, gradient = jax.value_and_grad(lambda logits: loss(logits, jnp.array([0, 0])).sum())(logits)
    np.testing.assert_allclose(found, 2e4, rtol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("rubbish", [0.1, 3.0])
def test_lenet_map(rubbish):
    penalties = np.abs(LOGITS)
    found = make_loss(LenetMapLoss(kind="lenet_map", rubbish=rubbish))(jnp.float32(-penalties), LABELS)
    assert found.shape == (6,)
    np.testing.assert_allclose(found, equation_9(penalties, LABELS, rubbish), rtol=1e-5)


def test_lenet_map_pulls_the_right_penalty_down_and_pushes_the_wrong_ones_up():
    penalties = jnp.float32(np.abs(LOGITS))
    gradient = np.asarray(jax.grad(lambda y: lenet_map(-y, jnp.asarray(LABELS), 0.1).sum())(penalties))
    right = np.eye(5, dtype=bool)[LABELS]
    assert (gradient[right] > 0).all()
    assert (gradient[~right] < 0).all()


def test_lenet_map_leaves_wrong_penalties_beyond_the_rubbish_class_alone():
    def pushes(rubbish):
        penalties = jnp.array([[0.0, 20.0]])
        return float(jax.grad(lambda y: lenet_map(-y, jnp.array([0]), rubbish).sum())(penalties)[0, 1])

    assert abs(pushes(0.1)) < 1e-8
    # With every penalty at hand larger than j, the rubbish class takes the share that the wrong class would have.
    near = jax.grad(lambda y: lenet_map(-y, jnp.array([0]), 0.1).sum())(jnp.array([[1.0, 1.0]]))
    without = jax.grad(lambda y: lenet_map(-y, jnp.array([0]), 50.0).sum())(jnp.array([[1.0, 1.0]]))
    np.testing.assert_allclose(without[0, 1], -0.5, rtol=1e-6)
    np.testing.assert_allclose(near[0, 1], -np.exp(-1) / (np.exp(-0.1) + 2 * np.exp(-1)), rtol=1e-6)
