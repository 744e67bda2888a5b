"""Convolution through a table of connections, as in LeNet-5's layer C3 (LeCun et al. 1998, Table I)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from cnnjax.nn.initializers import Initialization, fan_in_biases, fan_in_weights
from cnnjax.ops.conv import Lowering, convolve


class TableConvolution(nn.Module):
    """A convolution without padding whose output maps each see only some input maps: one kernel for each such pair."""

    table: tuple[tuple[int, ...], ...]
    """For each output map, the input maps that it sees."""
    kernel_size: tuple[int, int]
    initialization: Initialization
    dtype: DTypeLike = jnp.float32
    lowering: Lowering = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, input maps) to (batch, smaller height, smaller width, output maps)."""
        seen, maps = np.concatenate(self.table), len(self.table)
        seeing = np.repeat(np.arange(maps), [len(row) for row in self.table])
        fan_in = np.array([math.prod(self.kernel_size) * len(row) for row in self.table])
        weights = fan_in_weights(self.initialization, fan_in[seeing])
        kernels = self.param("kernel", weights, (*self.kernel_size, len(seen)), jnp.float32)
        bias = self.param("bias", fan_in_biases(self.initialization, fan_in), (maps,), jnp.float32)
        # One dense convolution with zeros between the kernels is faster than sixteen small ones.
        kernel = jnp.zeros((*self.kernel_size, x.shape[-1], maps), self.dtype)
        kernel = kernel.at[:, :, seen, seeing].set(kernels.astype(self.dtype))
        product = convolve(x.astype(self.dtype), kernel, lowering=self.lowering)
        return product + bias.astype(self.dtype)

    @nn.nowrap
    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Multiply-adds for one image of the given (height, width, maps)."""
        return math.prod(output_shape[:2]) * math.prod(self.kernel_size) * sum(len(row) for row in self.table)

    @nn.nowrap
    def connections(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Connections of one image's units, those to the bias among them."""
        return self.macs(input_shape, output_shape) + math.prod(output_shape)
