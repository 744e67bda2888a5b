"""Pooling against its definition, window by window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops.pooling import average_pool, max_pool, sum_pool

# For each pooling: its value over one window and channel, and that value's gradient.
DEFINITIONS = {
    max_pool: (np.max, lambda entries: entries == entries.max()),
    sum_pool: (np.sum, np.ones_like),
    average_pool: (np.mean, lambda entries: np.full_like(entries, 1 / entries.size)),
}


@pytest.mark.parametrize("pool", DEFINITIONS)
@pytest.mark.parametrize(("size", "window", "stride"), [((6, 8), 2, 2), ((7, 9), 2, 2), ((9, 8), 3, 2), ((5, 6), 3, 1)])
def test_values_and_gradients(pool, size, window, stride):
    value, slope = DEFINITIONS[pool]
    random = np.random.default_rng(0)
    x = random.normal(size=(2, *size, 3)).astype(np.float32)
    output_size = [(side - window) // stride + 1 for side in size]
    weights = random.normal(size=(2, *output_size, 3)).astype(np.float32)
    expected, expected_gradient = np.zeros_like(weights), np.zeros_like(x)
    for image, row, column, channel in np.ndindex(weights.shape):
        top, left = row * stride, column * stride
        place = (image, slice(top, top + window), slice(left, left + window), channel)
        expected[image, row, column, channel] = value(x[place])
        expected_gradient[place] += weights[image, row, column, channel] * slope(x[place])

    result, pull_back = jax.jit(lambda x: jax.vjp(lambda x: pool(x, window, stride), x))(x)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pull_back(weights)[0], expected_gradient, rtol=1e-5, atol=1e-6)


def test_a_full_tie_shares_the_gradient_equally_and_nan_shows():
    gradient = jax.grad(lambda x: max_pool(x, 2, 2).sum())(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_allclose(gradient, 0.25)
    assert np.isnan(max_pool(jnp.array([1.0, jnp.nan, 2.0, 3.0]).reshape(1, 2, 2, 1), 2, 2)).all()


@pytest.mark.parametrize("pool", DEFINITIONS)
def test_dtype_is_kept(pool):
    assert pool(jnp.ones((1, 4, 4, 1), jnp.bfloat16), 2, 2).dtype == jnp.bfloat16
