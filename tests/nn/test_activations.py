"""Activations that are not Linen's own functions are Linen's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.nn.activations import ACTIVATIONS


@pytest.mark.parametrize("name", ["relu6", "hard_swish"])
def test_clipped_activations_are_linens(name):
    x = jnp.concatenate([jnp.linspace(-8, 8, 999), jnp.array([jnp.nan, jnp.inf])])
    np.testing.assert_array_equal(ACTIVATIONS[name](x), getattr(nn, name)(x))
    found, expected = (jax.vmap(jax.grad(f))(x[:-2]) for f in (ACTIVATIONS[name], getattr(nn, name)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["relu", "relu6", "hard_swish"])
def test_gradients_ask_for_no_equality_with_the_result(name):
    """See the pools' test of that name."""
    assert "= eq " not in str(jax.make_jaxpr(jax.grad(lambda x: ACTIVATIONS[name](x).sum()))(jnp.ones(7)))
