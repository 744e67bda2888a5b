"""What Inception v3, Inception v4 and the Inception-ResNets have in common: kinds of modules as tables of branches, the
auxiliary classifier, and the way through a stem and four stages.

Szegedy, Vanhoucke, Ioffe, Shlens and Wojna 2015, arXiv:1512.00567; Szegedy, Ioffe, Vanhoucke and Alemi 2016,
arXiv:1602.07261. What halves the map is unpadded there ("V" in the drawings); all other layers keep its size.
"""

import dataclasses
import functools
from typing import Any, Literal, TypeAlias

import jax
from flax import linen as nn
from pydantic import NonNegativeInt, PositiveFloat

from cnnjax.config_base import Fraction
from cnnjax.nn.branches import Branch, Branches, Chain, Conv, Fork, Pool, Step, rescale
from cnnjax.nn.initializers import he_normal_fan_in
from cnnjax.nn.layers import ConvNorm, Layers
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import INCEPTION_BATCH_NORM
from cnnjax.nn.stage import Stage
from cnnjax.ops.padding import Padding
from cnnjax.ops.pooling import average_pool, global_average_pool

Stem = Literal["imagenet", "small"]
# An n x n convolution as 1 x n and then n x 1, the other way round, or as it is.
Factorization = Literal["row_column", "column_row", "full"]
Block: TypeAlias = "functools.partial[Any]"
Table: TypeAlias = tuple[Branch, ...]

HALVING_POOL = Pool("max", 3, 2, "valid")


def factorized(size: int, middle: int, features: int, factorization: Factorization) -> tuple[Conv, ...]:
    """A size x size convolution to `features` channels, with `middle` of them between its two factors."""
    if factorization == "full":
        return (Conv(features, size),)
    row, column = (1, size), (size, 1)
    first, second = (row, column) if factorization == "row_column" else (column, row)
    return (Conv(middle, first), Conv(features, second))


def average_branch(features: int, count_padding: bool) -> Branch:
    """A 3x3 average pool and a 1x1 convolution."""
    return ("branch_pool", (Pool("average", count_padding=count_padding), Conv(features)))


def inception_a(plain: int, conv: tuple[int, int, int], projection: int, count_padding: bool) -> Table:
    """The module of the 35x35 maps; `conv`: of its second branch the 1x1's width, the next one's size and width."""
    reduced, size, features = conv
    return (
        ("branch1x1", (Conv(plain),)),
        (f"branch{size}x{size}", (Conv(reduced), Conv(features, size))),
        ("branch_double3x3", (Conv(64), Conv(96, 3), Conv(96, 3))),
        average_branch(projection, count_padding),
    )


def inception_b(
    plain: int,
    conv: tuple[int, int, int],
    double: tuple[int, int, int, int, int],
    projection: int,
    factorizations: tuple[Factorization, Factorization],
    count_padding: bool,
) -> Table:
    """The module of the 17x17 maps; `conv` and `double` are the widths of its branches with one and two 7x7."""
    return (
        ("branch1x1", (Conv(plain),)),
        ("branch7x7", (Conv(conv[0]), *factorized(7, *conv[1:], factorizations[0]))),
        (
            "branch_double7x7",
            (
                Conv(double[0]),
                *factorized(7, *double[1:3], factorizations[1]),
                *factorized(7, *double[3:], factorizations[1]),
            ),
        ),
        average_branch(projection, count_padding),
    )


def inception_c(
    plain: int, reduced: int, double: tuple[Conv, ...], fork: int, projection: int, count_padding: bool
) -> Table:
    """The module of the 8x8 maps: a 1x3 and a 3x1 side by side end two of its branches; `double` begins the second."""
    arms = Fork((Conv(fork, (1, 3)), Conv(fork, (3, 1))))
    return (
        ("branch1x1", (Conv(plain),)),
        ("branch3x3", (Conv(reduced), arms)),
        ("branch_double3x3", (*double, arms)),
        average_branch(projection, count_padding),
    )


def reduction_a(k: int, l: int, m: int, n: int) -> Table:  # noqa: E741
    """From 35x35 to 17x17; k, l, m and n are those of Table 1 of arXiv:1602.07261."""
    return (
        ("branch3x3", (Conv(n, 3, 2, "valid"),)),
        ("branch_double3x3", (Conv(k), Conv(l, 3), Conv(m, 3, 2, "valid"))),
        ("branch_pool", (HALVING_POOL,)),
    )


def reduction_b(conv: tuple[int, int], long: tuple[int, int, int, int], factorization: Factorization) -> Table:
    """From 17x17 to 8x8, without residuals; `long` are the widths of the branch with a 7x7."""
    return (
        ("branch3x3", (Conv(conv[0]), Conv(conv[1], 3, 2, "valid"))),
        ("branch7x7", (Conv(long[0]), *factorized(7, *long[1:3], factorization), Conv(long[3], 3, 2, "valid"))),
        ("branch_pool", (HALVING_POOL,)),
    )


def first_convolutions(stem: Stem) -> tuple[Step, ...]:
    """The three convolutions that all of these networks start with, to half the size or (small) to the same."""
    halved, unpadded = (Conv(32, 3, 2, "valid"), Conv(32, 3, 1, "valid"))
    return (*((halved, unpadded) if stem == "imagenet" else (Conv(32, 3), Conv(32, 3))), Conv(64, 3))


def plain_stem(stem: Stem) -> Table:
    """What follows `first_convolutions` in Inception v3 and TF-slim's Inception-ResNets, to a quarter of the size."""
    steps = (HALVING_POOL, Conv(80), Conv(192, 3, 1, "valid")) if stem == "imagenet" else (Conv(80), Conv(192, 3))
    return (("branch3x3", steps),)


def halving_pool(stem: Stem) -> Table:
    """What follows `plain_stem`, to an eighth of the size or, with the small stem, nothing."""
    return (("branch_pool", (HALVING_POOL,) if stem == "imagenet" else ()),)


def split_stem(stem: Stem, factorization: Factorization) -> tuple[Table, Table, Table]:
    """What follows `first_convolutions` in Figure 3 of arXiv:1602.07261: its three concatenations."""
    pool = HALVING_POOL if stem == "imagenet" else Pool("max")
    padding: Padding = "valid" if stem == "imagenet" else "symmetric"
    last = Conv(96, 3, 1, padding)
    return (
        (("branch_pool", (pool,)), ("branch3x3", (Conv(96, 3, pool.stride, padding),))),
        (
            ("branch3x3", (Conv(64), last)),
            ("branch7x7", (Conv(64), *factorized(7, 64, 64, factorization), last)),
        ),
        (("branch3x3", (Conv(192, 3, pool.stride, padding),)), ("branch_pool", (pool,))),
    )


class AuxiliaryClassifier(nn.Module):
    """A 5x5 average pool in steps of 3, convolutions `conv1` (1x1) and `conv2` (5x5), an average over what is left."""

    layers: Layers
    num_classes: int
    widths: tuple[int, int]
    """Channels of the two convolutions."""
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to logits (batch, num_classes); what does not fit a small map is padded."""
        x = average_pool(x, 5, 3, "valid" if min(x.shape[1:3]) >= 5 else "same")
        x = ConvNorm(self.layers, self.widths[0], name="conv1")(x)
        padding: Padding = "valid" if min(x.shape[1:3]) >= 5 else "symmetric"
        x = global_average_pool(ConvNorm(self.layers, self.widths[1], 5, padding=padding, name="conv2")(x))
        return self.layers.logits(self.layers.dropout(x, self.dropout), self.num_classes)


class InceptionNetwork(ConvNetwork, kw_only=True):
    """A stem, four stages whose first block halves the map, and a classifier; a family says what its stages are."""

    norm_epsilon: PositiveFloat = INCEPTION_BATCH_NORM["norm_epsilon"]
    norm_momentum: PositiveFloat = INCEPTION_BATCH_NORM["norm_momentum"]
    """Of BatchNorm's running statistics, what stays of the old; TF-slim's 0.9997 suits its long training."""
    norm_scale: bool = True
    """Whether normalisations have a trained factor."""
    stem: Stem = "imagenet"
    """Down to an eighth of the size, or the same convolutions without stride for images of about 32x32."""
    count_padding: bool = False
    """Whether 3x3 average pools count the zeros around the map."""
    se_ratio: NonNegativeInt = 0
    """Squeeze-and-excitation of each module, its hidden width the channels divided by this; 0 for none."""
    auxiliary_classifiers: Literal[0, 1] = 0
    """A second loss in training, `auxiliary`, on the last map of stage3."""
    auxiliary_dropout: Fraction = 0.0
    dropout: Fraction = 0.2
    """Before the head."""

    @nn.nowrap
    def layers(self, train: bool) -> Layers:
        """What the fields say of all layers."""
        return dataclasses.replace(super().layers(train), norm_scale=self.norm_scale, kernel_init=he_normal_fan_in)

    @nn.nowrap
    def block(self, layers: Layers, table: Table, se_ratio: int = 0) -> Block:
        """A module of the published widths as a block of a stage."""
        return functools.partial(Branches, layers=layers, branches=self.rescaled(table), se_ratio=se_ratio)

    @nn.nowrap
    def rescaled(self, table: Table) -> Table:
        """Branches of the published widths times `width`."""
        return tuple((name, rescale(steps, self.channels)) for name, steps in table)

    def through(self, layers: Layers, images: jax.Array, stages: tuple[Stage, ...], bottleneck: int = 0) -> Outputs:
        """Images through the stem, the stages and the classifier.

        Args:
            bottleneck: width of a normalised dense layer between the averages and the head; 0 for none.

        Raises:
            ConfigError: images below 75x75, or 7x7 with the small stem.
        """
        self.require_size(images, 75 if self.stem == "imagenet" else 7)
        x = Chain(layers, rescale(first_convolutions(self.stem), self.channels), name="stem")(images)
        features, aux = {"stem": x}, {}
        for stage in stages:
            x = stage(x)
            features[str(stage.name)] = x
            if stage.name == "stage3" and self.auxiliary_classifiers and (layers.train or self.is_initializing()):
                widths = (self.channels(128), self.channels(768))
                classifier = AuxiliaryClassifier(
                    layers, self.num_classes, widths, self.auxiliary_dropout, name="auxiliary"
                )
                aux["auxiliary"] = classifier(x)
        x = layers.dropout(global_average_pool(x), self.dropout)
        if bottleneck:
            x = layers.dense(x, bottleneck, name="bottleneck", bias=layers.has_bias())
            x = layers.normalize(x, name="bottleneck_norm")
        logits = layers.logits(x, self.num_classes)
        return Outputs(logits=logits, aux=aux if layers.train else {}, features=features)
