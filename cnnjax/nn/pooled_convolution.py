"""A convolution and the pooling of its outputs in one layer, as in LeNet-5."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from cnnjax.ops.conv import Lowering
from cnnjax.ops.convolve_and_pool import convolve_and_pool


class PooledConvolution(nn.Module):
    """`nn.Conv` without padding, and the largest of each window of its outputs; its parameters are `nn.Conv`'s."""

    features: int
    kernel_size: int
    window: int
    """Height and width of the windows, which lie side by side."""
    kernel_init: Initializer
    bias_init: Initializer
    dtype: DTypeLike = jnp.float32
    lowering: Lowering = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(batch, height, width, channels) to the outputs, and to the largest of each window."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        x, kernel, bias = (each.astype(self.dtype) for each in (x, kernel, bias))
        return convolve_and_pool(x, kernel, bias, self.window, lowering=self.lowering)
