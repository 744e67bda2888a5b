"""U-Net: Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv:1505.04597, Figure 1 and sections 2 and 3.

A contracting path of five levels, each two 3x3 convolutions with ReLU, 64 channels at first and twice as many after
each 2x2 max pool; then an expanding path, on which each level halves the channels by a 2x2 up-convolution, sees the map
that the contracting path had there, and has two 3x3 convolutions again. A 1x1 convolution gives each pixel's logits.

    level  channels  contracting path     expanding path
    1      64        572 -> 570 -> 568    392 -> 390 -> 388
    2      128       284 -> 282 -> 280    200 -> 198 -> 196
    3      256       140 -> 138 -> 136    104 -> 102 -> 100
    4      512        68 ->  66 ->  64     56 ->  54 ->  52
    5      1024       32 ->  30 ->  28

Convolutions have no padding, so that a 572x572 image gives a 388x388 map: that of the image without a margin of 92
pixels. Of the contracting path's maps, the expanding path takes the centre. `unet_same` is the common variant with
padding, whose output has the image's size.

The paper has dropout "at the end of the contracting path", and does not print where and how much; here it is 0.5 after
each of the last two levels, as in the release. Weights are normal with variance 2 / N, N the inputs of one unit:
those of one position in an up-convolution, whose windows do not overlap.

Deliberate differences:
- The release has a ReLU after each up-convolution, and 128 channels in the last one; the paper has neither.
- `padding: same` takes any size. Where a side is odd, the last window of the pool is a partial one, and the expanding
  path drops the row or column that it has too much. Where 16 divides both sides, that never happens.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from pydantic import PositiveInt

from cnnjax.config_base import Fraction
from cnnjax.errors import ConfigError
from cnnjax.models.variant import Variant
from cnnjax.nn.initializers import Initializer, he_normal_fan_in
from cnnjax.nn.layers import ConvNorm, Layers
from cnnjax.nn.network import ConvNetwork, Outputs
from cnnjax.nn.norm import NormKind
from cnnjax.ops.pooling import max_pool

Upsampling = Literal["transposed", "nearest", "bilinear"]
Skip = Literal["concatenate", "add", "none"]

# Flax counts all four positions of the kernel among a unit's inputs, of which it has one.
_he_normal_of_one_position: Initializer = nn.initializers.variance_scaling(2.0 * 4, "fan_in", "normal")


class Level(nn.Module):
    """The convolutions of one level; on the expanding path, after the up-convolution and the skip connection."""

    layers: Layers
    features: int
    convolutions: int
    upsampling: Upsampling
    skip: Skip

    @nn.compact
    def __call__(self, x: jax.Array, encoded: jax.Array | None = None) -> jax.Array:
        """(batch, height, width, channels) to (batch, height, width, features), on the expanding path twice the size.

        Args:
            encoded: the map of the contracting path at this level; None on that path itself.
        """
        if encoded is not None:
            x = self._join(self._upsample(x), encoded)
        for number in range(1, self.convolutions + 1):
            x = ConvNorm(self.layers, self.features, 3, name=f"conv{number}")(x)
        return x

    def _upsample(self, x: jax.Array) -> jax.Array:
        if self.upsampling == "transposed":
            return self.layers.conv_transpose(
                x, self.features, 2, 2, name="upsample", kernel_init=_he_normal_of_one_position
            )
        batch, height, width, channels = x.shape
        x = jax.image.resize(x, (batch, 2 * height, 2 * width, channels), self.upsampling)
        return self.layers.conv(x, self.features, 2, name="upsample", padding="same")

    def _join(self, x: jax.Array, encoded: jax.Array) -> jax.Array:
        height, width = (min(sizes) for sizes in zip(x.shape[1:3], encoded.shape[1:3], strict=True))
        x = x[:, :height, :width]
        top, left = (encoded.shape[1] - height) // 2, (encoded.shape[2] - width) // 2
        encoded = encoded[:, top : top + height, left : left + width]
        if self.skip == "none":
            return x
        return x + encoded if self.skip == "add" else jnp.concatenate([encoded, x], -1)


class UNet(ConvNetwork, kw_only=True):
    """U-Net; its logits are (batch, height, width, classes). `depth` multiplies the 3x3 convolutions of each level.

    With `padding: valid` they are those of the image without `margin()` pixels on each side: cut the labels alike.
    """

    labels_pixels = True
    num_classes: PositiveInt = 2
    norm: NormKind = "none"
    padding: Literal["valid", "same"] = "valid"
    levels: PositiveInt = 5
    """Resolutions, each half of the one before."""
    upsampling: Upsampling = "transposed"
    """The 2x2 up-convolution: transposed with stride 2, or an image twice as large and a 2x2 convolution."""
    skip: Skip = "concatenate"
    """How the expanding path takes the contracting path's maps: the centre, if they are larger."""
    dropout: Fraction = 0.5
    """After the last two levels of the contracting path."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """(batch, height, width, channels) to logits of each pixel, and the maps of both paths.

        Features are stage1 to stage5 on the contracting path, decoder4 to decoder1 on the expanding one, by level.

        Raises:
            ConfigError: with `padding: valid`, a size for which a pool would leave out a row or column.
        """
        self._require_fit(images)
        layers = dataclasses.replace(self.layers(train), padding=self.padding, kernel_init=he_normal_fan_in)
        x, features, encoded = images, {}, {}
        for level in range(1, self.levels + 1):
            if level > 1:
                x = max_pool(x, 2, 2, self.padding)
            features[f"stage{level}"] = x = self._level(layers, level, "stage")(x)
            if level >= self.levels - 1:
                x = layers.dropout(x, self.dropout, name=f"dropout{level}")
            encoded[level] = x
        for level in range(self.levels - 1, 0, -1):
            features[f"decoder{level}"] = x = self._level(layers, level, "decoder")(x, encoded[level])
        return Outputs(logits=layers.logits(x, self.num_classes), aux={}, features=features)

    @nn.nowrap
    def margin(self) -> int:
        """Rows and columns of the image on each side for which there are no logits: 92 in the paper, 0 with padding."""
        # Each convolution loses one pixel of its own level on each side; the deepest level is on one path only.
        pixels = (2**self.levels - 1) + (2 ** (self.levels - 1) - 1)
        return self.repeats(2) * pixels if self.padding == "valid" else 0

    def _level(self, layers: Layers, level: int, path: str) -> Level:
        module = nn.remat(Level) if self.remat else Level
        width = self.channels(64 * 2 ** (level - 1))
        return module(layers, width, self.repeats(2), self.upsampling, self.skip, name=f"{path}{level}")

    def _require_fit(self, images: jax.Array) -> None:
        if self.padding == "same":
            return self.require_size(images, 1)
        # Sizes that every level halves evenly are one level's loss below a multiple of `step`.
        step, lost, margins = 2 ** (self.levels - 1), 2 * self.repeats(2), 2 * self.margin()
        smallest = margins + step - (margins + lost) % step
        self.require_size(images, smallest)
        for size in images.shape[1:3]:
            over = (size - smallest) % step
            if over:
                raise ConfigError(
                    f"UNet without padding takes heights and widths of {smallest} and {step} more each, so that every "
                    f"pool has an even size; got {images.shape[1]}x{images.shape[2]}, and nearest to {size} are "
                    f"{size - over} and {size - over + step}; or set padding to 'same'"
                )


_PAPER = "Ronneberger, Fischer, Brox 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI"

VARIANTS = {
    "unet": Variant(UNet, (572, 572, 1), _PAPER),
    "unet_same": Variant(UNet, (512, 512, 1), _PAPER, {"padding": "same"}),
}
