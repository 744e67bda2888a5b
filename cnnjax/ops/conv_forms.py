"""Ways of writing a convolution and its two gradients for XLA on a CPU; all compute the same numbers.

A convolution is linear in the images and in the kernel, so there are three maps: `forward` (images and kernel to
outputs), `by_input` (outputs' gradient and kernel to the images') and `by_kernel` (images and outputs' gradient to the
kernel's). Images are (batch, height, width, channels), kernels (height, width, channels of one group, features).
"""

import dataclasses
import functools
import itertools
import math
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops.padding import Pads
from cnnjax.ops.winograd import convolve_3x3, input_gradient_3x3, kernel_gradient_3x3

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


class Form(Protocol):
    """One of the maps, of two arrays."""

    def __call__(self, one: jax.Array, other: jax.Array, /, geometry: Geometry) -> jax.Array: ...


# XLA's own


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


def native_by_kernel(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """What JAX's own rule makes of it."""
    shape = (*geometry.window, images.shape[-1] // geometry.groups, gradient.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, images.dtype)
    (result,) = jax.linear_transpose(lambda k: native(images, k, geometry), kernel)(gradient)
    return result


# The image as the window's positions see it


def _padded(images: jax.Array, geometry: Geometry) -> jax.Array:
    if geometry.padding == ((0, 0), (0, 0)):
        return images
    low_high = ((0, 0), *geometry.padding, (0, 0))
    # A negative amount cuts.
    return lax.pad(images, jnp.zeros((), images.dtype), [(low, high, 0) for low, high in low_high])


def _seen(padded: jax.Array, row: int, column: int, geometry: Geometry) -> jax.Array:
    """What one position of the window sees: (batch, rows and columns of outputs, channels)."""
    (rows, columns), (down, right) = geometry.outputs, geometry.strides
    stop = (padded.shape[0], row + down * (rows - 1) + 1, column + right * (columns - 1) + 1, padded.shape[3])
    return lax.slice(padded, (0, row, column, 0), stop, (1, down, right, 1))


def _taps(geometry: Geometry) -> list[Pair]:
    return [(row, column) for row in range(geometry.window[0]) for column in range(geometry.window[1])]


def _patches(images: jax.Array, geometry: Geometry) -> jax.Array:
    """(batch, rows, columns, positions of the window, channels)."""
    padded = _padded(images, geometry)
    if geometry.window == (1, 1):
        return _seen(padded, 0, 0, geometry)[..., None, :]
    return jnp.stack([_seen(padded, *tap, geometry) for tap in _taps(geometry)], 3)


# Forward


def products_of_taps(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product for each position of the window. For one group."""
    padded = _padded(images, geometry)
    products = [jnp.dot(_seen(padded, *tap, geometry), kernel[tap]) for tap in _taps(geometry)]
    # oneDNN makes one operation of a product and all that is added to it, and fails where these are more than 32.
    sums = [functools.reduce(jnp.add, products[first : first + 16]) for first in range(0, len(products), 16)]
    return sums[0] if len(sums) == 1 else functools.reduce(jnp.add, lax.optimization_barrier(sums))


def product_of_patches(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product of all that a window sees. For one group."""
    patches = _patches(images, geometry)
    return jnp.dot(patches.reshape(*patches.shape[:3], -1), kernel.reshape(-1, kernel.shape[-1]))


def sum_of_shifts(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The shifted images times one number a channel, summed. For groups of very few channels."""
    padded, (*_, inputs, features) = _padded(images, geometry), kernel.shape
    groups = geometry.groups
    factors = kernel.reshape(*geometry.window, inputs, groups, -1)

    def terms(tap: Pair) -> list[jax.Array]:
        seen = _seen(padded, *tap, geometry)
        if (inputs, features) == (1, groups):
            return [seen * factors[tap][0, :, 0]]
        parted = seen.reshape(*seen.shape[:3], groups, inputs)
        return [parted[..., channel, None] * factors[tap][channel] for channel in range(inputs)]

    total = functools.reduce(jnp.add, [term for tap in _taps(geometry) for term in terms(tap)])
    return total.reshape(*total.shape[:3], -1)


def in_blocks(form: Form, width: int) -> Form:
    """A form for one group, for each block of neighbouring groups with at least `width` channels.

    A block's kernel has zeros where the groups do not see each other: more products, in matrices of a good size.
    """

    def forward(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
        (*window, inputs, features), groups = kernel.shape, geometry.groups
        together = _groups_of_a_block(inputs, groups, width)
        blocks = groups // together
        parted = kernel.reshape(*window, 1, inputs, blocks, together, features // groups)
        own = jnp.eye(together, dtype=kernel.dtype)[:, None, None, :, None]
        dense = (parted * own).reshape(*window, together * inputs, blocks, -1)
        step = dataclasses.replace(geometry, groups=1)
        parts = jnp.split(images, blocks, -1)
        return jnp.concatenate([form(part, dense[:, :, :, block], step) for block, part in enumerate(parts)], -1)

    return forward


def _groups_of_a_block(channels: int, groups: int, width: int) -> int:
    return next(
        count
        for count in range(1, groups + 1)
        if (groups % count == 0 and count * channels >= width) or count == groups
    )


def winograd(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`cnnjax.ops.winograd`. For one group, 3x3 and stride 1."""
    return convolve_3x3(images, kernel, geometry.padding)


# By the images: the outputs' gradient, spread by the strides, convolved with the kernel turned around.


def turned(kernel: jax.Array, groups: int) -> jax.Array:
    """The kernel of the way back: rows and columns reversed, channels and features of each group exchanged."""
    parted = kernel[::-1, ::-1].reshape(*kernel.shape[:3], groups, -1)
    exchanged = parted.transpose(0, 1, 4, 3, 2)  # (height, width, features of a group, groups, channels of a group)
    return exchanged.reshape(*exchanged.shape[:3], -1)


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


# By the kernel: what each position of the window saw, times the outputs' gradient, summed over all outputs.


def kernel_by_taps(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product for each position of the window. For one group."""
    padded = _padded(images, geometry)
    products = [_sum_of_products(_seen(padded, *tap, geometry), gradient) for tap in _taps(geometry)]
    return jnp.stack(products).reshape(*geometry.window, images.shape[-1], gradient.shape[-1])


def _sum_of_products(one: jax.Array, other: jax.Array) -> jax.Array:
    """(..., features of one) and (..., features of other) to (features of one, features of other)."""
    # Of matrices, XLA transposes neither.
    left, right = (each.reshape(-1, each.shape[-1]) for each in (one, other))
    return lax.dot_general(left, right, (((0,), (0,)), ((), ())))


def kernel_by_patches(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """One matrix product of all that a window saw. For one group."""
    patches = _patches(images, geometry)
    product = _sum_of_products(patches.reshape(*patches.shape[:3], -1), gradient)
    return product.reshape(*geometry.window, images.shape[-1], gradient.shape[-1])


_PIECES = 8


def kernel_by_pieces(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
    """XLA's own for some images, or rows of outputs, after the others: of many positions at once it loses its pace."""
    padded, rows = _padded(images, geometry), geometry.outputs[0]
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
    padded = _padded(images if multiplier == 1 else jnp.repeat(images, multiplier, -1), geometry)
    written = columns // -(-columns // _COLUMNS)
    rest = columns - columns % written
    together = [range(first, rest, written) for first in range(written)]
    apart = [range(column, column + 1) for column in range(rest, columns)]

    def terms(row: jax.Array, column: jax.Array, chosen: range) -> jax.Array:
        size = (len(padded), down * (geometry.outputs[0] - 1) + 1, right * (chosen[-1] - chosen[0]) + 1, features)
        seen = lax.dynamic_slice(padded, (0, row, column + right * chosen[0], 0), size)
        of_these = lax.slice_in_dim(gradient, chosen.start, chosen.stop, chosen.step, axis=2)
        return lax.slice(seen, (0, 0, 0, 0), size, (1, down, right * chosen.step, 1)) * of_these

    def sum_of(tap: tuple[jax.Array, jax.Array]) -> jax.Array:
        parts = [[terms(*tap, chosen) for chosen in part] for part in (together, apart) if part]
        sums = [lax.optimization_barrier(functools.reduce(jnp.add, part)) for part in parts]
        rows = [each.reshape(-1, features) for each in sums]
        # Of matrices: a loop with no product but of a vector is compiled for one thread.
        return functools.reduce(jnp.add, [jnp.dot(jnp.ones((2, len(each)), each.dtype), each)[0] for each in rows])

    # In turns: written out, the positions of all windows would take most of a network's time to compile.
    tap_rows, tap_columns = jnp.indices(geometry.window, jnp.int32)
    return lax.map(sum_of, (tap_rows.ravel(), tap_columns.ravel())).reshape(*geometry.window, 1, features)


def kernel_in_blocks(form: Form, width: int) -> Form:
    """As `in_blocks`."""

    def by_kernel(images: jax.Array, gradient: jax.Array, geometry: Geometry) -> jax.Array:
        inputs, groups = images.shape[-1] // geometry.groups, geometry.groups
        together = _groups_of_a_block(inputs, groups, width)
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
    padded, groups = _padded(images, geometry), geometry.groups
    parted = padded.reshape(*padded.shape[:3], groups, -1).transpose(4, 1, 2, 3, 0)
    result = lax.conv_general_dilated(
        parted.reshape(*parted.shape[:3], -1), gradient.transpose(1, 2, 0, 3), (1, 1), "VALID",
        rhs_dilation=geometry.strides, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip
    # Positions beyond the window: the padded images may be longer than the strides reach.
    return result.transpose(1, 2, 0, 3)[: geometry.window[0], : geometry.window[1]]


_WIDTHS = (16, 32)

FORMS: dict[Map, dict[str, Form]] = {
    "forward": {
        "native": native,
        "taps": products_of_taps,
        "patches": product_of_patches,
        "winograd": winograd,
        "shifts": sum_of_shifts,
        **{f"blocks{width}": in_blocks(native, width) for width in _WIDTHS},
    },
    "by_input": {
        "native": native_by_input,
        "phases": by_phases(native),
        "taps": by_phases(products_of_taps),
        "patches": by_phases(product_of_patches),
        "winograd": input_by_winograd,
        "shifts": by_phases(sum_of_shifts),
        **{f"blocks{width}": by_phases(in_blocks(native, width)) for width in _WIDTHS},
    },
    "by_kernel": {
        "native": native_by_kernel,
        "pieces": kernel_by_pieces,
        "taps": kernel_by_taps,
        "patches": kernel_by_patches,
        "winograd": kernel_by_winograd,
        "columns": kernel_by_columns,
        "images": kernel_by_images,
        **{f"blocks{width}": kernel_in_blocks(native_by_kernel, width) for width in _WIDTHS},
    },
}


def admitted(geometry: Geometry, channels: int, features: int) -> set[str]:
    """The names of the forms for a convolution of so many channels to so many features."""
    names = {"native", "phases"}
    if geometry.groups == 1:
        names.add("pieces")
        # Products of one channel are elementwise, and an older XLA makes them again for each of their neighbours.
        if channels > 1 or jax.__version_info__ >= (0, 12):
            names.add("taps")
        if geometry.window != (1, 1):
            names.add("patches")
        if geometry.window == (3, 3) and geometry.strides == (1, 1):
            names.add("winograd")
    elif geometry.groups == channels and features % channels == 0:
        names |= {"shifts", "columns"}
    else:
        names |= {"images", *(f"blocks{width}" for width in _WIDTHS)}
    return names
