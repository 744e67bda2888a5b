"""Local response normalisation against the paper's formula, channel by channel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops.local_response import local_response_norm


def as_defined(x, size=5, k=2.0, alpha=1e-4, beta=0.75):
    """Section 3.3: b_i = a_i / (k + alpha * sum of a_j ** 2 for j = i - n/2 to i + n/2 within the channels) ** beta."""
    result = np.empty(x.shape, np.float64)
    channels = x.shape[-1]
    for channel in range(channels):
        first, last = max(0, channel - size // 2), min(channels - 1, channel - size // 2 + size - 1)
        squares = sum(x[..., j].astype(np.float64) ** 2 for j in range(first, last + 1))
        result[..., channel] = x[..., channel] / (k + alpha * squares) ** beta
    return result


@pytest.mark.parametrize(
    ("channels", "constants"),
    [(1, {}), (3, {}), (8, {}), (8, {"size": 4}), (8, {"size": 1}), (8, {"k": 1.0, "alpha": 0.3}), (8, {"beta": 0.5})],
)
def test_values(channels, constants):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, channels), scale=30).astype(np.float32)
    result = jax.jit(lambda x: local_response_norm(x, **constants))(x)
    np.testing.assert_allclose(result, as_defined(x, **constants), rtol=1e-5)


@pytest.mark.parametrize("transform", [lambda function: function, jax.jit, jax.checkpoint])
def test_gradient_is_the_formulas(transform):
    random = np.random.default_rng(1)
    x, direction = random.normal(size=(2, 2, 2, 2, 7)) * 3
    constants = {"size": 5, "k": 2.0, "alpha": 0.2, "beta": 0.75}
    step = 1e-6
    expected = (as_defined(x + step * direction, **constants) - as_defined(x - step * direction, **constants)) / (
        2 * step
    )
    primals, tangents = (jnp.asarray(array, jnp.float32) for array in (x, direction))
    normalise = transform(lambda x: local_response_norm(x, **constants))
    _, found = jax.jvp(normalise, (primals,), (tangents,))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # And backwards, the transposed.
    weights = random.normal(size=x.shape).astype(np.float32)
    (back,) = jax.vjp(normalise, primals)[1](jnp.asarray(weights))
    np.testing.assert_allclose(np.sum(back * direction), np.sum(weights * expected), rtol=1e-4)


def test_a_channel_sees_only_its_neighbours():
    x = np.ones((1, 1, 1, 9), np.float32)
    other = x.copy()
    other[..., 0] = 100
    changed = np.flatnonzero(local_response_norm(x) != local_response_norm(other))
    np.testing.assert_array_equal(changed, [0, 1, 2])


def test_zeros_stay_zeros_and_dtype_is_kept():
    zeros = jnp.zeros((1, 2, 2, 4), jnp.bfloat16)
    result, gradient = jax.value_and_grad(lambda x: local_response_norm(x).sum())(zeros)
    assert result == 0
    assert bool(jnp.isfinite(gradient).all())
    assert local_response_norm(zeros).dtype == jnp.bfloat16
