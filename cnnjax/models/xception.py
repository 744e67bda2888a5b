"""Xception: Chollet 2016, "Xception: Deep Learning with Depthwise Separable Convolutions", arXiv:1610.02357, Figure 5.

    stem1, stem2   3x3 convolutions, the first with stride 2          32, 64 channels   147x147
    stage1/block1  2 separable convolutions, max pool with stride 2   128                74x74
    stage2/block1  likewise                                           256                37x37
    stage3/block1  likewise; so far the entry flow                    728                19x19
    stage3/block2  3 separable convolutions, 8 times: the middle flow 728                19x19
    stage4/block1  2 separable convolutions, max pool with stride 2   728, 1024          10x10
    exit/block1    2 separable convolutions                           1536, 2048         10x10
    head           global average pooling, dropout, dense

Every convolution is normalised. In the blocks a ReLU comes before each, but for the first of exit/block1 and that of
stage1/block1, whose input has one already; the stem and the exit end with one. All blocks but that of the exit add
their input, through a 1x1 convolution where the shape changes.

The paper's comparisons are fields: `intermediate_activation` (Figure 10), `shortcut: none` (Figure 9), `dense_widths:
[4096, 4096]` for fully connected layers before the logistic regression (section 4.3), and `convolution: full`.

Deliberate differences:
- What the paper leaves open is the author's release: the stem's convolutions without padding, SAME otherwise, and
  BatchNorm's constants. The release for inference leaves out the paper's dropout of 0.5 before the logistic regression.
- A `features` map of stages 1 to 3 is a block's sum, not activated; the last one is activated.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import linen as nn
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.errors import ConfigError
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.layers import ConvNorm, Layers, SqueezeExcite, drop_path
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import PYTORCH_BATCH_NORM, TF_BATCH_NORM
from cnnjax.nn.separable import IntermediateActivation, SeparableConv
from cnnjax.nn.stage import Stage, linear_drop_rates, require_shortcut
from cnnjax.ops.padding import Padding
from cnnjax.ops.pooling import global_average_pool, max_pool


class XceptionBlock(nn.Module):
    """`conv1`, `conv2`, ..., a max pool where there is a stride, and the sum with the input or its `projection`."""

    layers: Layers
    conv: Callable[..., nn.Module]
    """Makes a convolution with normalisation from its output channels, `activate` and `name`."""
    widths: tuple[int, ...]
    """Channels of each convolution."""
    stride: int = 1
    activate_first: bool = True
    """Whether the first convolution's input has yet to be activated."""
    pool_padding: Literal["same", "symmetric"] = "same"
    shortcut: Literal["none", "projection"] = "projection"
    squeezed: int = 0
    """Hidden width of the squeeze-and-excitation; 0 for none."""

    @nn.compact
    def __call__(self, x: jax.Array, drop_rate: jax.Array | None) -> jax.Array:
        """(batch, height, width, channels) to (batch, height / stride, width / stride, the last of `widths`)."""
        branch = self.layers.activate(x) if self.activate_first else x
        for number, features in enumerate(self.widths, 1):
            last = number == len(self.widths)
            branch = self.conv(features, activate=not last, name=f"conv{number}")(branch)
        if self.squeezed:
            branch = SqueezeExcite(self.layers, self.squeezed, name="squeeze_excite")(branch)
        if self.stride > 1:
            branch = max_pool(branch, 3, self.stride, self.pool_padding)
        if self.shortcut == "none":
            return branch
        if self.stride > 1 or x.shape[-1] != self.widths[-1]:
            x = ConvNorm(self.layers, self.widths[-1], 1, self.stride, activate=False, name="projection")(x)
        return x + drop_path(branch, drop_rate, lambda: self.make_rng("dropout"))


class Xception(ConvNetwork, kw_only=True):
    """Xception. `depth` multiplies the blocks of the middle flow only."""

    norm_epsilon: PositiveFloat = TF_BATCH_NORM["norm_epsilon"]
    norm_momentum: PositiveFloat = TF_BATCH_NORM["norm_momentum"]
    """Of BatchNorm's running statistics, what stays of the old: Flax's convention; PyTorch's 0.1 is 0.9 here."""
    middle_blocks: NonNegativeInt = 8
    """How often the middle flow's block is repeated."""
    convolution: Literal["separable", "full"] = "separable"
    """Depthwise separable convolutions, or 3x3 convolutions over all channels in their place."""
    intermediate_activation: IntermediateActivation = "none"
    """Between a depthwise convolution and its pointwise one."""
    shortcut: Literal["none", "projection"] = "projection"
    """Whether a block adds its input, projected where the shape changes."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """Two 3x3 convolutions without padding, the first with stride 2, or two that keep the size: for about 32x32."""
    pool_padding: Literal["same", "symmetric"] = "same"
    """Of the max pools: TensorFlow's, or a row and column on either side as in PyTorch."""
    se_ratio: NonNegativeInt = 0
    """Squeeze-and-excitation after each block's convolutions, hidden width channels / this; 0 for none."""
    stochastic_depth: Fraction = 0.0
    """Probability that the last block's branch is dropped in training; it grows linearly from 0 at the first block."""
    dense_widths: tuple[PositiveInt, ...] = ()
    """Outputs of fully connected layers before the dropout and the head."""
    dropout: Fraction = 0.5
    """Before the head."""
    scan: bool = False
    """Compile the middle flow's blocks once; their parameters are stacked, see `cnnjax.nn.stage`."""

    def __post_init__(self) -> None:
        if self.convolution == "full" and self.intermediate_activation != "none":
            raise ConfigError(
                f"intermediate_activation '{self.intermediate_activation}' comes between the two parts of a separable "
                "convolution, but convolution is 'full'; choose convolution: separable or intermediate_activation: none"
            )
        require_shortcut(self.shortcut, self.stochastic_depth, "projection")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to logits and the maps of the stem and the stages.

        Raises:
            ConfigError: images below 7x7 (with the small stem 1x1).
        """
        self.require_size(images, 7 if self.stem == "imagenet" else 1)
        layers = dataclasses.replace(self.layers(train), padding="same")
        imagenet = self.stem == "imagenet"
        padding: Padding = "valid" if imagenet else "same"
        x = ConvNorm(layers, self.channels(32), 3, 2 if imagenet else 1, padding, name="stem1")(images)
        x = ConvNorm(layers, self.channels(64), 3, 1, padding, name="stem2")(x)
        features = {"stem": x}
        down = functools.partial(self._block, layers, stride=2)
        middle = self._block(layers, (728,) * 3)
        stages = (
            (down((128, 128), activate_first=False),),
            (down((256, 256)),),
            (down((728, 728)), *(middle,) * self.repeats(self.middle_blocks)),
            (down((728, 1024)),),
        )
        rates = linear_drop_rates(self.stochastic_depth if train else 0.0, tuple(map(len, stages)))
        for number, blocks in enumerate(stages, 1):
            x = Stage(blocks, rates[number - 1], self.remat, self.scan, name=f"stage{number}")(x)
            features[f"stage{number}"] = x
        exit_block = functools.partial(self._block(layers, (1536, 2048), activate_first=False), shortcut="none")
        x = layers.activate(Stage((exit_block,), None, self.remat, name="exit")(x))
        features["stage4"] = x
        x = global_average_pool(x)
        for number, width in enumerate(self.dense_widths, 1):
            x = layers.activate(layers.dense(x, self.channels(width), name=f"dense{number}"))
        x = layers.dropout(x, self.dropout)
        return Outputs(logits=layers.logits(x, self.num_classes), aux={}, features=features)

    def _conv(self, layers: Layers) -> Callable[..., nn.Module]:
        if self.convolution == "full":
            return functools.partial(ConvNorm, layers, kernel_size=3)
        return functools.partial(SeparableConv, layers, intermediate_activation=self.intermediate_activation)

    def _block(self, layers: Layers, widths: tuple[int, ...], **fields: Any) -> "functools.partial[Any]":
        scaled = tuple(self.channels(width) for width in widths)
        return functools.partial(
            XceptionBlock, layers=layers, conv=self._conv(layers), widths=scaled, pool_padding=self.pool_padding,
            shortcut=self.shortcut, squeezed=max(1, scaled[-1] // self.se_ratio) if self.se_ratio else 0, **fields,
        )  # fmt: skip


_PAPER = "Chollet 2016, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017, arXiv:1610.02357"
VARIANTS = {"xception": Variant(Xception, (299, 299, 3), _PAPER)}
PEERS: Peers = {
    "keras/Xception": ("xception", {"dropout": 0.0}),
    "timm/legacy_xception": ("xception", {"pool_padding": "symmetric", "dropout": 0.0, **PYTORCH_BATCH_NORM}),
}
