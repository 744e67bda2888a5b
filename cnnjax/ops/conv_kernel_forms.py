"""Ways of writing a convolution's gradient by the kernel for XLA on a CPU.

It is what each position of the window saw, times the outputs' gradient, summed over all outputs. Arrays are as in
`cnnjax.ops.conv_forward_forms`.
"""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops.conv_forward_forms import native
from cnnjax.ops.conv_geometry import Form, Geometry, groups_of_a_block, padded_images, patches_of, seen_by
from cnnjax.ops.winograd import kernel_gradient_3x3


def native_by_kernel(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """What JAX's own rule makes of it."""
    shape = (*geometry.window, images.shape[-1] // geometry.groups, gradient.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, images.dtype)
    (result,) = jax.linear_transpose(lambda k: native(images, k, geometry), kernel)(gradient)
    return result


def kernel_by_taps(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product for each position of the window, in turns. For one group."""
    if geometry.window == (1, 1):
        product = _sum_of_products(seen_by(padded_images(images, geometry), 0, 0, geometry), gradient)
        return product[None, None]
    padded, (rows, columns), (down, right) = padded_images(images, geometry), geometry.outputs, geometry.strides
    size = (padded.shape[0], down * (rows - 1) + 1, right * (columns - 1) + 1, padded.shape[3])

    def one(tap: tuple[jax.Array, jax.Array]) -> jax.Array:
        first = jnp.zeros_like(tap[0])  # a plain 0 would be of another type where 64 bits are on
        seen = lax.dynamic_slice(padded, (first, *tap, first), size)
        return _sum_of_products(lax.slice(seen, (0, 0, 0, 0), size, (1, down, right, 1)), gradient)

    # In turns: what one position saw is as large as the images, and compiled once.
    tap_rows, tap_columns = np.indices(geometry.window, np.int32).reshape(2, -1)
    products = lax.map(one, (tap_rows, tap_columns))
    return products.reshape(*geometry.window, images.shape[-1], gradient.shape[-1])


def _sum_of_products(one: jax.Array, other: jax.Array) -> jax.Array:
    """(..., features of one) and (..., features of other) to (features of one, features of other)."""
    # Of matrices, XLA transposes neither.
    left, right = (each.reshape(-1, each.shape[-1]) for each in (one, other))
    return lax.dot_general(left, right, (((0,), (0,)), ((), ())))


def kernel_by_patches(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product of all that a window saw. For one group."""
    patches = patches_of(images, geometry)
    product = _sum_of_products(patches.reshape(*patches.shape[:3], -1), gradient)
    return product.reshape(*geometry.window, images.shape[-1], gradient.shape[-1])


_STRIP = 4


def kernel_by_strips(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product: what a few neighbouring outputs see together, times all their gradients.

    Of the products, those of an output and what its own window saw are added up; the rest is wasted, but those of one
    output would be too narrow for a machine. For one group and few channels.
    """
    (above_below, (left, _)), (down, across), stride = geometry.padding, geometry.window, geometry.strides[1]
    rows, columns = geometry.outputs
    strips, channels, features = -(-columns // _STRIP), images.shape[3], gradient.shape[3]
    width, step = stride * (_STRIP - 1) + across, stride * _STRIP
    # A strip is what it does not share with the next, then the beginning of the next.
    parts = -(-width // step)
    right = step * (strips + parts - 1) - left - geometry.size[1]
    padded = padded_images(images, dataclasses.replace(geometry, padding=(above_below, (left, right))))
    apart = padded.reshape(*padded.shape[:2], -1, step, channels)
    together = jnp.concatenate([apart[:, :, part : part + strips, : width - part * step] for part in range(parts)], 3)
    last = geometry.strides[0] * (rows - 1) + 1
    seen = [together[:, row : row + last : geometry.strides[0]].reshape(-1, width * channels) for row in range(down)]
    gradient = jnp.pad(gradient, ((0, 0), (0, 0), (0, strips * _STRIP - columns), (0, 0)))
    product = _sum_of_products(jnp.concatenate(seen, 1), gradient.reshape(-1, _STRIP * features))
    product = lax.optimization_barrier(product.reshape(down, width, channels, _STRIP, features))
    each = np.arange(_STRIP)
    return jnp.stack([product[:, stride * each + column, :, each].sum(0) for column in range(across)], 1)


_PIECES = 8


def kernel_by_pieces(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """XLA's own for some images, or rows of outputs, after the others: of many positions at once it loses its pace."""
    padded, rows = padded_images(images, geometry), geometry.outputs[0]
    parts = math.gcd(images.shape[0], _PIECES)
    bands = min(_PIECES // parts, rows)
    edges = [rows * band // bands for band in range(bands + 1)]
    pieces = []
    for seen, wanted in zip(jnp.split(padded, parts), jnp.split(gradient, parts), strict=True):
        for first, end in itertools.pairwise(edges):
            top, bottom = first * geometry.strides[0], (end - 1) * geometry.strides[0] + geometry.window[0]
            size = (bottom - top, padded.shape[2])
            step = dataclasses.replace(geometry, size=size, padding=((0, 0), (0, 0)))
            band, its_gradient = lax.optimization_barrier((seen[:, top:bottom], wanted[:, first:end]))
            pieces.append(lax.optimization_barrier(native_by_kernel(band, its_gradient, step)))
    return functools.reduce(jnp.add, pieces)


def kernel_by_winograd(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """`cnnjax.ops.winograd`. For one group, 3x3 and stride 1."""
    return kernel_gradient_3x3(images, gradient, geometry.padding)


_COLUMNS = 16


def kernel_by_columns(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """The shifted images times the gradient, some neighbouring columns written out, the rest of the sum a product.

    For a group for each channel.
    """
    (features, columns), (down, right) = (gradient.shape[-1], geometry.outputs[1]), geometry.strides
    multiplier = features // images.shape[-1]
    padded = padded_images(images if multiplier == 1 else jnp.repeat(images, multiplier, -1), geometry)
    written = columns // -(-columns // _COLUMNS)
    rest = columns - columns % written
    together = [range(first, rest, written) for first in range(written)]
    apart = [range(column, column + 1) for column in range(rest, columns)]

    def terms(row: jax.Array, column: jax.Array, chosen: range) -> jax.Array:
        size = (len(padded), down * (geometry.outputs[0] - 1) + 1, right * (chosen[-1] - chosen[0]) + 1, features)
        first = jnp.zeros_like(row)  # a plain 0 would be of another type where 64 bits are on
        seen = lax.dynamic_slice(padded, (first, row, column + right * chosen[0], first), size)
        of_these = lax.slice_in_dim(gradient, chosen.start, chosen.stop, chosen.step, axis=2)
        return lax.slice(seen, (0, 0, 0, 0), size, (1, down, right * chosen.step, 1)) * of_these

    def sum_of(tap: tuple[jax.Array, jax.Array]) -> jax.Array:
        parts = [[terms(*tap, chosen) for chosen in part] for part in (together, apart) if part]
        sums = [lax.optimization_barrier(functools.reduce(jnp.add, part)) for part in parts]
        rows = [each.reshape(-1, features) for each in sums]
        # Of matrices: a loop with no product but of a vector is compiled for one thread.
        return functools.reduce(jnp.add, [jnp.dot(jnp.ones((2, len(each)), each.dtype), each)[0] for each in rows])

    # In turns: written out, the positions of all windows would take most of a network's time to compile.
    tap_rows, tap_columns = np.indices(geometry.window, np.int32).reshape(2, -1)
    return lax.map(sum_of, (tap_rows, tap_columns)).reshape(*geometry.window, 1, features)


def kernel_in_blocks(form: Form, width: int) -> Form:
    """As `in_blocks`."""

    def by_kernel(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
        inputs, groups = images.shape[-1] // geometry.groups, geometry.groups
        together = groups_of_a_block(inputs, groups, width)
        blocks = groups // together
        step = dataclasses.replace(geometry, groups=1)
        parts = zip(jnp.split(images, blocks, -1), jnp.split(gradient, blocks, -1), strict=True)
        dense = jnp.stack([form(part, its_gradient, step) for part, its_gradient in parts], 2)
        parted = dense.reshape(*geometry.window, blocks, together, inputs, together, -1)
        return jnp.einsum("hwbicif->hwcbif", parted).reshape(*geometry.window, inputs, -1)

    return by_kernel


def kernel_by_images(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """One forward convolution: channels of a group as images, images as channels, the gradient as its kernel.

    For groups, which stay apart.
    """
    padded, groups = padded_images(images, geometry), geometry.groups
    parted = padded.reshape(*padded.shape[:3], groups, -1).transpose(4, 1, 2, 3, 0)
    result = lax.conv_general_dilated(
        parted.reshape(*parted.shape[:3], -1), gradient.transpose(1, 2, 0, 3), (1, 1), "VALID",
        rhs_dilation=geometry.strides, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip
    # Positions beyond the window: the padded images may be longer than the strides reach.
    return result.transpose(1, 2, 0, 3)[: geometry.window[0], : geometry.window[1]]
