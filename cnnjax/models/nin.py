"""Network in Network: Lin, Chen and Yan 2013, arXiv:1312.4400, and the Caffe models that its authors released (CIFAR).

    stage 1  192 5x5, 160 1x1, 96 1x1         max pool 3x3 with stride 2, dropout 0.5       32x32 to 16x16
    stage 2  192 5x5, 192 1x1, 192 1x1        average pool 3x3 with stride 2, dropout 0.5   16x16 to 8x8
    stage 3  192 3x3, 192 1x1, classes 1x1    global average: one map for each class

The 1x1 layers are a small dense network that slides over the map ("mlpconv"); ReLU follows every layer, the last one
too. There is no dense layer: a map's mean is its class's logit. Pools are Caffe's: the last window counts although the
map does not fill it, and an average divides by what lies in the map.

Deliberate differences:
- Weights start normal with variance 2 / fan-in: the paper says only that initial weights were set by hand.
- A dense head (section 4.6, the comparison with global averaging) sees the maps averaged to 8x8, so that images of any
  size fit; at the native size this changes nothing. Dropout stands before it.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from pydantic import NonNegativeInt, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.initializers import he_normal_fan_in
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import NormKind
from cnnjax.nn.plain import ConvStack, Head, dense_head
from cnnjax.ops.pooling import average_pool, global_average_pool, max_pool

# For each stage its first kernel, and the channels of its first, middle and last convolutions; None for the classes.
STAGES: tuple[tuple[int, int, int, int | None], ...] = ((5, 192, 160, 96), (5, 192, 192, 192), (3, 192, 192, None))


class NIN(ConvNetwork, kw_only=True):
    """Network in Network for images of about 32x32. `depth` multiplies `pointwise_layers`."""

    num_classes: PositiveInt = 10
    norm: NormKind = "none"
    pointwise_layers: NonNegativeInt = 2
    """1x1 convolutions after each stage's first; without any, a stage is one convolution as wide as its last."""
    pool_padding: Literal["ceil", "symmetric"] = "ceil"
    """Caffe's at the bottom and right, or a row and column around that an average counts."""
    dropout: Fraction = 0.5
    """After both pools, and before a dense head."""
    head: Head = "global_average"
    """A logit is its map's mean, or a dense layer on all maps."""
    head_size: PositiveInt = 8
    """Height and width of the maps that a dense head sees."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) of any size to logits and the stages' maps."""
        self.require_size(images, 1)
        layers = dataclasses.replace(self.layers(train), kernel_init=he_normal_fan_in)
        stack = nn.remat(ConvStack) if self.remat else ConvStack
        count = 1 + self.repeats(self.pointwise_layers)
        x, features = images, {}
        for index, (kernel, first, middle, last) in enumerate(STAGES, 1):
            end = self.num_classes if last is None else self.channels(last)
            widths = (self.channels(first), *(self.channels(middle),) * (count - 2), end)[-count:]
            x = stack(layers, tuple(zip(widths, (kernel, *(1,) * (count - 1)), strict=True)), name=f"stage{index}")(x)
            features[f"stage{index}"] = x
            if index == 1:
                x = layers.dropout(max_pool(x, 3, 2, self.pool_padding), self.dropout, name="dropout1")
            elif index == 2:
                x = average_pool(x, 3, 2, self.pool_padding, count_padding=self.pool_padding == "symmetric")
                x = layers.dropout(x, self.dropout, name="dropout2")
        if self.head == "global_average":
            logits = global_average_pool(x.astype(jnp.promote_types(self.dtype, jnp.float32)))
        else:
            x = layers.dropout(x, self.dropout, name="dropout3")
            logits = dense_head(layers, x, (), self.num_classes, size=self.head_size)
        return Outputs(logits=logits, aux={}, features=features)


_PAPER = "Lin, Chen, Yan 2013, Network In Network, arXiv:1312.4400"
VARIANTS = {
    "nin_cifar10": Variant(NIN, (32, 32, 3), _PAPER),
    "nin_cifar100": Variant(NIN, (32, 32, 3), _PAPER, {"num_classes": 100}),
}
PEERS: Peers = {
    f"pytorchcv/nin_cifar{classes}": (f"nin_cifar{classes}", {"pool_padding": "symmetric"}) for classes in (10, 100)
}
