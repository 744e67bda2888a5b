"""Arithmetic of convolution kernels: what a stack of them amounts to."""

import jax
import jax.numpy as jnp
from jax import lax


def stacked_kernel(first: jax.Array, second: jax.Array) -> jax.Array:
    """The one kernel that does what `first` and then `second` do, both with stride 1, no padding and nothing between.

    Two 3x3 make a 5x5, three a 7x7 (Simonyan and Zisserman 2014, section 2.3); the non-linearity in between is what a
    stack adds.

    Args:
        first: (height, width, inputs, middle).
        second: (height, width, middle, outputs).

    Returns:
        (height of both together - 1, width likewise, inputs, outputs).
    """
    rows, columns = second.shape[0] - 1, second.shape[1] - 1
    # Each input channel is an image of `first`; spreading it by `second` is a full convolution.
    images = jnp.moveaxis(first, 2, 0)
    flipped = second[::-1, ::-1]
    spread = lax.conv_general_dilated(
        images, flipped, (1, 1), ((rows, rows), (columns, columns)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.moveaxis(spread, 0, 2)
