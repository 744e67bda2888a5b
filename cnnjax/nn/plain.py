"""What networks without branches are made of: stacks of convolutions, and a head of dense layers or of means."""

from typing import Literal

import jax
from flax import linen as nn

from cnnjax.nn.initializers import Initializer
from cnnjax.nn.layers import ConvNorm, Layers
from cnnjax.ops.pooling import adaptive_average_pool, global_average_pool

Head = Literal["dense", "global_average"]


class ConvStack(nn.Module):
    """Convolutions one after the other, each with its normalisation and activation: conv1, conv2, ..."""

    layers: Layers
    convolutions: tuple[tuple[int, int], ...]
    """For each its output channels and its kernel's height and width."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to (batch, height, width, the last one's channels)."""
        for index, (features, kernel_size) in enumerate(self.convolutions, 1):
            x = ConvNorm(self.layers, features, kernel_size, name=f"conv{index}")(x)
        return x


def dense_head(
    layers: Layers,
    x: jax.Array,
    hidden: tuple[int, ...],
    num_classes: int,
    *,
    size: int | None = None,
    dropout: float = 0.0,
    dropped: Literal["inputs", "outputs"] = "outputs",
    bias_init: Initializer | None = None,
) -> jax.Array:
    """Dense layers `dense1`, `dense2`, ... and `head`: (batch, height, width, channels) to (batch, num_classes).

    Args:
        hidden: units of the layers before the last, each followed by the activation.
        size: the map is averaged to that height and width first, so that the network takes images of any size.
        dropout: rate of what is dropped in training.
        dropped: the hidden layers' inputs, or their activated outputs.
        bias_init: of the hidden layers; None for the network's.
    """
    if size is not None:
        x = adaptive_average_pool(x, (size, size))
    x = x.reshape(x.shape[0], -1)
    for index, units in enumerate(hidden, 1):
        if dropped == "inputs":
            x = layers.dropout(x, dropout, name=f"dropout{index}")
        x = layers.activate(layers.dense(x, units, name=f"dense{index}", bias_init=bias_init))
        if dropped == "outputs":
            x = layers.dropout(x, dropout, name=f"dropout{index}")
    return layers.logits(x, num_classes)


def average_head(layers: Layers, x: jax.Array, num_classes: int, *, dropout: float = 0.0) -> jax.Array:
    """The means over all positions, dropout, and `head`: (batch, height, width, channels) to (batch, num_classes)."""
    return layers.logits(layers.dropout(global_average_pool(x), dropout), num_classes)
