"""MobileNet v1: Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto and Adam 2017, "MobileNets: Efficient
Convolutional Neural Networks for Mobile Vision Applications", arXiv:1704.04861, Table 1.

    stem    3x3 convolution, stride 2      32 channels   112x112
    stage1  1 separable convolution        64            112x112
    stage2  2, the first with stride 2    128             56x56
    stage3  2, the first with stride 2    256             28x28
    stage4  6, the first with stride 2    512             14x14
    stage5  2, the first with stride 2   1024              7x7
    head    global average pooling, dropout, dense

A depthwise separable convolution is a depthwise 3x3 and a pointwise 1x1, a normalisation and a ReLU6 after each.

The paper's two multipliers are the field `width` (`mobilenet_v1_075`, `_050` and `_025`) and the size of the images.
Its comparisons: `convolution: full` (Table 4), `stage_sizes: [1, 2, 2, 1, 2]` for the shallow network (Table 5).

Deliberate differences:
- Table 1 prints a stride of 2 for the last depthwise layer, whose map stays 7x7: its stride is 1, as in the release.
- What the paper leaves open is the release's: TensorFlow's SAME padding, ReLU6, dropout of 0.001 and the constants of
  BatchNorm.
- The release's head is a 1x1 convolution of the pooled map; it is a dense layer here, the same function.
"""

import dataclasses
import functools
from typing import Literal

import jax
from flax import linen as nn
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.errors import ConfigError
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.activations import Activation
from cnnjax.nn.initializers import depthwise_he_normal
from cnnjax.nn.layers import ConvNorm, DepthwiseNorm, Layers, SqueezeExcite
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import PYTORCH_BATCH_NORM, TF_BATCH_NORM
from cnnjax.nn.stage import Stage
from cnnjax.ops.pooling import global_average_pool


class SeparableBlock(nn.Module):
    """`depthwise` and `pointwise`, or a full `conv` in their place."""

    layers: Layers
    features: int
    stride: int
    convolution: Literal["separable", "full"]
    squeezed: int
    """Hidden width of the squeeze-and-excitation; 0 for none."""

    @nn.compact
    def __call__(self, x: jax.Array, drop_rate: jax.Array | None) -> jax.Array:
        """(batch, height, width, channels) to (batch, height / stride, width / stride, features).

        There is no residual branch that `drop_rate` could drop.
        """
        if self.convolution == "full":
            x = ConvNorm(self.layers, self.features, 3, self.stride, name="conv")(x)
        else:
            x = DepthwiseNorm(self.layers, 3, self.stride, kernel_init=depthwise_he_normal, name="depthwise")(x)
            x = ConvNorm(self.layers, self.features, name="pointwise")(x)
        return SqueezeExcite(self.layers, self.squeezed, name="squeeze_excite")(x) if self.squeezed else x


class MobileNet(ConvNetwork, kw_only=True):
    """MobileNet v1. `depth` multiplies the separable convolutions of each stage."""

    activation: Activation = "relu6"
    norm_epsilon: PositiveFloat = TF_BATCH_NORM["norm_epsilon"]
    norm_momentum: PositiveFloat = TF_BATCH_NORM["norm_momentum"]
    """Of BatchNorm's running statistics, what stays of the old: Flax's convention; PyTorch's 0.1 is 0.9 here."""
    width: PositiveFloat = 1.0
    """The paper's width multiplier: multiplies every layer's channels, rounded down, not to multiples of 8."""
    stage_sizes: tuple[PositiveInt, ...] = (1, 2, 2, 6, 2)
    """Separable convolutions of each stage."""
    stage_widths: tuple[PositiveInt, ...] = (64, 128, 256, 512, 1024)
    """Channels of each stage."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """The first convolution's stride is 2, or 1: for images of about 32x32."""
    stem_width: PositiveInt = 32
    convolution: Literal["separable", "full"] = "separable"
    """Depthwise separable convolutions, or 3x3 convolutions over all channels in their place (Table 4)."""
    padding: Literal["same", "symmetric"] = "same"
    """Of strided convolutions: TensorFlow's, or a row and column on either side as in PyTorch."""
    se_ratio: NonNegativeInt = 0
    """Squeeze-and-excitation after each block, its hidden width the channels divided by this; 0 for none."""
    dropout: Fraction = 0.001
    """Before the head."""
    scan: bool = False
    """Compile each stage's equal blocks once; their parameters are stacked, see `cnnjax.nn.stage`."""

    def __post_init__(self) -> None:
        if len(self.stage_sizes) != len(self.stage_widths):
            raise ConfigError(
                f"stage_sizes and stage_widths name the same stages, got {len(self.stage_sizes)} sizes and "
                f"{len(self.stage_widths)} widths"
            )
        super().__post_init__()

    @nn.nowrap
    def channels(self, published: int) -> int:
        """A published width times `width`, rounded down as in the release, at least 1."""
        return max(1, int(published * self.width))

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) of any size to logits and the maps of the stem and the stages."""
        self.require_size(images, 1)
        layers = dataclasses.replace(self.layers(train), padding=self.padding)
        stem_stride = 2 if self.stem == "imagenet" else 1
        x = ConvNorm(layers, self.channels(self.stem_width), 3, stem_stride, name="stem")(images)
        features = {"stem": x}
        for index, (size, width) in enumerate(zip(self.stage_sizes, self.stage_widths, strict=True)):
            channels = self.channels(width)
            block = functools.partial(
                SeparableBlock, layers=layers, features=channels, convolution=self.convolution,
                squeezed=max(1, channels // self.se_ratio) if self.se_ratio else 0,
            )  # fmt: skip
            first = functools.partial(block, stride=1 if index == 0 else 2)
            blocks = (first, *(functools.partial(block, stride=1),) * (self.repeats(size) - 1))
            x = Stage(blocks, None, self.remat, self.scan, name=f"stage{index + 1}")(x)
            features[f"stage{index + 1}"] = x
        x = layers.dropout(global_average_pool(x), self.dropout)
        return Outputs(logits=layers.logits(x, self.num_classes), aux={}, features=features)


_PAPER = (
    "Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto and Adam 2017, MobileNets: Efficient Convolutional "
    "Neural Networks for Mobile Vision Applications, arXiv:1704.04861"
)
_NAMES = {1.0: "mobilenet_v1", 0.75: "mobilenet_v1_075", 0.5: "mobilenet_v1_050", 0.25: "mobilenet_v1_025"}
VARIANTS = {name: Variant(MobileNet, (224, 224, 3), _PAPER, {"width": width}) for width, name in _NAMES.items()}
PEERS: Peers = {
    "keras/MobileNet": ("mobilenet_v1", {}),
    # The paper's resolution multiplier: the same network for smaller images.
    **{
        f"keras/MobileNet+alpha{width}_r{resolution}": (name, {}, (resolution, resolution, 3))
        for width, name in _NAMES.items()
        for resolution in (224, 192, 160, 128)
        if (width, resolution) != (1.0, 224)
    },
    "timm/mobilenetv1_100": ("mobilenet_v1", {"padding": "symmetric", "dropout": 0.0, **PYTORCH_BATCH_NORM}),
}
