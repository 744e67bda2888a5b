"""Inception-ResNet v1 and v2: Szegedy, Ioffe, Vanhoucke and Alemi 2016, "Inception-v4, Inception-ResNet and the Impact
of Residual Connections on Learning", arXiv:1602.07261, Table 1, Figures 3, 7 and 10 to 20, section 3.3.

Inception modules without pools whose concatenation a linear 1x1 convolution (`expand`, with a bias and without
normalisation) brings to the width of their input; that is scaled down and added to the input before the ReLU. Channels:

    map at 299x299   features   modules                         v1         v2 release   v2 as drawn
    147x147          stem       three 3x3 convolutions          64         64           64
    71x71            stage1     1x1, 3x3 (drawn: two modules)   192        192          192
    35x35            stage2     entry, 5 (10) x A               256        320          384
    17x17            stage3     Reduction-A, 10 (20) x B        896        1088         1152
    8x8              stage4     Reduction-B, 5 (10) x C         1792       2080, 1536   2144

and then average, dropout, dense. `inception_resnet_v1` is the paper's. `inception_resnet_v2` is the authors' release in
TF-slim, which timm and Keras have too: Inception v3's stem and a pool, a module of its own, twice as many modules, of
which the last is linear and not scaled, and a 1x1 convolution to 1536 channels. `inception_resnet_v2_paper` is what the
paper draws: Inception v4's stem, and no such ends.

Deliberate differences:
- The figures let the modules B and C of v2 expand to 1154 and 2048 channels, which cannot be added to the 1152 and 2144
  that enter: the latter are used.
- `residual_scales` are those of the code in use, 0.17, 0.10 and 0.20; the paper says 0.1 to 0.3.
- The drawn concatenations of the reductions begin with the pool; here, as in the release, it comes last.
- `auxiliary_classifiers: 1` adds the release's second classifier, which the paper does not draw.
- pytorchcv's `inceptionresnetv1` is a network for faces: six modules C, the last one linear, and 512 normalised
  features (`bottleneck`) before the head.
"""

import functools
from typing import Literal, NamedTuple

import jax
from flax import linen as nn
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.branches import Branches, Conv
from cnnjax.nn.inception import (
    HALVING_POOL,
    Block,
    InceptionNetwork,
    Table,
    factorized,
    halving_pool,
    inception_a,
    plain_stem,
    reduction_a,
    split_stem,
)
from cnnjax.nn.layers import Layers, SqueezeExcite, drop_path
from cnnjax.nn.network import Outputs
from cnnjax.nn.norm import TF_BATCH_NORM
from cnnjax.nn.stage import Stage, linear_drop_rates, require_shortcut

Shortcut = Literal["none", "identity"]


class Widths(NamedTuple):
    """The widths in which v1 and v2 differ."""

    a: tuple[int, int]
    """The two 3x3 of module A's third branch; all else in it has 32."""
    reduction_a: tuple[int, int, int, int]
    """k, l, m, n of Table 1."""
    b: tuple[int, int, int, int]
    """The 1x1 alone; the 1x1, 1x7 and 7x1."""
    reduction_b: tuple[int, int, int]
    """The second branch's 3x3, the third's two; the first has 384, each branch's 1x1 256."""
    c: tuple[int, int, int, int]
    """The 1x1 alone; the 1x1, 1x3 and 3x1."""


WIDTHS = {
    "v1": Widths((32, 32), (192, 192, 256, 384), (128, 128, 128, 128), (256, 256, 256), (192, 192, 192, 192)),
    "v2": Widths((48, 64), (256, 256, 384, 384), (192, 128, 160, 192), (288, 288, 320), (192, 192, 224, 256)),
}


def module_a(widths: tuple[int, int]) -> Table:
    """Figures 10 and 16."""
    return (
        ("branch1x1", (Conv(32),)),
        ("branch3x3", (Conv(32), Conv(32, 3))),
        ("branch_double3x3", (Conv(32), *(Conv(width, 3) for width in widths))),
    )


def module_bc(size: int, plain: int, reduced: int, middle: int, features: int) -> Table:
    """Figures 11 and 17 (B, size 7), 13 and 19 (C, size 3)."""
    factors = factorized(size, middle, features, "row_column")
    return (("branch1x1", (Conv(plain),)), (f"branch{size}x{size}", (Conv(reduced), *factors)))


def reduction_b(second: int, third: int, last: int) -> Table:
    """Figures 12 and 18."""
    return (
        ("branch3x3", (Conv(256), Conv(384, 3, 2, "valid"))),
        ("branch3x3_second", (Conv(256), Conv(second, 3, 2, "valid"))),
        ("branch_double3x3", (Conv(256), Conv(third, 3), Conv(last, 3, 2, "valid"))),
        ("branch_pool", (HALVING_POOL,)),
    )


class InceptionResidual(nn.Module):
    """Figure 20: what `branches` and the linear `expand` make of the input, scaled and added to it."""

    layers: Layers
    branches: Table
    scale: float
    """Of the residual; without a shortcut nothing is scaled."""
    activate: bool = True
    """Whether the network's activation follows."""
    shortcut: Shortcut = "identity"
    se_ratio: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, drop_rate: jax.Array | None) -> jax.Array:
        """(batch, height, width, channels) to the same shape."""
        branch = Branches(self.layers, self.branches, name="branches")(x)
        branch = self.layers.conv(branch, x.shape[-1], 1, name="expand")
        if self.se_ratio:
            branch = SqueezeExcite(self.layers, max(1, x.shape[-1] // self.se_ratio), name="squeeze_excite")(branch)
        if self.shortcut == "identity":
            branch = x + self.scale * drop_path(branch, drop_rate, lambda: self.make_rng("dropout"))
        return self.layers.activate(branch) if self.activate else branch


class InceptionResNet(InceptionNetwork, kw_only=True):
    """Inception-ResNet. The defaults are those of v2's release; `depth` multiplies `stage_sizes`."""

    widths: Literal["v1", "v2"] = "v2"
    """Of the branches, as the paper has them for v1 and v2."""
    entry: Literal["convolution", "mixed", "split"] = "mixed"
    """What comes before the modules A: a 3x3 convolution with stride to 256 channels (v1), a pool and an Inception
    module (v2's release), or the stem of Inception v4 (v2 as drawn)."""
    stage_sizes: tuple[PositiveInt, PositiveInt, PositiveInt] = (10, 20, 10)
    """How many modules A, B and C."""
    residual_scales: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (0.17, 0.10, 0.20)
    """What the residuals of modules A, B and C are multiplied by."""
    shortcut: Shortcut = "identity"
    """Whether a module's input is added to its residual."""
    last_module: Literal["activated", "linear"] = "linear"
    """Whether the last module C is like the others, or has neither activation nor scale."""
    last_features: NonNegativeInt = 1536
    """Channels of a 1x1 convolution after the modules; 0 for none."""
    bottleneck: NonNegativeInt = 0
    """Width of a normalised dense layer before the head; 0 for none."""
    stochastic_depth: Fraction = 0.0
    """Probability that the last module's residual is dropped in training; it grows linearly from 0 at the first."""
    scan: bool = False
    """Compile a stage's equal modules once; their parameters are stacked, see `cnnjax.nn.stage`."""

    def __post_init__(self) -> None:
        require_shortcut(self.shortcut, self.stochastic_depth, "identity")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to logits and the last map of each resolution.

        ConfigError below 75x75, or 7x7 with the small stem.
        """
        layers, widths = self.layers(train), WIDTHS[self.widths]
        stage1, entry = self._entry(layers)
        modules = (module_a(widths.a), module_bc(7, *widths.b), module_bc(3, *widths.c))
        residuals = [
            (functools.partial(
                InceptionResidual, layers=layers, branches=self.rescaled(table), scale=scale, shortcut=self.shortcut,
                se_ratio=self.se_ratio,
            ),) * self.repeats(size)
            for table, scale, size in zip(modules, self.residual_scales, self.stage_sizes, strict=True)
        ]  # fmt: skip
        if self.last_module == "linear":
            linear = functools.partial(residuals[2][-1], scale=1.0, activate=False)
            residuals[2] = (*residuals[2][:-1], linear)
        last = (self.block(layers, (("branch1x1", (Conv(self.last_features),)),)),) if self.last_features else ()
        # Of each stage what comes before its residuals, these, and what comes after them.
        parts: tuple[tuple[tuple[Block, ...], ...], ...] = (
            (stage1, (), ()),
            (entry, residuals[0], ()),
            ((self.block(layers, reduction_a(*widths.reduction_a)),), residuals[1], ()),
            ((self.block(layers, reduction_b(*widths.reduction_b)),), residuals[2], last),
        )
        rates = linear_drop_rates(self.stochastic_depth if train else 0.0, tuple(len(row) for _, row, _ in parts))
        stages = (
            Stage(
                (*before, *row, *after),
                None if rate is None else (*(0.0,) * len(before), *rate, *(0.0,) * len(after)),
                self.remat, self.scan, name=f"stage{number}",
            )
            for number, ((before, row, after), rate) in enumerate(zip(parts, rates, strict=True), 1)
        )  # fmt: skip
        bottleneck = self.channels(self.bottleneck) if self.bottleneck else 0
        return self.through(layers, images, tuple(stages), bottleneck)

    def _entry(self, layers: Layers) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
        """The blocks of stage1, and those of stage2 before its modules A."""
        if self.entry == "split":
            *stage1, last = (self.block(layers, table) for table in split_stem(self.stem, "column_row"))
            return tuple(stage1), (last,)
        tables: tuple[Table, ...]
        if self.entry == "mixed":
            tables = (halving_pool(self.stem), inception_a(96, (48, 5, 64), 64, self.count_padding))
        else:
            tables = ((("branch3x3", (Conv(256, 3, 2, "valid") if self.stem == "imagenet" else Conv(256, 3),)),),)
        return (self.block(layers, plain_stem(self.stem)),), tuple(self.block(layers, table) for table in tables)


_PAPER = "Szegedy, Ioffe, Vanhoucke, Alemi 2016, Inception-v4, Inception-ResNet, arXiv:1602.07261"
_DRAWN = {"stage_sizes": (5, 10, 5), "last_module": "activated", "last_features": 0}
_FACE = {"stage_sizes": (5, 10, 6), "last_module": "linear", "bottleneck": 512, "dropout": 0.6}

VARIANTS = {
    "inception_resnet_v2": Variant(InceptionResNet, (299, 299, 3), _PAPER),
    "inception_resnet_v1": Variant(
        InceptionResNet, (299, 299, 3), _PAPER, {"widths": "v1", "entry": "convolution", **_DRAWN}
    ),
    "inception_resnet_v2_paper": Variant(InceptionResNet, (299, 299, 3), _PAPER, {"entry": "split", **_DRAWN}),
}
PEERS: Peers = {
    "timm/inception_resnet_v2": ("inception_resnet_v2", {"dropout": 0.0}),
    "keras/InceptionResNetV2": ("inception_resnet_v2", {"norm_scale": False, "dropout": 0.0, **TF_BATCH_NORM}),
    "pytorchcv/inceptionresnetv1": ("inception_resnet_v1", _FACE),
}
