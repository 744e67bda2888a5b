"""What a convolution is beside its numbers, and the images as the positions of its window see them."""

from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops.padding import Pads

Map = Literal["forward", "by_input", "by_kernel"]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """What a convolution is, beside its numbers."""

    size: Pair
    """Of the images."""
    window: Pair
    """Of the kernel."""
    strides: Pair
    padding: Pads
    groups: int
    """The channels are cut into that many parts that do not see each other."""

    @property
    def outputs(self) -> Pair:
        """Height and width of the outputs."""
        sizes = zip(self.size, self.padding, self.window, self.strides, strict=True)
        height, width = ((size + sum(pads) - window) // stride + 1 for size, pads, window, stride in sizes)
        return height, width


def lie_side_by_side(geometry: Geometry) -> bool:
    """Whether each position of the images belongs to exactly one window."""
    axes = zip(geometry.size, geometry.window, geometry.outputs, geometry.strides, geometry.padding, strict=True)
    return all(
        pads == (0, 0) and size == window * outputs and (stride == window or outputs == 1)
        for size, window, outputs, stride, pads in axes
    )


class Form(Protocol):
    """One of the maps, of two arrays."""

    def __call__(self, one: jax.Array, other: jax.Array, /, geometry: Geometry) -> jax.Array: ...


def padded_images(images: jax.Array, geometry: Geometry) -> jax.Array:
    """(batch, height, width, channels) with the zeros around."""
    if geometry.padding == ((0, 0), (0, 0)):
        return images
    low_high = ((0, 0), *geometry.padding, (0, 0))
    # A negative amount cuts.
    return lax.pad(images, jnp.zeros((), images.dtype), [(low, high, 0) for low, high in low_high])


def seen_by(padded: jax.Array, row: int, column: int, geometry: Geometry) -> jax.Array:
    """What one position of the window sees: (batch, rows and columns of outputs, channels)."""
    (rows, columns), (down, right) = geometry.outputs, geometry.strides
    stop = (padded.shape[0], row + down * (rows - 1) + 1, column + right * (columns - 1) + 1, padded.shape[3])
    return lax.slice(padded, (0, row, column, 0), stop, (1, down, right, 1))


def taps_of(geometry: Geometry) -> list[Pair]:
    """(row, column) of each position of the window."""
    return [(row, column) for row in range(geometry.window[0]) for column in range(geometry.window[1])]


def patches_of(images: jax.Array, geometry: Geometry) -> jax.Array:
    """(batch, rows, columns, positions of the window, channels)."""
    (down, across), (rows, columns), (stride_down, stride) = geometry.window, geometry.outputs, geometry.strides
    padded = padded_images(images, geometry)
    if geometry.window == (1, 1):
        return seen_by(padded, 0, 0, geometry)[..., None, :]
    # Along one axis, then along the other: fewer parts to compile than positions.
    for axis, size, count, step in ((2, across, columns, stride), (1, down, rows, stride_down)):
        last = step * (count - 1) + 1
        parts = [lax.slice_in_dim(padded, first, first + last, step, axis) for first in range(size)]
        padded = jnp.concatenate(parts, 3)
    return padded.reshape(*padded.shape[:3], down * across, -1)


def groups_of_a_block(channels: int, groups: int, width: int) -> int:
    """How many neighbouring groups of so many channels have at least that width together; all, where they are fewer."""
    return next(
        count
        for count in range(1, groups + 1)
        if (groups % count == 0 and count * channels >= width) or count == groups
    )
