"""Normalisation with given statistics, whose gradient does not make its sums' terms again and again."""

import jax
from jax import lax


@jax.custom_vjp
def normalise(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) * factor + bias.

    Args:
        x: (..., channels).
        mean: one a channel, or (groups, 1, ..., 1, channels) for (groups, ..., channels); so are the others.
    """
    return (x - mean) * factor + bias


_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _forward(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> tuple[jax.Array, _Kept]:
    return normalise(x, mean, factor, bias), (x, mean, factor, bias)


def _backward(kept: _Kept, cotangent: jax.Array) -> _Kept:
    x, mean, factor, bias = kept
    # XLA's CPU back end would compute all that precedes a sum within the sum's loop, once for each few channels.
    cotangent, product = lax.platform_dependent(
        cotangent,
        cotangent * (x - mean),
        cpu=lambda *terms: lax.optimization_barrier(terms),
        default=lambda *terms: terms,
    )
    axes = tuple(range(1, x.ndim - 1))
    of_bias, of_factor = (terms.sum(axes, keepdims=True) for terms in (cotangent, product))
    of_mean = -of_bias * factor
    return cotangent * factor, _like(mean, of_mean), _like(factor, of_factor), _like(bias, of_bias)


def _like(given: jax.Array, sums: jax.Array) -> jax.Array:
    """(groups, 1, ..., 1, channels), summed over what was broadcast."""
    return sums.sum(tuple(range(sums.ndim - 1))) if given.ndim == 1 else sums


normalise.defvjp(_forward, _backward)
