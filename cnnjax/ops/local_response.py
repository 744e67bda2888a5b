"""Local response normalisation (Krizhevsky, Sutskever and Hinton 2012, section 3.3)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

# What goes in and comes out is marked by these in a trace, and by nothing in what is compiled.
BEFORE, AFTER = "cnnjax.ops.local_response.before", "cnnjax.ops.local_response.after"


def local_response_norm(
    x: jax.Array, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
    """x / (k + alpha * sum of squares over `size` neighbouring channels) ** beta, zeros beyond the first and last.

    The paper's formula. Caffe and PyTorch divide alpha by `size`: theirs is `alpha=alpha / size` here.

    Args:
        x: (batch, height, width, channels).
    """
    x = checkpoint_name(x, BEFORE)
    before = size // 2
    ones = (1,) * (x.ndim - 1)
    pads = ((0, 0),) * (x.ndim - 1)
    # A constant of JAX's own would be traced under jit, and a window sum from a traced start has no gradient.
    squares = lax.reduce_window(
        jnp.square(x), np.zeros((), x.dtype), lax.add, (*ones, size), (*ones, 1), (*pads, (before, size - 1 - before))
    )
    return checkpoint_name(x * (k + alpha * squares) ** -beta, AFTER)
