"""Depthwise separable convolution (Sifre 2014; Chollet 2016, section 2): space and channels one after the other."""

from typing import Literal

import jax
from flax import linen as nn

from cnnjax.nn.activations import ACTIVATIONS
from cnnjax.nn.initializers import depthwise_he_normal
from cnnjax.nn.layers import Layers, Size
from cnnjax.ops.padding import Padding

# Between the depthwise and the pointwise convolution (Chollet 2016, section 4.7).
IntermediateActivation = Literal["none", "relu", "elu"]

# Where nothing rectifies its output, the variance need not be doubled; Flax counts a depthwise kernel's own fan-in.
_depthwise_lecun_normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class SeparableConv(nn.Module):
    """`depthwise`, perhaps an activation, `pointwise`, `norm`, activation: in place of a `ConvNorm`.

    What normalises between the two as well, as in MobileNet, is a `DepthwiseNorm` and a 1x1 `ConvNorm`.
    """

    layers: Layers
    features: int
    kernel_size: Size = 3
    """Of the depthwise convolution, which has the stride and the padding too."""
    stride: Size = 1
    padding: Padding | None = None
    activate: bool = True
    """Whether the network's activation follows."""
    multiplier: int = 1
    """Depthwise outputs of each channel."""
    intermediate_activation: IntermediateActivation = "none"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to (batch, smaller height, smaller width, features)."""
        rectified = self.intermediate_activation != "none"
        x = self.layers.depthwise(
            x, self.kernel_size, self.stride, name="depthwise", multiplier=self.multiplier, padding=self.padding,
            kernel_init=depthwise_he_normal if rectified else _depthwise_lecun_normal,
        )  # fmt: skip
        if self.intermediate_activation != "none":
            x = ACTIVATIONS[self.intermediate_activation](x)
        x = self.layers.conv(x, self.features, 1, name="pointwise", bias=self.layers.has_bias())
        x = self.layers.normalize(x, name="norm")
        return self.layers.activate(x) if self.activate else x
