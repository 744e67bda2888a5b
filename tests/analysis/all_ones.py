"""Convolutions that let everything through, so that what a value depends on shows."""

import jax.numpy as jnp
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(x, size=3, stride=1, padding="SAME", features=1, **options):
    """A convolution all of whose weights are one."""
    kernel = jnp.ones((size, size, x.shape[-1] // options.get("feature_group_count", 1), features), x.dtype)
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT, **options)
