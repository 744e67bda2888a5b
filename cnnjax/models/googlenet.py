"""GoogLeNet, the first Inception network: Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich
2014, "Going Deeper with Convolutions", arXiv:1409.4842, Table 1, Figure 3 and section 5.

A stem of a 7x7, a 1x1 and a 3x3 convolution, then nine modules. Each module sees its input through a 1x1, a 3x3 and a
5x5 convolution and a max pool side by side; 1x1 convolutions first reduce the channels that the larger ones see. Two
small classifiers, on 4a and 4d, help the gradient in training. No normalisation but the local response's.

    map at 224x224   features   modules                        then
    112x112          stem       conv1                          pool, response normalisation
    56x56            stage1     conv2_reduce, conv2            response normalisation, pool
    28x28            stage2     inception3a, 3b                pool
    14x14            stage3     inception4a, 4b, 4c, 4d, 4e    pool
    7x7              stage4     inception5a, 5b                average, dropout, dense

Where the paper is silent, this is Caffe's release: pools round up, biases everywhere, LRN with k = 1 and alpha = 1e-4
shared among its 5 channels. Deliberate differences:
- conv1 is a full 7x7; Table 1 prints 2.7 thousand parameters for it, which fit a separable one.
- Weights start from He's normal distribution over the fan-in; the paper does not tell its own.
- `googlenet_bn` is what torchvision calls GoogLeNet: batch normalisation in place of biases and LRN, a second 3x3 in
  place of the 5x5, a 2x2 window in the last pool, less dropout, auxiliary classifiers on 4x4 adaptive averages.
- `modules: naive` is Figure 3(a): no 1x1 reductions, and pools whose channels are all passed on.
"""

import dataclasses
from typing import Literal

import jax
from flax import linen as nn
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.branches import Branch, Branches, Conv, Pool
from cnnjax.nn.initializers import he_normal_fan_in
from cnnjax.nn.layers import ConvNorm, Layers
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import INCEPTION_BATCH_NORM, NormKind
from cnnjax.nn.plain import Head, average_head, dense_head
from cnnjax.nn.response_norm import ResponseNorm, response_norm
from cnnjax.nn.rounding import stretch
from cnnjax.ops.pooling import adaptive_average_pool, average_pool, max_pool

# Table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
MODULES = {
    "stage2": {
        "3a": (64, 96, 128, 16, 32, 32),
        "3b": (128, 128, 192, 32, 96, 64),
    },
    "stage3": {
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
    },
    "stage4": {
        "5a": (256, 160, 320, 32, 128, 128),
        "5b": (384, 192, 384, 48, 128, 128),
    },
}
# Below these, the map of 4a has no room for the auxiliary classifiers' 5x5 window.
SMALLEST_WITH_WINDOW = {"imagenet": 79, "small": 10}


class AuxiliaryClassifier(nn.Module):
    """Section 5: a coarse average, a 1x1 convolution `conv`, `dense`, dropout and `head`."""

    layers: Layers
    num_classes: int
    pool: Literal["window", "adaptive"]
    reduced: int
    """Channels of the 1x1 convolution."""
    hidden: int
    """Width of the dense layer."""
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to logits (batch, num_classes)."""
        x = average_pool(x, 5, 3) if self.pool == "window" else adaptive_average_pool(x, (4, 4))
        x = ConvNorm(self.layers, self.reduced, name="conv")(x)
        x = self.layers.activate(self.layers.dense(x.reshape(len(x), -1), self.hidden, name="dense"))
        return self.layers.logits(self.layers.dropout(x, self.dropout), self.num_classes)


class GoogLeNet(ConvNetwork, kw_only=True):
    """GoogLeNet. `depth` multiplies the modules of each stage: repeats of each, or fewer with the last kept."""

    norm: NormKind = "none"
    """After every convolution; without any, convolutions have biases instead."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """Strides and pools to an eighth of the size, or none of them and a 3x3 conv1 for images of about 32x32."""
    modules: Literal["reduced", "naive"] = "reduced"
    """Whether 1x1 convolutions reduce the channels that the 3x3 and 5x5 see and that the pool passes on."""
    third_kernel: Literal[5, 3] = 5
    """Of the third branch, the paper's 5x5."""
    fourth_pool: Literal[3, 2] = 3
    """Window of the pool before 5a."""
    lrn: ResponseNorm = "on"
    """Before and after conv2: local response normalisation, nothing, or batch normalisation in its place."""
    lrn_size: PositiveInt = 5
    """Neighbouring channels whose squares are summed."""
    lrn_k: PositiveFloat = 1.0
    lrn_alpha: NonNegativeFloat = 1e-4 / 5
    """Of each square: Caffe's 1e-4, which it divides by the size."""
    lrn_beta: NonNegativeFloat = 0.75
    se_ratio: NonNegativeInt = 0
    """Squeeze-and-excitation after each module, its hidden width the channels divided by this; 0 for none."""
    auxiliary_classifiers: Literal[0, 1, 2] = 2
    """Losses within the network: `auxiliary1` on 4a and `auxiliary2` on 4d, or the latter alone."""
    auxiliary_pool: Literal["window", "adaptive"] = "window"
    """The paper's 5x5 windows in steps of 3, or adaptive averages: 4x4 whatever the size."""
    auxiliary_dropout: Fraction = 0.7
    dropout: Fraction = 0.4
    """Before the head."""
    head: Head = "global_average"
    """The mean of the last map and one dense layer, or a hidden dense layer of 1024 that sees all of it at 7x7."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to logits and the last map of each resolution.

        ConfigError below 79x79 (10x10 with the small stem) where the auxiliary classifiers' windows need it.
        """
        auxiliary = self.auxiliary_classifiers if train or self.is_initializing() else 0
        windows = auxiliary and self.auxiliary_pool == "window"
        self.require_size(images, SMALLEST_WITH_WINDOW[self.stem] if windows else 1)
        layers = dataclasses.replace(self.layers(train), kernel_init=he_normal_fan_in)
        features, aux = self._stem(layers, images), {}
        x = self._response_norm(layers, features["stage1"], "response_norm2")
        x = max_pool(x, 3, 2, "ceil") if self.stem == "imagenet" else x
        module = nn.remat(Branches) if self.remat else Branches
        for stage, rows in MODULES.items():
            names = stretch(tuple(rows), self.depth)
            for index, (name, published) in enumerate(names.items()):
                x = module(layers, self._branches(*rows[published]), self.se_ratio, name=f"inception{name}")(x)
                if stage == "stage3" and auxiliary == 2 and index == 0:
                    aux["auxiliary1"] = self._auxiliary(layers, x, "auxiliary1")
                if stage == "stage3" and auxiliary and index == max(len(names) - 2, 0):
                    aux["auxiliary2"] = self._auxiliary(layers, x, "auxiliary2")
            features[stage] = x
            if stage != "stage4":
                x = max_pool(x, self.fourth_pool if stage == "stage3" else 3, 2, "ceil")
        if self.head == "global_average":
            logits = average_head(layers, x, self.num_classes, dropout=self.dropout)
        else:
            hidden = (self.channels(1024),)
            logits = dense_head(layers, x, hidden, self.num_classes, size=7, dropout=self.dropout)
        return Outputs(logits=logits, aux=aux if train else {}, features=features)

    def _stem(self, layers: Layers, images: jax.Array) -> dict[str, jax.Array]:
        imagenet, width = self.stem == "imagenet", self.channels(64)
        conv1 = ConvNorm(layers, width, 7 if imagenet else 3, 2 if imagenet else 1, name="conv1")(images)
        x = max_pool(conv1, 3, 2, "ceil") if imagenet else conv1
        x = self._response_norm(layers, x, "response_norm1")
        x = ConvNorm(layers, width, name="conv2_reduce")(x)
        return {"stem": conv1, "stage1": ConvNorm(layers, self.channels(192), 3, name="conv2")(x)}

    def _response_norm(self, layers: Layers, x: jax.Array, name: str) -> jax.Array:
        constants = (self.lrn_size, self.lrn_k, self.lrn_alpha, self.lrn_beta)
        return response_norm(layers, x, self.lrn, constants, name=name)

    def _branches(self, *published: int) -> tuple[Branch, ...]:
        plain, reduce3, conv3, reduce5, conv5, projection = (Conv(self.channels(width)) for width in published)
        conv3 = dataclasses.replace(conv3, kernel_size=3)
        conv5 = dataclasses.replace(conv5, kernel_size=self.third_kernel)
        reduced = self.modules == "reduced"
        return (
            ("branch1x1", (plain,)),
            ("branch3x3", (reduce3, conv3) if reduced else (conv3,)),
            ("branch5x5", (reduce5, conv5) if reduced else (conv5,)),
            ("branch_pool", (Pool("max"), projection) if reduced else (Pool("max"),)),
        )

    def _auxiliary(self, layers: Layers, x: jax.Array, name: str) -> jax.Array:
        reduced, hidden = self.channels(128), self.channels(1024)
        return AuxiliaryClassifier(
            layers, self.num_classes, self.auxiliary_pool, reduced, hidden, self.auxiliary_dropout, name=name
        )(x)


_PAPER = "Szegedy et al. 2014, Going Deeper with Convolutions, arXiv:1409.4842"
_TORCHVISION = {
    "norm": "batch", "lrn": "off", "third_kernel": 3, "fourth_pool": 2, "auxiliary_pool": "adaptive", "dropout": 0.2,
    **INCEPTION_BATCH_NORM,
}  # fmt: skip

VARIANTS = {
    "googlenet": Variant(GoogLeNet, (224, 224, 3), _PAPER),
    "googlenet_bn": Variant(GoogLeNet, (224, 224, 3), _PAPER, _TORCHVISION),
}
PEERS: Peers = {
    "torchvision/googlenet": ("googlenet_bn", {"auxiliary_classifiers": 0}),
    "torchvision/googlenet+aux": ("googlenet_bn", {"auxiliary_classifiers": 2}),
}
