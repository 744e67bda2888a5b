"""AlexNet: Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
NeurIPS 25, section 3 and Figure 2.

    conv1  96 11x11, stride 4   response normalisation, pool   55x55 to 27x27
    conv2  256 5x5, two towers  response normalisation, pool   27x27 to 13x13
    conv3  384 3x3, conv4 384 3x3 in two towers, conv5 256 3x3 in two towers, pool   13x13 to 6x6
    dense  4096, 4096 and the classes, dropout 0.5 after the first two

ReLU follows every layer but the last, then comes normalisation, then the pool: overlapping windows, 3x3 with stride 2.
The two towers are the two graphics cards of 2012: half the channels of conv2, conv4 and conv5 see only half of their
input's, which is a convolution in two groups. Weights start normal with deviation 0.01, biases at 1 in conv2, conv4,
conv5 and the hidden dense layers, else at 0.

`alexnet_single_tower` has the same widths without towers. `alexnet_owt` is the narrower one-tower network of Krizhevsky
2014, "One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997, as torchvision has it: no
response normalisation, conv1 padded by 2, dropout before the dense layers instead of after.

Deliberate differences:
- Images are 227x227, from which conv1 makes the paper's 55x55 without padding; 224x224 would give 54x54.
- Response normalisation sees the neighbours among all channels, as the paper's formula has it, also across towers.
- A dense head averages any other map to 6x6, so that other image sizes fit; at the native size this changes nothing.
- `stem: small` is one 3x3 convolution with stride 1 and no pool after it, for images of about 32x32.
"""

import dataclasses
from typing import Literal

import jax
from flax import linen as nn
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.initializers import he_normal_fan_in
from cnnjax.nn.layers import Layers
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import NormKind
from cnnjax.nn.plain import Head, average_head, dense_head
from cnnjax.nn.response_norm import Constants, ResponseNorm, response_norm
from cnnjax.ops.padding import Padding
from cnnjax.ops.pooling import max_pool


class Unit(nn.Module):
    """A convolution, its activation and, in the first two units, response normalisation: `conv`, `response_norm`."""

    layers: Layers
    features: int
    kernel_size: int
    stride: int = 1
    padding: Padding | None = None
    groups: int = 1
    lrn: ResponseNorm = "off"
    lrn_constants: Constants = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to (batch, smaller height, smaller width, features)."""
        layers = self.layers
        x = layers.conv(
            x, self.features, self.kernel_size, self.stride, name="conv", padding=self.padding, groups=self.groups,
            bias=layers.has_bias(),
        )  # fmt: skip
        x = layers.activate(layers.normalize(x, name="norm"))
        return response_norm(layers, x, self.lrn, self.lrn_constants, name="response_norm")


class AlexNet(ConvNetwork, kw_only=True):
    """The two towers of 2012. `depth` multiplies the three convolutions of the last stage, conv3 and on."""

    norm: NormKind = "none"
    """Between each convolution and its activation; the response normalisation after some is `lrn`."""
    conv_widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (96, 256, 384, 384, 256)
    """Channels of conv1 to conv5; in a deeper network conv4's are repeated."""
    dense_width: PositiveInt = 4096
    """Units of both hidden dense layers."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """conv1: 11x11 with stride 4 and a pool, or 3x3 that keeps the size."""
    stem_padding: NonNegativeInt = 0
    """Rows and columns around the image for the 11x11 convolution."""
    groups: Literal[1, 2] = 2
    """Towers in conv2, conv4 and conv5."""
    lrn: ResponseNorm = "on"
    """After the first two activations: local response normalisation, nothing, or batch normalisation in its place."""
    lrn_size: PositiveInt = 5
    """Neighbouring channels that are summed."""
    lrn_k: PositiveFloat = 2.0
    """What is added to the sum."""
    lrn_alpha: NonNegativeFloat = 1e-4
    """Factor of the sum, as in the paper; Caffe and PyTorch divide it by the size."""
    lrn_beta: NonNegativeFloat = 0.75
    """Power of that, by which a value is divided."""
    pooling: Literal["overlapping", "plain"] = "overlapping"
    """Windows of 3x3 or of 2x2, both with stride 2."""
    pool_padding: Literal["valid", "ceil"] = "valid"
    """Whether a last window that the map does not fill is left out or counts."""
    head: Head = "dense"
    """Two hidden dense layers, or the means over all positions; then the classes."""
    head_size: PositiveInt = 6
    """Height and width of the map that a dense head sees."""
    dropout: Fraction = 0.5
    """Around the hidden dense layers; of the means in a global average head."""
    dropped: Literal["inputs", "outputs"] = "outputs"
    """Which side of each hidden dense layer dropout is on."""
    initialization: Literal["normal", "he_normal"] = "normal"
    """The paper's weights and biases, or variance 2 / fan-in and biases of zero: better for narrow networks."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) from 67x67 to logits, the map before each pool, and the last pool's."""
        self.require_size(images, self._smallest())
        published = self.initialization == "normal"
        kernel_init = nn.initializers.normal(0.01) if published else he_normal_fan_in
        layers = dataclasses.replace(self.layers(train), kernel_init=kernel_init)
        biased = dataclasses.replace(layers, bias_init=nn.initializers.ones) if published else layers
        unit = nn.remat(Unit) if self.remat else Unit
        constants = (self.lrn_size, self.lrn_k, self.lrn_alpha, self.lrn_beta)
        conv1, conv2, conv3, conv4, conv5 = (self.channels(width) for width in self.conv_widths)

        kernel, stride, padding = (11, 4, self.stem_padding) if self.stem == "imagenet" else (3, 1, 1)
        x = unit(layers, conv1, kernel, stride, padding, lrn=self.lrn, lrn_constants=constants, name="conv1")(images)
        features = {"stage1": x}
        if self.stem == "imagenet":
            x = self._pool(x)
        x = unit(biased, conv2, 5, groups=self.groups, lrn=self.lrn, lrn_constants=constants, name="conv2")(x)
        features["stage2"] = x
        x = self._pool(x)
        count = self.repeats(3)
        for index, width in enumerate((conv3, *(conv4,) * (count - 2), conv5)[-count:], 3):
            # conv3 is where the towers meet.
            same_as, groups = (layers, 1) if index == 3 else (biased, self.groups)
            x = unit(same_as, width, 3, groups=groups, name=f"conv{index}")(x)
        features["stage3"] = x
        x = features["pool"] = self._pool(x)
        if self.head == "global_average":
            logits = average_head(layers, x, self.num_classes, dropout=self.dropout)
        else:
            hidden = (self.channels(self.dense_width),) * 2
            logits = dense_head(
                layers, x, hidden, self.num_classes, size=self.head_size, dropout=self.dropout,
                dropped=self.dropped, bias_init=biased.bias_init,
            )  # fmt: skip
        return Outputs(logits=logits, aux={}, features=features)

    def _pool(self, x: jax.Array) -> jax.Array:
        return max_pool(x, 3 if self.pooling == "overlapping" else 2, 2, self.pool_padding)

    @nn.nowrap
    def _smallest(self) -> int:
        """Of the images that leave one position after all pools."""
        size = 1
        if self.pool_padding == "valid":
            for _ in range(3 if self.stem == "imagenet" else 2):
                size = (size - 1) * 2 + (3 if self.pooling == "overlapping" else 2)
        return max((size - 1) * 4 + 11 - 2 * self.stem_padding, 1) if self.stem == "imagenet" else size


_PAPER = (
    "Krizhevsky, Sutskever, Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks, NeurIPS 25"
)
_ONE_WEIRD_TRICK = "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997"
_OWT = {
    "conv_widths": (64, 192, 384, 256, 256), "stem_padding": 2, "groups": 1, "lrn": "off", "dropped": "inputs",
}  # fmt: skip
VARIANTS = {
    "alexnet": Variant(AlexNet, (227, 227, 3), _PAPER),
    "alexnet_single_tower": Variant(AlexNet, (227, 227, 3), _PAPER, {"groups": 1}),
    "alexnet_owt": Variant(AlexNet, (224, 224, 3), _ONE_WEIRD_TRICK, _OWT),
}
PEERS: Peers = {
    "torchvision/alexnet": ("alexnet_owt", {}),
    "pytorchcv/alexnet": ("alexnet_single_tower", {"lrn_alpha": 1e-4 / 5, "pool_padding": "ceil"}),
}
