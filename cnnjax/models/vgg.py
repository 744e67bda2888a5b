"""VGG: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
arXiv:1409.1556, Table 1.

Five stages of 3x3 convolutions, 64, 128, 256, 512 and 512 channels wide, a 2x2 max pool after each, dense layers of
4096, 4096 and the classes with dropout 0.5 after the first two; ReLU after every layer but the last.

    configuration            A, A-LRN    B          C          D          E
    convolutions of a stage  1 1 2 2 2   2 2 2 2 2  2 2 3 3 3  2 2 3 3 3  2 2 4 4 4
    weight layers            11          13         16         16         19

A-LRN is A with local response normalisation after its first convolution. In C the last convolution of stages 3 to 5 is
1x1. A, B, D and E are named by their weight layers today, `vgg11`, `vgg13`, `vgg16` and `vgg19`; `vgg_a`, `vgg_b`,
`vgg_d` and `vgg_e` are aliases of these. `vgg11_bn` and the like, which the paper does not have, normalise each
convolution's output and keep the convolutions' biases, as torchvision does.

Deliberate differences:
- Weights start as Glorot and Bengio's (2010), which the authors found to need no pre-training; `initialization: normal`
  is what the paper's A was trained from, normal with variance 0.01. Biases are zero in either.
- A dense head averages any other map to 7x7, so that other image sizes fit; at the native size this changes nothing.
  The paper turns the dense layers into convolutions for larger images and averages the scores.
- `stem: small` has no pools after the first two stages, for images of about 32x32.
"""

import dataclasses
from typing import Any, Literal

import jax
from flax import linen as nn
from pydantic import PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.initializers import glorot_uniform, he_normal_fan_out
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import NormKind
from cnnjax.nn.plain import ConvStack, Head, average_head, dense_head
from cnnjax.nn.stage import require_stages
from cnnjax.ops.local_response import local_response_norm
from cnnjax.ops.pooling import max_pool

INITIALIZATIONS = {
    "glorot": glorot_uniform,
    "normal": nn.initializers.normal(0.1),
    "he_normal": he_normal_fan_out,
}


class VGG(ConvNetwork, kw_only=True):
    """Configuration D. `depth` multiplies the convolutions of each stage."""

    norm: NormKind = "none"
    conv_bias: bool = True
    """Whether convolutions have biases although they are normalised."""
    stage_sizes: tuple[PositiveInt, ...] = (2, 2, 3, 3, 3)
    """Convolutions of each stage."""
    stage_widths: tuple[PositiveInt, ...] = (64, 128, 256, 512, 512)
    """Channels of each stage."""
    last_kernel: Literal[1, 3] = 3
    """Of the last convolution in stages of three or more: configuration C has 1."""
    stacks: Literal["3x3", "single"] = "3x3"
    """Whether a stage is its stack, or one convolution that sees as far: 5x5 for two, 7x7 for three (section 2.3)."""
    lrn: bool = False
    """Local response normalisation after the first stage's convolutions, with AlexNet's constants."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """With or without pools after the first two stages."""
    dense_width: PositiveInt = 4096
    """Units of both hidden dense layers."""
    head: Head = "dense"
    """Two hidden dense layers, or the means over all positions; then the classes."""
    head_size: PositiveInt = 7
    """Height and width of the map that a dense head sees."""
    dropout: Fraction = 0.5
    """After the hidden dense layers; of the means in a global average head."""
    initialization: Literal["glorot", "normal", "he_normal"] = "glorot"
    """Glorot's uniform, normal with variance 0.01, or normal with variance 2 / fan-out."""

    def __post_init__(self) -> None:
        require_stages(self.stage_sizes, self.stage_widths)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) from 32x32 to logits, the map before each pool, and the last pool's."""
        unpooled = 0 if self.stem == "imagenet" else 2
        self.require_size(images, 2 ** max(len(self.stage_sizes) - unpooled, 0))
        layers = dataclasses.replace(
            self.layers(train),
            conv_bias=self.conv_bias or self.norm == "none",
            kernel_init=INITIALIZATIONS[self.initialization],
        )
        stack = nn.remat(ConvStack) if self.remat else ConvStack
        x, features = images, {}
        for index, (size, width) in enumerate(zip(self.stage_sizes, self.stage_widths, strict=True), 1):
            kernels = self._kernels(size)
            x = stack(layers, tuple((self.channels(width), kernel) for kernel in kernels), name=f"stage{index}")(x)
            if self.lrn and index == 1:
                x = local_response_norm(x)
            features[f"stage{index}"] = x
            if index > unpooled:
                x = max_pool(x, 2, 2)
        features["pool"] = x
        if self.head == "global_average":
            logits = average_head(layers, x, self.num_classes, dropout=self.dropout)
        else:
            hidden = (self.channels(self.dense_width),) * 2
            logits = dense_head(layers, x, hidden, self.num_classes, size=self.head_size, dropout=self.dropout)
        return Outputs(logits=logits, aux={}, features=features)

    @nn.nowrap
    def _kernels(self, published: int) -> tuple[int, ...]:
        """Kernel sizes of a stage of so many convolutions."""
        count = self.repeats(published)
        last = self.last_kernel if published > 2 and count > 1 else 3
        kernels = (*(3,) * (count - 1), last)
        return kernels if self.stacks == "3x3" else (1 + sum(kernel - 1 for kernel in kernels),)


_PAPER = "Simonyan, Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image Recognition, arXiv:1409.1556"
_SIZES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def _vgg(layers: int, **fields: Any) -> Variant:
    return Variant(VGG, (224, 224, 3), _PAPER, {"stage_sizes": _SIZES[layers], **fields})


VARIANTS = {
    **{f"vgg{layers}": _vgg(layers) for layers in _SIZES},
    "vgg_a_lrn": _vgg(11, lrn=True),
    "vgg_c": _vgg(16, last_kernel=1),
    **{f"vgg{layers}_bn": _vgg(layers, norm="batch") for layers in _SIZES},
}
PEERS: Peers = {
    **{f"torchvision/vgg{layers}{bn}": (f"vgg{layers}{bn}", {}) for layers in _SIZES for bn in ("", "_bn")},
    **{f"timm/vgg{layers}{bn}": (f"vgg{layers}{bn}", {"dropout": 0.0}) for layers in _SIZES for bn in ("", "_bn")},
    **{f"keras/VGG{layers}": (f"vgg{layers}", {"dropout": 0.0}) for layers in (16, 19)},
}
