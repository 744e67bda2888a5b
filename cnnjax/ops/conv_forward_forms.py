"""Ways of writing a convolution, and its gradient by the images, for XLA on a CPU.

Images are (batch, height, width, channels), kernels (height, width, channels of one group, features).
"""

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops.conv_geometry import (
    Form,
    Geometry,
    Pair,
    groups_of_a_block,
    padded_images,
    patches_of,
    seen_by,
    taps_of,
)
from cnnjax.ops.winograd import convolve_3x3, input_gradient_3x3


def native(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`lax.conv_general_dilated`."""
    return lax.conv_general_dilated(
        images, kernel, geometry.strides, geometry.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )  # fmt: skip


def native_by_input(gradient: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """What JAX's own rule makes of it."""
    channels = kernel.shape[2] * geometry.groups
    images = jax.ShapeDtypeStruct((gradient.shape[0], *geometry.size, channels), gradient.dtype)
    (result,) = jax.linear_transpose(lambda x: native(x, kernel, geometry), images)(gradient)
    return result


def products_of_taps(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product for each position of the window. For one group."""
    padded = padded_images(images, geometry)
    products = [jnp.dot(seen_by(padded, *tap, geometry), kernel[tap]) for tap in taps_of(geometry)]
    # oneDNN makes one operation of a product and all that is added to it, and fails where these are more than 32.
    sums = [functools.reduce(jnp.add, products[first : first + 16]) for first in range(0, len(products), 16)]
    return sums[0] if len(sums) == 1 else functools.reduce(jnp.add, lax.optimization_barrier(sums))


def product_of_patches(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product of all that a window sees. For one group."""
    patches = patches_of(images, geometry)
    return jnp.dot(patches.reshape(*patches.shape[:3], -1), kernel.reshape(-1, kernel.shape[-1]))


def sum_of_shifts(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The shifted images times one number a channel, summed. For groups of very few channels."""
    padded, (*_, inputs, features) = padded_images(images, geometry), kernel.shape
    groups = geometry.groups
    factors = kernel.reshape(*geometry.window, inputs, groups, -1)

    def terms(tap: Pair) -> list[jax.Array]:
        seen = seen_by(padded, *tap, geometry)
        if (inputs, features) == (1, groups):
            return [seen * factors[tap][0, :, 0]]
        parted = seen.reshape(*seen.shape[:3], groups, inputs)
        return [parted[..., channel, None] * factors[tap][channel] for channel in range(inputs)]

    total = functools.reduce(jnp.add, [term for tap in taps_of(geometry) for term in terms(tap)])
    return total.reshape(*total.shape[:3], -1)


def in_blocks(form: Form, width: int) -> Form:
    """A form for one group, for each block of neighbouring groups with at least `width` channels.

    A block's kernel has zeros where the groups do not see each other: more products, in matrices of a good size.
    """

    def forward(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
        (*window, inputs, features), groups = kernel.shape, geometry.groups
        together = groups_of_a_block(inputs, groups, width)
        blocks = groups // together
        parted = kernel.reshape(*window, 1, inputs, blocks, together, features // groups)
        own = jnp.eye(together, dtype=kernel.dtype)[:, None, None, :, None]
        dense = (parted * own).reshape(*window, together * inputs, blocks, -1)
        step = dataclasses.replace(geometry, groups=1)
        parts = jnp.split(images, blocks, -1)
        return jnp.concatenate([form(part, dense[:, :, :, block], step) for block, part in enumerate(parts)], -1)

    return forward


def winograd(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`cnnjax.ops.winograd`. For one group, 3x3 and stride 1."""
    return convolve_3x3(images, kernel, geometry.padding)


# By the images: the outputs' gradient, spread by the strides, convolved with the kernel turned around.


def turned(kernel: jax.Array, groups: int) -> jax.Array:
    """The kernel of the way back: rows and columns reversed, channels and features of each group exchanged."""
    parted = kernel[::-1, ::-1].reshape(*kernel.shape[:3], groups, -1)
    exchanged = parted.transpose(0, 1, 4, 3, 2)  # (height, width, features of a group, groups, channels of a group)
    return exchanged.reshape(*exchanged.shape[:3], -1)


def input_by_tiles(gradient: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product, whose rows are what each output gives to all that its window saw.

    For one group and windows that lie side by side.
    """
    (rows, columns), (down, across), channels = geometry.outputs, geometry.window, kernel.shape[2]
    tiles = jnp.dot(gradient, kernel.reshape(-1, kernel.shape[3]).T)
    parted = tiles.reshape(-1, rows, columns, down, across, channels).transpose(0, 1, 3, 2, 4, 5)
    return parted.reshape(-1, *geometry.size, channels)


def by_phases(form: Form) -> Form:
    """The gradient by the images with a form of the forward map, at stride 1, for each phase of the strides.

    Rows i of the images with the same (i + padding) mod stride see the same rows of the kernel, and neighbours among
    them see neighbouring rows of the outputs. So each phase is a convolution without strides.
    """

    def gradient_by_input(gradient: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
        (height, width), (down, right) = geometry.size, geometry.strides
        rows = [_phase(0, phase, geometry) for phase in range(down)]
        columns = [_phase(1, phase, geometry) for phase in range(right)]
        parts = [[_one_phase(form, gradient, kernel, geometry, row, column) for column in columns] for row in rows]
        if (down, right) == (1, 1):
            return parts[0][0]
        # (batch, rows of a phase, row phases, columns of a phase, column phases, channels)
        woven = jnp.stack([jnp.stack(row, 3) for row in parts], 2)
        batch, of_rows, _, of_columns, _, channels = woven.shape
        return woven.reshape(batch, of_rows * down, of_columns * right, channels)[:, :height, :width]

    return gradient_by_input


@dataclass(frozen=True)
class _Phase:
    """One axis of the rows i = first + stride * n of the images, all of which see the same rows of the kernel."""

    taps: tuple[int, ...]
    low: int
    high: int
    count: int


def _phase(axis: int, first: int, geometry: Geometry) -> _Phase:
    size, window, stride = geometry.size[axis], geometry.window[axis], geometry.strides[axis]
    low, outputs = geometry.padding[axis][0], geometry.outputs[axis]
    taps = tuple(range((first + low) % stride, window, stride))
    count = -(-size // stride)
    if not taps:
        return _Phase(taps, 0, 0, count)
    # Row first + stride * n sees output (first + low - tap) / stride + n through each tap; the last tap sees the first.
    start = (first + low - taps[-1]) // stride
    stop = start + len(taps) - 1 + count
    return _Phase(taps, -start, stop - outputs, count)


def _one_phase(
    form: Form, gradient: jax.Array, kernel: jax.Array, geometry: Geometry, row: _Phase, column: _Phase
) -> jax.Array:
    if not (row.taps and column.taps):
        shape = (gradient.shape[0], row.count, column.count, kernel.shape[2] * geometry.groups)
        return jnp.zeros(shape, gradient.dtype)
    (down, right) = geometry.strides
    part = kernel[row.taps[0] :: down, column.taps[0] :: right]
    step = Geometry(
        size=geometry.outputs,
        window=(len(row.taps), len(column.taps)),
        strides=(1, 1),
        padding=((row.low, row.high), (column.low, column.high)),
        groups=geometry.groups,
    )
    return form(gradient, turned(part, geometry.groups), step)


def input_by_winograd(gradient: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`cnnjax.ops.winograd`. For one group, 3x3 and stride 1."""
    return input_gradient_3x3(gradient, kernel, geometry.padding)
