"""The residual block of ResNet, ResNeXt and SENet (He et al. 2015, Xie et al. 2016, Hu et al. 2017)."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.nn.layers import ConvNorm, Layers, SqueezeExcite, drop_path

# identity: no parameters, every second pixel and zero channels appended. projection: a 1x1 convolution where the shape
# changes. none: a plain network's.
Shortcut = Literal["none", "identity", "projection", "projection_everywhere"]


class Residual(nn.Module):
    """One residual block; which convolutions it has is told by `bottleneck`."""

    layers: Layers
    features: int
    """Output channels."""
    bottleneck: bool
    inner: int
    """Channels of a bottleneck's 3x3 convolution."""
    reduced: int
    """Channels of a bottleneck's first 1x1 convolution."""
    stride: int = 1
    stride_on: Literal["conv1", "conv2"] = "conv2"
    cardinality: int = 1
    shortcut: Shortcut = "projection"
    projection_kernel: int = 1
    activate_branch: bool = False
    squeezed: int = 0
    """Hidden width of the squeeze-and-excitation; 0 for none."""

    @nn.compact
    def __call__(self, x: jax.Array, drop_rate: jax.Array | None) -> jax.Array:
        """(batch, height, width, channels) to (batch, height / stride, width / stride, features)."""
        conv = functools.partial(ConvNorm, self.layers)
        last = functools.partial(conv, activate=self.activate_branch)
        if self.bottleneck:
            first, second = (self.stride, 1) if self.stride_on == "conv1" else (1, self.stride)
            branch = conv(self.reduced, 1, first, name="conv1")(x)
            branch = conv(self.inner, 3, second, groups=self.cardinality, name="conv2")(branch)
            branch = last(self.features, 1, name="conv3")(branch)
        else:
            # Groups in both would cut the stage into networks that never meet.
            branch = conv(self.features, 3, self.stride, name="conv1")(x)
            branch = last(self.features, 3, groups=self.cardinality, name="conv2")(branch)
        if self.squeezed:
            branch = SqueezeExcite(self.layers, self.squeezed, name="squeeze_excite")(branch)
        branch = drop_path(branch, drop_rate, lambda: self.make_rng("dropout"))
        return self.layers.activate(branch if self.shortcut == "none" else branch + self._shortcut(x))

    def _shortcut(self, x: jax.Array) -> jax.Array:
        changes = self.stride > 1 or x.shape[-1] != self.features
        if self.shortcut == "identity" and changes:
            x = x[:, :: self.stride, :: self.stride, : self.features]
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - x.shape[-1])))
        if self.shortcut == "projection_everywhere" or (self.shortcut == "projection" and changes):
            kernel = self.projection_kernel if self.stride > 1 else 1
            return ConvNorm(self.layers, self.features, kernel, self.stride, activate=False, name="projection")(x)
        return x
