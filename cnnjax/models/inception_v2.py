"""Inception v2, also called BN-Inception: Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep Network
Training by Reducing Internal Covariate Shift", arXiv:1502.03167, section 4.2.1 and the table of its appendix.

GoogLeNet with batch normalisation after every convolution; two 3x3 convolutions replace each 5x5, most pools within
modules are averages, and the modules 3c and 4e have stride 2 in place of the pools between the stages.

    map at 224x224   features   modules
    112x112          stem       conv1, then a pool
    56x56            stage1     conv2_reduce, conv2, then a pool
    28x28            stage2     inception3a, 3b
    14x14            stage3     inception3c, 4a, 4b, 4c, 4d
    7x7              stage4     inception4e, 5a, 5b, then average and dense

Deliberate differences:
- `inception_v2` is laid out as the Caffe releases are: conv1 is a full 7x7 (the paper's is separable), pools round up,
  and average pools count the padding. The pool projections of 4c and 4d have the 128 channels that the paper's table
  lists, which makes 608 outputs where it prints 576, and 11.3 million parameters where the text says 13.6.
- The pools of 3c and 4e pad like TensorFlow: at even sizes the same as rounding up, which at odd ones would not fit the
  convolutions beside them.
- No dropout, which section 4.2.1 removes.
- `inception_v2_slim` is the release in TensorFlow's Slim: the separable conv1 with biases and no normalisation, SAME
  padding, no factor in the normalisations, 96 channels in the projections of 4c and 4d, dropout of 0.2.
- `se_inception` adds squeeze-and-excitation to every module, 3c and 4e included: Hu, Shen and Sun 2017,
  "Squeeze-and-Excitation Networks", arXiv:1709.01507, by the authors' release.
- The "Inception-v2" of the later arXiv:1512.00567 is another network.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
from flax import linen as nn
from pydantic import NonNegativeInt, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.branches import Branch, Branches, Conv, Pool
from cnnjax.nn.initializers import depthwise_he_normal
from cnnjax.nn.layers import ConvNorm, Layers
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import TF_SLIM_BATCH_NORM
from cnnjax.nn.plain import average_head
from cnnjax.nn.rounding import stretch
from cnnjax.ops.pooling import max_pool


class Module(NamedTuple):
    """A row of the paper's table: the output channels of a module's layers."""

    plain: int
    """Of the 1x1 convolution; 0 in the modules with stride 2, which have none."""
    reduce3: int
    conv3: int
    reduce_double: int
    double: int
    pool: Literal["average", "max"]
    projection: int
    """Of the 1x1 after the pool; 0 passes its channels on."""


MODULES = {
    "stage2": {
        "3a": Module(64, 64, 64, 64, 96, "average", 32),
        "3b": Module(64, 64, 96, 64, 96, "average", 64),
    },
    "stage3": {
        "3c": Module(0, 128, 160, 64, 96, "max", 0),
        "4a": Module(224, 64, 96, 96, 128, "average", 128),
        "4b": Module(192, 96, 128, 96, 128, "average", 128),
        "4c": Module(160, 128, 160, 128, 160, "average", 128),
        "4d": Module(96, 128, 192, 160, 192, "average", 128),
    },
    "stage4": {
        "4e": Module(0, 128, 192, 192, 256, "max", 0),
        "5a": Module(352, 192, 320, 160, 224, "average", 128),
        "5b": Module(352, 192, 320, 192, 224, "max", 128),
    },
}


class InceptionV2(ConvNetwork, kw_only=True):
    """Inception v2. `depth` multiplies each stage's modules of stride 1: repeats of each, or fewer, the last kept."""

    stem: Literal["imagenet", "separable", "small"] = "imagenet"
    """A full 7x7 conv1, a separable one, both followed by pools to an eighth of the size, or a 3x3 for images of about
    32x32 that keeps it."""
    modules: Literal["reduced", "naive"] = "reduced"
    """Whether 1x1 convolutions reduce the channels that the 3x3 see and that the pools pass on."""
    third_branch: Literal["double_3x3", "5x5"] = "double_3x3"
    """Two 3x3 convolutions, or the one 5x5 of the same width that they replace."""
    padding: Literal["caffe", "same"] = "caffe"
    """Convolutions padded alike on all sides and pools that round up, or TensorFlow's SAME everywhere."""
    count_padding: bool = True
    """Whether average pools count the zeros around the map."""
    projection_4c_4d: PositiveInt = 128
    """Channels of the pool projections of 4c and 4d."""
    conv_bias: bool = False
    """Whether convolutions have biases although they are normalised."""
    norm_scale: bool = True
    """Whether normalisations have a trained factor."""
    se_ratio: NonNegativeInt = 0
    """Squeeze-and-excitation after each module, its hidden width the channels divided by this; 0 for none."""
    dropout: Fraction = 0.0
    """Before the head."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) of any size to logits and the last map of each resolution."""
        self.require_size(images, 1)
        layers = dataclasses.replace(
            self.layers(train),
            padding="symmetric" if self.padding == "caffe" else "same",
            conv_bias=self.conv_bias or self.norm == "none",
            norm_scale=self.norm_scale,
        )
        features = {"stem": self._conv1(layers, images)}
        x = ConvNorm(layers, self.channels(64), name="conv2_reduce")(self._stem_pool(features["stem"]))
        features["stage1"] = ConvNorm(layers, self.channels(192), 3, name="conv2")(x)
        x = self._stem_pool(features["stage1"])
        module = nn.remat(Branches) if self.remat else Branches
        for stage, rows in MODULES.items():
            strided = tuple(name for name, row in rows.items() if not row.plain)
            repeated = stretch(tuple(name for name, row in rows.items() if row.plain), self.depth)
            for name, published in {**dict(zip(strided, strided, strict=True)), **repeated}.items():
                row = rows[published]
                if published in ("4c", "4d"):
                    row = row._replace(projection=self.projection_4c_4d)
                x = module(layers, self._branches(row), self.se_ratio, name=f"inception{name}")(x)
            features[stage] = x
        logits = average_head(layers, x, self.num_classes, dropout=self.dropout)
        return Outputs(logits=logits, aux={}, features=features)

    def _conv1(self, layers: Layers, images: jax.Array) -> jax.Array:
        width = self.channels(64)
        if self.stem != "separable":
            kernel, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
            return ConvNorm(layers, width, kernel, stride, name="conv1")(images)
        x = layers.depthwise(images, 7, 2, name="conv1_depthwise", multiplier=8, kernel_init=depthwise_he_normal)
        return layers.activate(layers.conv(x, width, 1, name="conv1_pointwise"))

    def _stem_pool(self, x: jax.Array) -> jax.Array:
        return x if self.stem == "small" else max_pool(x, 3, 2, "ceil" if self.padding == "caffe" else "same")

    def _branches(self, row: Module) -> tuple[Branch, ...]:
        def after(reduction: int, *convolutions: Conv) -> tuple[Conv, ...]:
            return (Conv(self.channels(reduction)), *convolutions) if self.modules == "reduced" else convolutions

        stride = 1 if row.plain else 2
        conv3, double = self.channels(row.conv3), self.channels(row.double)
        third = (Conv(double, 3), Conv(double, 3, stride))
        pool = Pool(row.pool, 3, stride, count_padding=self.count_padding)
        projected = row.projection and self.modules == "reduced"
        branches: tuple[Branch, ...] = (
            ("branch3x3", after(row.reduce3, Conv(conv3, 3, stride))),
            (
                "branch_double3x3",
                after(row.reduce_double, *(third if self.third_branch == "double_3x3" else (Conv(double, 5, stride),))),
            ),
            ("branch_pool", (pool, Conv(self.channels(row.projection))) if projected else (pool,)),
        )
        return (("branch1x1", (Conv(self.channels(row.plain)),)), *branches) if row.plain else branches


_PAPER = "Ioffe, Szegedy 2015, Batch Normalization: Accelerating Deep Network Training, arXiv:1502.03167"
_SE_PAPER = "Hu, Shen, Sun 2017, Squeeze-and-Excitation Networks, arXiv:1709.01507"
_SLIM = {
    "stem": "separable", "padding": "same", "count_padding": False, "projection_4c_4d": 96, "norm_scale": False,
    "dropout": 0.2, **TF_SLIM_BATCH_NORM,
}  # fmt: skip

VARIANTS = {
    "inception_v2": Variant(InceptionV2, (224, 224, 3), _PAPER),
    "inception_v2_slim": Variant(InceptionV2, (224, 224, 3), _PAPER, _SLIM),
    "se_inception": Variant(InceptionV2, (224, 224, 3), _SE_PAPER, {"se_ratio": 16}),
}
PEERS: Peers = {"pytorchcv/bninception": ("inception_v2", {"conv_bias": True})}
