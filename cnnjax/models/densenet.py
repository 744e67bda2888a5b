"""DenseNet: Huang, Liu, van der Maaten and Weinberger 2016, "Densely Connected Convolutional Networks",
arXiv:1608.06993, Table 1 and section 4.

                   121   169   201   264   161
    growth rate k   32    32    32    32    48
    stem           7x7 convolution, stride 2, 2k channels; 3x3 max pool, stride 2
    stage1           6     6     6     6     6   dense layers, 56x56
    stage2          12    12    12    12    12                28x28
    stage3          24    32    48    64    36                14x14
    stage4          16    32    32    48    24                 7x7
    head           global average pooling, dense

A dense layer sees all maps before it in its stage and adds k channels to them: normalisation, ReLU, 1x1 convolution to
4k (the bottleneck, the "B" of DenseNet-BC), normalisation, ReLU, 3x3 convolution. Between two stages a transition:
normalisation, ReLU, 1x1 convolution to half the channels (the compression, the "C"), 2x2 average pooling.

The networks of L layers for 32x32 images (section 3, "Implementation Details") are these fields: `stem: small`, a
`growth_rate` of 12, 24 or 40 and three equal stages, with bottlenecks of (L - 4) / 6 dense layers each. Those without
"BC" have `bottleneck: false`, `compression: 1`, `stem_width: 16` and (L - 4) / 3 dense layers a stage.

Deliberate differences:
- `densenet161` is in the authors' release and the paper's first version; the final one has 264 in its place.
- Table 1 gives the transitions' convolutions the channels that come in; they are halved, as the text has it.
- A `features` map of stages 1 to 3 is the concatenation that enters the transition, not activated; the last is
  normalised and activated, what the head pools.
"""

from typing import Annotated, Any, Literal

import jax
from flax import linen as nn
from pydantic import Field, PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.models.variant import Peers, Variant
from cnnjax.nn.layers import ConvNorm, Layers
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import KERAS_RESNET_BATCH_NORM
from cnnjax.ops.concatenate import concatenate
from cnnjax.ops.pooling import average_pool, global_average_pool, max_pool


class NormConv(nn.Module):
    """Normalisation, activation, convolution, dropout: `norm` and `conv`."""

    layers: Layers
    features: int
    kernel_size: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to (batch, height, width, features)."""
        x = self.layers.activate(self.layers.normalize(x, name="norm"))
        x = self.layers.conv(x, self.features, self.kernel_size, name="conv", bias=self.layers.has_bias())
        return self.layers.dropout(x, self.dropout)


class DenseLayer(nn.Module):
    """`conv1`, 1x1, if there is a bottleneck, and `conv2`, 3x3."""

    layers: Layers
    growth: int
    bottleneck: bool
    dropout: float

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...]) -> jax.Array:
        """All maps before it, (batch, height, width, any channels) each, to (batch, height, width, growth).

        They are concatenated in here so that with `remat` no concatenation is kept: memory is linear in the layers.
        """
        x = concatenate(maps)
        if self.bottleneck:
            x = NormConv(self.layers, 4 * self.growth, 1, self.dropout, name="conv1")(x)
        return NormConv(self.layers, self.growth, 3, self.dropout, name="conv2")(x)


class DenseStage(nn.Module):
    """A dense block of the paper: `layer1`, `layer2`, ..."""

    layers: Layers
    size: int
    growth: int
    bottleneck: bool
    dropout: float
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, height, width, channels) to (batch, height, width, channels + size * growth)."""
        layer = nn.remat(DenseLayer) if self.remat else DenseLayer
        maps: tuple[jax.Array, ...] = (x,)
        for number in range(1, self.size + 1):
            maps += (layer(self.layers, self.growth, self.bottleneck, self.dropout, name=f"layer{number}")(maps),)
        return concatenate(maps)


class DenseNet(ConvNetwork, kw_only=True):
    """DenseNet-BC, by default 121 layers. `depth` multiplies the layers of each stage; `width` the growth rate."""

    growth_rate: PositiveInt = 32
    """Channels that each layer adds, k."""
    stage_sizes: tuple[PositiveInt, ...] = (6, 12, 24, 16)
    """Dense layers of each stage."""
    bottleneck: bool = True
    """Whether a 1x1 convolution to four times the growth rate comes before each 3x3."""
    compression: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the channels that a transition passes on, rounded down; 1 for all."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """A 7x7 convolution with stride 2 and a pool, or one 3x3 that keeps the size and that nothing normalises."""
    stem_width: PositiveInt | None = None
    """None for twice the growth rate."""
    dropout: Fraction = 0.0
    """After each convolution but the first; the paper has 0.2 where it does not augment the data."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to logits and the maps of the stem and the stages.

        Raises:
            ConfigError: images below 29x29 (with the small stem 8x8) for four stages.
        """
        halvings = 2 ** (len(self.stage_sizes) - 1)
        self.require_size(images, halvings if self.stem == "small" else 4 * halvings - 3)
        layers, growth = self.layers(train), self.channels(self.growth_rate)
        x = self._stem(layers, images)
        features = {"stem": x}
        if self.stem == "imagenet":
            x = max_pool(x, 3, 2, "symmetric")
        transition = nn.remat(NormConv) if self.remat else NormConv
        for number, size in enumerate(self.stage_sizes, 1):
            if number > 1:
                passed_on = max(1, int(round(self.compression * x.shape[-1], 9)))
                x = transition(layers, passed_on, 1, self.dropout, name=f"transition{number - 1}")(x)
                x = average_pool(x, 2, 2)
            x = DenseStage(
                layers, self.repeats(size), growth, self.bottleneck, self.dropout, self.remat, name=f"stage{number}"
            )(x)
            features[f"stage{number}"] = x
        x = layers.activate(layers.normalize(x, name="norm"))
        features[f"stage{len(self.stage_sizes)}"] = x
        logits = layers.logits(global_average_pool(x), self.num_classes)
        return Outputs(logits=logits, aux={}, features=features)

    def _stem(self, layers: Layers, images: jax.Array) -> jax.Array:
        width = self.channels(self.stem_width or 2 * self.growth_rate)
        if self.stem == "imagenet":
            return ConvNorm(layers, width, 7, 2, name="stem")(images)
        return layers.conv(images, width, 3, name="stem", bias=layers.has_bias())


_PAPER = (
    "Huang, Liu, van der Maaten and Weinberger 2016, Densely Connected Convolutional Networks, CVPR 2017, "
    "arXiv:1608.06993"
)
_SIZES: dict[str, dict[str, Any]] = {
    "121": {"stage_sizes": (6, 12, 24, 16)},
    "161": {"stage_sizes": (6, 12, 36, 24), "growth_rate": 48},
    "169": {"stage_sizes": (6, 12, 32, 32)},
    "201": {"stage_sizes": (6, 12, 48, 32)},
    "264": {"stage_sizes": (6, 12, 64, 48)},
}
VARIANTS = {f"densenet{name}": Variant(DenseNet, (224, 224, 3), _PAPER, fields) for name, fields in _SIZES.items()}
PEERS: Peers = {
    **{
        f"{library}/densenet{name}": (f"densenet{name}", {})
        for library in ("torchvision", "timm")
        for name in ("121", "161", "169", "201")
    },
    "torchvision/DenseNet+k32_6-12-64-48": ("densenet264", {}),
    **{f"keras/DenseNet{name}": (f"densenet{name}", KERAS_RESNET_BATCH_NORM) for name in ("121", "169", "201")},
}
