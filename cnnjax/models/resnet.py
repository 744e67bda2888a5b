"""Residual networks and their plain twins: He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition",
arXiv:1512.03385, Table 1 and section 4.2.

A stem, stages of equal blocks that halve the map and double the channels, global average pooling and a dense layer. A
basic block is two 3x3 convolutions, a bottleneck 1x1, 3x3 and 1x1 that widens fourfold; each adds its input.

Shortcuts, the paper's options: A `identity` (no parameters: every second pixel, zero channels appended), B `projection`
(a 1x1 convolution where the shape changes), C `projection_everywhere`, and `none`, which is the plain network.

Deliberate differences:
- `resnet50`, 101 and 152 are what everyone calls so today, "v1.5": a bottleneck's stride is on its 3x3 convolution. The
  paper's have it on the first 1x1: `resnet50_v1`, 101 and 152.
- `resnet18` and 34 have shortcut B, as releases do; Table 2 of the paper has A: `resnet18_a` and `resnet34_a`.
- Option A's zeros are appended after the channels, where some implementations put half before them.
- `cifar_*` (section 4.2: 6n + 2 layers of 16, 32 and 64 channels on 32x32 images) have A, those named `_b` have B.
- `stem: small` is that of `cifar_*`, one 3x3 convolution, in any of them: for images of about 32x32.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
from flax import linen as nn
from pydantic import NonNegativeInt, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.errors import ConfigError
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.layers import ConvNorm, Layers
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import KERAS_RESNET_BATCH_NORM
from cnnjax.nn.residual import Residual, Shortcut
from cnnjax.nn.rounding import round_channels, round_to_multiple
from cnnjax.nn.stage import Stage, linear_drop_rates, require_stages
from cnnjax.ops.pooling import global_average_pool, max_pool


class ResNet(ConvNetwork, kw_only=True):
    """Plain and residual networks, ResNeXt and SENet. The defaults are ResNet-50's of today."""

    stage_sizes: tuple[PositiveInt, ...] = (3, 4, 6, 3)
    """Blocks of each stage."""
    stage_widths: tuple[PositiveInt, ...] = (64, 128, 256, 512)
    """Channels of each stage's 3x3 convolutions; a bottleneck's outputs have four times as many."""
    bottleneck: bool = True
    stem: Literal["imagenet", "deep", "small"] = "imagenet"
    """One 7x7 convolution and a pool, three 3x3 (SENet-154) and a pool, or one 3x3 that keeps the size."""
    stem_width: PositiveInt = 64
    stem_pool: Literal["symmetric", "ceil"] = "symmetric"
    """Padding of the stem's max pool, a row and column around, or Caffe's at the bottom and right."""
    shortcut: Shortcut = "projection"
    stride_on: Literal["conv1", "conv2"] = "conv2"
    """Which of a bottleneck's convolutions has the stride: the paper's 1x1, or the 3x3."""
    cardinality: PositiveInt = 1
    """Groups of a bottleneck's 3x3 convolution, or of a basic block's second (ResNeXt)."""
    group_width: PositiveInt | None = None
    """Channels of each group in the first stage; None: a bottleneck's 3x3 has its stage's width whatever its groups."""
    activate_branch: bool = False
    """Whether an activation ends a branch too, before squeeze-and-excitation and the sum, which then can only grow."""
    reduced: Literal["inner", "half"] = "inner"
    """Channels of a bottleneck's first 1x1: as many as its 3x3 has, or half (SENet-154)."""
    projection_kernel: Literal[1, 3] = 1
    """Of projections with a stride."""
    se_ratio: NonNegativeInt = 0
    """Squeeze-and-excitation whose hidden width is the channels divided by this; 0 for none."""
    se_divisor: PositiveInt = 1
    """Rounds that hidden width to a multiple."""
    conv_bias: bool = False
    """Whether convolutions have biases although they are normalised."""
    dropout: Fraction = 0.0
    """Before the head."""
    stochastic_depth: Fraction = 0.0
    """Probability that the last block's branch is dropped in training; it grows linearly from 0 at the first block."""
    scan: bool = False
    """Compile each stage's equal blocks once; their parameters are stacked, see `cnnjax.nn.stage`."""

    def __post_init__(self) -> None:
        require_stages(self.stage_sizes, self.stage_widths)
        if not self.bottleneck and (self.group_width or self.reduced == "half"):
            raise ConfigError(
                "group_width and reduced: half are of bottlenecks; set bottleneck: true or leave them out"
            )
        for width in self.stage_widths:
            self._inner(width)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) of any size to logits and the maps of the stem and the stages."""
        self.require_size(images, 1)
        layers = dataclasses.replace(self.layers(train), conv_bias=self.conv_bias or self.norm == "none")
        x = self._stem(layers, images)
        features = {"stem": x}
        if self.stem != "small":
            x = max_pool(x, 3, 2, self.stem_pool)
        sizes = tuple(self.repeats(size) for size in self.stage_sizes)
        rates = linear_drop_rates(self.stochastic_depth if train else 0.0, sizes)
        for stage, (size, width) in enumerate(zip(sizes, self.stage_widths, strict=True), 1):
            block = self._block(layers, width)
            first = functools.partial(block, stride=1 if stage == 1 else 2)
            blocks = (first, *(functools.partial(block, stride=1),) * (size - 1))
            x = Stage(blocks, rates[stage - 1], self.remat, self.scan, name=f"stage{stage}")(x)
            features[f"stage{stage}"] = x
        x = layers.dropout(global_average_pool(x), self.dropout)
        return Outputs(logits=layers.logits(x, self.num_classes), aux={}, features=features)

    def _stem(self, layers: Layers, images: jax.Array) -> jax.Array:
        width = self.channels(self.stem_width)
        if self.stem == "imagenet":
            return ConvNorm(layers, width, 7, 2, name="stem")(images)
        if self.stem == "small":
            return ConvNorm(layers, width, 3, name="stem")(images)
        x = ConvNorm(layers, width, 3, 2, name="stem1")(images)
        x = ConvNorm(layers, width, 3, name="stem2")(x)
        return ConvNorm(layers, 2 * width, 3, name="stem3")(x)

    def _block(self, layers: Layers, width: int) -> "functools.partial[Any]":
        inner = self._inner(width)
        features = 4 * self.channels(width) if self.bottleneck else inner
        return functools.partial(
            Residual, layers=layers, features=features, bottleneck=self.bottleneck, inner=inner,
            reduced=inner // 2 if self.reduced == "half" else inner, stride_on=self.stride_on,
            cardinality=self.cardinality, shortcut=self.shortcut, projection_kernel=self.projection_kernel,
            activate_branch=self.activate_branch,
            squeezed=round_to_multiple(features / self.se_ratio, self.se_divisor) if self.se_ratio else 0,
        )  # fmt: skip

    @nn.nowrap
    def _inner(self, width: int) -> int:
        """Channels of a stage's 3x3 convolutions; the groups cut these and what they see into equal parts."""
        parts = self.cardinality * (2 if self.reduced == "half" else 1)
        if self.group_width is not None:
            width = self.cardinality * max(1, round(self.group_width * width / self.stage_widths[0]))
        inner = round_channels(width, self.width, math.lcm(8, parts))
        if inner % parts:
            half = "half " if parts > self.cardinality else ""
            raise ConfigError(
                f"cardinality {self.cardinality} does not divide {half}the {inner} channels of a stage's 3x3 "
                "convolutions; choose another cardinality, group_width or stage_widths"
            )
        return inner


_PAPER = "He, Zhang, Ren, Sun 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
IMAGENET: dict[int, dict[str, Any]] = {
    18: {"stage_sizes": (2, 2, 2, 2), "bottleneck": False},
    34: {"stage_sizes": (3, 4, 6, 3), "bottleneck": False},
    50: {"stage_sizes": (3, 4, 6, 3)},
    101: {"stage_sizes": (3, 4, 23, 3)},
    152: {"stage_sizes": (3, 8, 36, 3)},
}


def _imagenet(layers: int, **fields: Any) -> Variant:
    return Variant(ResNet, (224, 224, 3), _PAPER, {**IMAGENET[layers], **fields})


def _cifar(layers: int, shortcut: Shortcut) -> Variant:
    sizes = ((layers - 2) // 6,) * 3
    small = {"bottleneck": False, "stem": "small", "stem_width": 16, "stage_widths": (16, 32, 64), "num_classes": 10}
    return Variant(ResNet, (32, 32, 3), _PAPER, {**small, "stage_sizes": sizes, "shortcut": shortcut})


VARIANTS = {
    **{f"resnet{layers}": _imagenet(layers) for layers in IMAGENET},
    **{f"resnet{layers}_v1": _imagenet(layers, stride_on="conv1") for layers in (50, 101, 152)},
    **{f"resnet{layers}_a": _imagenet(layers, shortcut="identity") for layers in (18, 34)},
    **{f"plain{layers}": _imagenet(layers, shortcut="none") for layers in (18, 34)},
    **{f"cifar_resnet{layers}": _cifar(layers, "identity") for layers in (20, 32, 44, 56, 110)},
    **{f"cifar_resnet{layers}_b": _cifar(layers, "projection") for layers in (20, 32, 44, 56, 110)},
    **{f"cifar_plain{layers}": _cifar(layers, "none") for layers in (20, 32, 44, 56, 110)},
}
PEERS: Peers = {
    **{f"{peer}/resnet{layers}": (f"resnet{layers}", {}) for peer in ("torchvision", "timm") for layers in IMAGENET},
    **{
        f"keras/ResNet{layers}": (f"resnet{layers}_v1", {"conv_bias": True, **KERAS_RESNET_BATCH_NORM})
        for layers in (50, 101, 152)
    },
    "pytorchcv/resnet50": ("resnet50_v1", {}),
    **{f"pytorchcv/resnet{layers}_cifar10": (f"cifar_resnet{layers}_b", {}) for layers in (20, 56, 110)},
}
