"""Activation functions by name."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

Activation = Literal[
    "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "tanh", "scaled_tanh", "sigmoid", "identity"
]


def _relu6(x: jax.Array) -> jax.Array:
    """Linen's, whose gradient compares results that a compiler may have rounded otherwise, see `cnnjax.ops.pooling`."""
    return jnp.where(x > 6, jnp.asarray(6, x.dtype), nn.relu(x))


ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "relu6": _relu6,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "hard_swish": lambda x: x * (_relu6(x + 3) / 6),
    "tanh": jnp.tanh,
    "scaled_tanh": lambda x: 1.7159 * jnp.tanh(2 / 3 * x),
    "sigmoid": nn.sigmoid,
    "identity": lambda x: x,
}
