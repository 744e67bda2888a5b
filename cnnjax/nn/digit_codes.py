"""LeNet-5's output layer and its targets: ten digits as 7x12 bitmaps (LeCun et al. 1998, Figure 3)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

# The ten digits of Figure 3 side by side, 7 columns each: # is +1, the rest -1.
DIGIT_BITMAPS = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""


def digit_codes() -> np.ndarray:
    """The targets of F6, one for each digit: (10, 84) float32 of +1 and -1, each bitmap row by row."""
    rows = [line.split() for line in DIGIT_BITMAPS.split("\n") if line]
    digits = ["".join(digit) for digit in zip(*rows, strict=True)]
    return np.array([[1 if pixel == "#" else -1 for pixel in digit] for digit in digits], np.float32)


class RadialBasisOutput(nn.Module):
    """Squared Euclidean distances to the ten digits' fixed codes."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, 84) to (batch, 10) float32, the smaller the likelier."""
        return jnp.square(x.astype(jnp.float32)[:, None, :] - digit_codes()).sum(-1)

    @nn.nowrap
    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Differences squared and added, for one image."""
        return math.prod(input_shape) * math.prod(output_shape)

    @nn.nowrap
    def connections(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """One for each component of each code."""
        return self.macs(input_shape, output_shape)
