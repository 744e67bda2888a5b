"""EfficientNet: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
arXiv:1905.11946, Table 1, and EfficientNet-Lite, of which the authors published only the code.

Table 1, the network B0; MBConv is an inverted bottleneck (Sandler et al. 2018) with squeeze-and-excitation:

    Table 1   here     operator         stride  channels  repeats
    1         stem     Conv 3x3         2       32        1
    2         stage1   MBConv1, k3x3    1       16        1
    3         stage2   MBConv6, k3x3    2       24        2
    4         stage3   MBConv6, k5x5    2       40        2
    5         stage4   MBConv6, k3x3    2       80        3
    6         stage5   MBConv6, k5x5    1       112       3
    7         stage6   MBConv6, k5x5    2       192       4
    8         stage7   MBConv6, k3x3    1       320       1
    9         stage8   Conv 1x1, global average pooling, dense: 1280

The stride is that of a stage's first block. B1 to B7 are B0 with the paper's compound coefficients in `width` and
`depth`, larger images and more dropout; scaled channels are rounded to multiples of 8, scaled repeats up.

What the paper does not print is as in the authors' release: SAME padding, BatchNorm's epsilon 1e-3 and momentum 0.99,
squeeze-and-excitation with a hidden width of a quarter of the block's INPUT channels, and stochastic depth that drops
the branch of block i of n, counted from 0, with probability 0.2 i / n.

Lite (networks for phones): ReLU6, no squeeze-and-excitation, and `scale_ends: false`. Images are those of the release,
280 pixels for lite3 and 300 for lite4; timm lists its weights with 300 and 380.

Deliberate differences:
- The images come normalised: Keras' models hold that as layers of theirs, these do not.
- The head's first weights are the release's, +-1 / sqrt(classes), unless He's +-sqrt(6 / features) is less: for few
  classes, whose logits would be five times as large.
- `stem: small` is for images of about 32x32: neither the stem nor stage2 halves them, so that 32x32 ends as 4x4.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
from flax import linen as nn
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.activations import Activation
from cnnjax.nn.initializers import dense_uniform_fan_out, depthwise_he_normal
from cnnjax.nn.layers import ConvNorm, DepthwiseNorm, Layers, SqueezeExcite, drop_path
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, TF_BATCH_NORM
from cnnjax.nn.stage import Stage, linear_drop_rates
from cnnjax.ops.pooling import global_average_pool

# Kernel, stride of the first block, channels and repeats of stage1 to stage7.
STAGES = ((3, 1, 16, 1), (3, 2, 24, 2), (5, 2, 40, 2), (3, 2, 80, 3), (5, 1, 112, 3), (5, 2, 192, 4), (3, 1, 320, 1))

# Width, depth, height and width of the images, dropout.
SCALING = {
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
    "lite0": (1.0, 1.0, 224, 0.2),
    "lite1": (1.0, 1.1, 240, 0.2),
    "lite2": (1.1, 1.2, 260, 0.3),
    "lite3": (1.2, 1.4, 280, 0.3),
    "lite4": (1.4, 1.8, 300, 0.3),
}


class MBConv(nn.Module):
    """A pointwise convolution that expands, a depthwise one, squeeze-and-excitation, a linear pointwise projection."""

    layers: Layers
    features: int
    """Output channels."""
    kernel_size: int
    expansion: int
    """Channels of the depthwise convolution for each of the input; with 1 there is no expanding convolution."""
    stride: int
    separable: bool
    se_ratio: float
    shortcut: Literal["none", "identity"]

    @nn.compact
    def __call__(self, x: jax.Array, drop_rate: jax.Array | None) -> jax.Array:
        """(batch, height, width, channels) to (batch, height / stride, width / stride, features)."""
        channels, branch = x.shape[-1], x
        if self.expansion > 1:
            branch = ConvNorm(self.layers, channels * self.expansion, name="expand")(branch)
        if self.separable:
            spatial = DepthwiseNorm(
                self.layers, self.kernel_size, self.stride, kernel_init=depthwise_he_normal, name="depthwise"
            )
            branch = spatial(branch)
        else:
            branch = ConvNorm(self.layers, branch.shape[-1], self.kernel_size, self.stride, name="convolution")(branch)
        if self.se_ratio:
            reduced = max(1, int(channels * self.se_ratio))
            branch = SqueezeExcite(self.layers, reduced, self.layers.activation, name="squeeze_excite")(branch)
        branch = ConvNorm(self.layers, self.features, activate=False, name="project")(branch)
        if self.shortcut == "none" or self.stride > 1 or channels != self.features:
            return branch
        return x + drop_path(branch, drop_rate, lambda: self.make_rng("dropout"))


class EfficientNet(ConvNetwork, kw_only=True):
    """EfficientNet and EfficientNet-Lite; the defaults are B0's. `width` and `depth` are the compound coefficients."""

    activation: Activation = "silu"
    norm_epsilon: PositiveFloat = TF_BATCH_NORM["norm_epsilon"]
    norm_momentum: PositiveFloat = TF_BATCH_NORM["norm_momentum"]
    stem: Literal["imagenet", "small"] = "imagenet"
    """Small: the stem and stage2 keep the image's size."""
    padding: Literal["same", "symmetric"] = "same"
    """TensorFlow's, or PyTorch's: with a stride, the windows lie up to a pixel apart."""
    scale_ends: bool = True
    """Whether the stem's and stage8's channels follow `width`, and stage1's and stage7's repeats follow `depth`."""
    kernel_size: Literal["published", 3, 5, 7] = "published"
    """Of all blocks' spatial convolutions."""
    separable: bool = True
    """Whether these are depthwise; else each of their outputs sees all expanded channels."""
    expansion: PositiveInt = 6
    """How many times as many channels a block has inside as it gets, from stage2 on; stage1 does not expand."""
    se_ratio: NonNegativeFloat = 0.25
    """Hidden width of the squeeze-and-excitation for each of the block's input channels; 0 for none."""
    shortcut: Literal["none", "identity"] = "identity"
    """Of blocks that keep their input's shape."""
    dropout: Fraction = 0.2
    """Before the head."""
    stochastic_depth: Fraction = 0.2
    """Block i of n, from 0, is dropped in training with this times i / n, if it has a shortcut."""
    scan: bool = False
    """Compile each stage's equal blocks once; their parameters are stacked, see `cnnjax.nn.stage`."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) of any size to logits and the maps of the stem and the stages."""
        self.require_size(images, 1)
        layers = dataclasses.replace(self.layers(train), padding=self.padding)
        stem, last = (self.channels(width) if self.scale_ends else width for width in (32, 1280))
        x = ConvNorm(layers, stem, 3, 1 if self.stem == "small" else 2, name="stem")(images)
        features = {"stem": x}
        sizes = tuple(
            self.repeats(repeats) if self.scale_ends or 0 < index < len(STAGES) - 1 else repeats
            for index, (*_, repeats) in enumerate(STAGES)
        )
        blocks = sum(sizes)
        rates = linear_drop_rates(self.stochastic_depth * (blocks - 1) / blocks if train else 0.0, sizes)
        for index, (kernel, stride, channels, _) in enumerate(STAGES):
            block = functools.partial(
                MBConv, layers=layers, features=self.channels(channels), separable=self.separable,
                kernel_size=kernel if self.kernel_size == "published" else self.kernel_size,
                expansion=self.expansion if index else 1, se_ratio=self.se_ratio, shortcut=self.shortcut,
            )  # fmt: skip
            keeps_size = stride == 1 or (self.stem == "small" and index == 1)
            strides = (1 if keeps_size else 2, *(1,) * (sizes[index] - 1))
            stage = tuple(functools.partial(block, stride=stride) for stride in strides)
            x = Stage(stage, rates[index], self.remat, self.scan, name=f"stage{index + 1}")(x)
            features[f"stage{index + 1}"] = x
        features["stage8"] = x = ConvNorm(layers, last, name="stage8")(x)
        x = layers.dropout(global_average_pool(x), self.dropout)
        logits = layers.logits(x, self.num_classes, kernel_init=dense_uniform_fan_out)
        return Outputs(logits=logits, aux={}, features=features)


_PAPER = "Tan, Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv:1905.11946"
_LITE = {"activation": "relu6", "se_ratio": 0.0, "scale_ends": False}


def _variant(name: str) -> Variant:
    width, depth, size, dropout = SCALING[name]
    args: dict[str, Any] = {"width": width, "depth": depth, "dropout": dropout}
    return Variant(EfficientNet, (size, size, 3), _PAPER, {**args, **(_LITE if name.startswith("lite") else {})})


VARIANTS = {f"efficientnet_{name}": _variant(name) for name in SCALING}

_SYMMETRIC = {"padding": "symmetric", "norm_epsilon": BATCH_NORM_EPSILON, "norm_momentum": BATCH_NORM_MOMENTUM}
_TIMM = {"dropout": 0.0, "stochastic_depth": 0.0}  # its own defaults; its published weights were trained with both
PEERS: Peers = {
    **{f"torchvision/efficientnet_b{phi}": (f"efficientnet_b{phi}", _SYMMETRIC) for phi in range(5)},
    **{f"torchvision/efficientnet_b{phi}": (f"efficientnet_b{phi}", {"padding": "symmetric"}) for phi in (5, 6, 7)},
    **{f"timm/{name}": (name, {**_SYMMETRIC, **_TIMM}) for name in VARIANTS},
    **{f"timm/tf_{name}": (name, {"norm_momentum": BATCH_NORM_MOMENTUM, **_TIMM}) for name in VARIANTS},
    **{f"keras/EfficientNetB{phi}": (f"efficientnet_b{phi}", {}) for phi in range(8)},
    **{f"efficientnet-lite-pytorch/efficientnet-lite{n}": (f"efficientnet_lite{n}", {}) for n in range(5)},
}
