"""The small network that courses teach on Fashion-MNIST: Géron 2019, "Hands-On Machine Learning with Scikit-Learn,
Keras, and TensorFlow", 2nd edition, chapter 14.

    stage 1  64 7x7              max pool 2x2   28x28 to 14x14
    stage 2  128 3x3, 128 3x3    max pool 2x2   14x14 to 7x7
    stage 3  256 3x3, 256 3x3    max pool 2x2   7x7 to 3x3
    dense    128, 64 and the ten classes, dropout 0.5 after the first two

Convolutions keep the map's size; ReLU follows every layer but the last.

Deliberate difference: weights start normal with variance 2 / fan-in, where Keras' default is Glorot's uniform.
"""

import dataclasses

import jax
from flax import linen as nn
from pydantic import PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.models.variant import Variant
from cnnjax.nn.initializers import he_normal_fan_in
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import NormKind
from cnnjax.nn.plain import ConvStack, Head, average_head, dense_head
from cnnjax.nn.stage import require_stages
from cnnjax.ops.pooling import max_pool


class SimpleCNN(ConvNetwork, kw_only=True):
    """Convolutions and pools for small images. `depth` multiplies the convolutions of each stage."""

    num_classes: PositiveInt = 10
    norm: NormKind = "none"
    stage_sizes: tuple[PositiveInt, ...] = (1, 2, 2)
    """Convolutions of each stage."""
    stage_widths: tuple[PositiveInt, ...] = (64, 128, 256)
    """Channels of each stage."""
    stem_kernel: PositiveInt = 7
    """Height and width of the very first kernel; all others are 3x3."""
    dense_widths: tuple[PositiveInt, ...] = (128, 64)
    """Units of the hidden dense layers."""
    head: Head = "dense"
    """Hidden dense layers on the whole map, or the means over all positions; then the classes."""
    dropout: Fraction = 0.5
    """After the hidden dense layers; of the means in a global average head."""

    def __post_init__(self) -> None:
        require_stages(self.stage_sizes, self.stage_widths)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) from 8x8 to logits, the map before each pool, and the last pool's."""
        self.require_size(images, 2 ** len(self.stage_sizes))
        layers = dataclasses.replace(self.layers(train), padding="same", kernel_init=he_normal_fan_in)
        stack = nn.remat(ConvStack) if self.remat else ConvStack
        x, features = images, {}
        for index, (size, width) in enumerate(zip(self.stage_sizes, self.stage_widths, strict=True), 1):
            first = self.stem_kernel if index == 1 else 3
            kernels = (first, *(3,) * (self.repeats(size) - 1))
            x = stack(layers, tuple((self.channels(width), kernel) for kernel in kernels), name=f"stage{index}")(x)
            features[f"stage{index}"] = x
            x = max_pool(x, 2, 2)
        features["pool"] = x
        if self.head == "global_average":
            logits = average_head(layers, x, self.num_classes, dropout=self.dropout)
        else:
            hidden = tuple(self.channels(width) for width in self.dense_widths)
            logits = dense_head(layers, x, hidden, self.num_classes, dropout=self.dropout)
        return Outputs(logits=logits, aux={}, features=features)


_PAPER = (
    "Géron 2019, Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow, 2nd edition, O'Reilly, chapter 14"
)
VARIANTS = {"simple_cnn": Variant(SimpleCNN, (28, 28, 1), _PAPER)}
