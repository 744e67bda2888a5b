"""Convolutions of 3x3 at stride 1 with 16 instead of 36 products for 2x2 outputs.

Lavin and Gray 2015, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308, F(2x2, 3x3): along each axis
two outputs y of four inputs d and three weights g are

    y = A'((G g) * (B' d)),    B' d = (d0 - d2, d1 + d2, d2 - d1, d1 - d3),
                               G g  = (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2),
                               A' m = (m0 + m1 + m2, m1 - m2 - m3).

Over all channels the products are 16 matrix products. Rounding is a few times that of the plain sum.

The four entries are kept as two pairs, the outer (0, 3) and the inner (1, 2): then each transformation is the same
sum for both of a pair, but for a sign, and XLA makes one loop of it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops.padding import Pads

# Of an array and an axis: the outer and the inner pair of entries along it.
_Pairs = Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]
# G, for the outer pair and for the inner.
_G = np.array([[[1, 0, 0], [0, 0, 1]], [[0.5, 0.5, 0.5], [0.5, -0.5, 0.5]]], np.float32)


def convolve_3x3(images: jax.Array, kernel: jax.Array, padding: Pads) -> jax.Array:
    """(batch, height, width, channels) and (3, 3, channels, features) to (batch, rows, columns, features)."""
    return _convolve(images, kernel, padding, turned=False)


def input_gradient_3x3(gradient: jax.Array, kernel: jax.Array, padding: Pads) -> jax.Array:
    """The gradient by the images of `convolve_3x3` with that padding: a convolution with the kernel turned around.

    Args:
        gradient: (batch, rows, columns, features).
        kernel: (3, 3, channels, features).
    """
    (top, bottom), (left, right) = padding
    return _convolve(gradient, kernel, ((2 - top, 2 - bottom), (2 - left, 2 - right)), turned=True)


def _convolve(images: jax.Array, kernel: jax.Array, padding: Pads, *, turned: bool) -> jax.Array:
    batch, features = images.shape[0], kernel.shape[2 if turned else 3]
    rows, columns = _outputs(images, padding)
    tiles = (batch, -(-rows // 2), -(-columns // 2), features)
    contract = (((2,), (2 if turned else 1,)), ((0,), (0,)))
    products = [
        lax.dot_general(seen, weights, contract).reshape(2, 2, *tiles)
        for seen, weights in zip(_of_tiles(images, padding), _of_weights(kernel, turned=turned), strict=True)
    ]
    outer, inner = (_to_outputs(products[pair], products[pair + 1], axis=1) for pair in (0, 2))
    woven = _to_outputs(outer, inner, axis=0).transpose(2, 3, 0, 4, 1, 5)
    return woven.reshape(batch, 2 * tiles[1], 2 * tiles[2], features)[:, :rows, :columns]


def kernel_gradient_3x3(images: jax.Array, gradient: jax.Array, padding: Pads) -> jax.Array:
    """The gradient by the kernel of `convolve_3x3`: its transpose."""
    channels, features = images.shape[3], gradient.shape[3]
    rows, columns = gradient.shape[1:3]
    spread = _transformed(_in_pairs(gradient, ((0, rows % 2), (0, columns % 2))), _from_outputs)
    contract = (((1,), (1,)), ((0,), (0,)))
    products = [
        lax.dot_general(seen, one, contract).reshape(2, 2, channels, features)
        for seen, one in zip(_of_tiles(images, padding), spread, strict=True)
    ]
    outer, inner = (_to_weights(products[pair], products[pair + 1], axis=1) for pair in (0, 2))
    return _to_weights(outer, inner, axis=0)


def _outputs(images: jax.Array, padding: Pads) -> tuple[int, int]:
    height, width = (size + sum(pads) - 2 for size, pads in zip(images.shape[1:3], padding, strict=True))
    return height, width


def _of_tiles(images: jax.Array, padding: Pads) -> list[jax.Array]:
    """B' d of the 4x4 tiles that the 2x2 outputs see."""
    rows, columns = _outputs(images, padding)
    (top, bottom), (left, right) = padding
    return _transformed(_in_pairs(images, ((top, bottom + rows % 2), (left, right + columns % 2))), _by_inputs)


def _in_pairs(images: jax.Array, padding: Pads) -> jax.Array:
    """(batch, pairs of rows, 2, pairs of columns, 2, channels)."""
    amounts = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    padded = lax.pad(images, jnp.zeros((), images.dtype), amounts)
    batch, height, width, channels = padded.shape
    return padded.reshape(batch, height // 2, 2, width // 2, 2, channels)


def _transformed(pairs: jax.Array, along: _Pairs) -> list[jax.Array]:
    """Along the rows, then along the columns: (entries of two pairs, tiles, channels) for outer and inner of both."""
    channels = pairs.shape[-1]
    parts = [part for rows in along(pairs, 2) for part in along(rows, 4)]
    return [part.transpose(2, 4, 0, 1, 3, 5).reshape(4, -1, channels) for part in parts]


def _of_weights(kernel: jax.Array, *, turned: bool) -> list[jax.Array]:
    """G g of both axes: (entries of two pairs, channels, features) for outer and inner of both."""
    flat = kernel.reshape(9, -1)
    transforms = _G[:, :, ::-1] if turned else _G
    grids = [np.kron(rows, columns) for rows in transforms for columns in transforms]
    return [jnp.dot(jnp.asarray(grid, kernel.dtype), flat).reshape(4, *kernel.shape[2:]) for grid in grids]


def _by_inputs(pairs: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Of (d0, d1) and the next pair (d2, d3): (d0 - d2, d1 - d3) and (d2 + d1, d2 - d1)."""
    first = lax.slice_in_dim(pairs, 0, -1, axis=axis - 1)
    second = lax.slice_in_dim(pairs, 1, None, axis=axis - 1)
    return first - second, _entry(second, 0, axis) + _signs(pairs, axis) * _entry(first, 1, axis)


def _to_outputs(outer: jax.Array, inner: jax.Array, axis: int) -> jax.Array:
    """(m0 + (m1 + m2), -m3 + (m1 - m2))."""
    signs = _signs(outer, axis)
    return signs * outer + (_entry(inner, 0, axis) + signs * _entry(inner, 1, axis))


def _from_outputs(pair: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """(y0, -y1) and (y0 + y1, y0 - y1)."""
    signs = _signs(pair, axis)
    return signs * pair, _entry(pair, 0, axis) + signs * _entry(pair, 1, axis)


def _to_weights(outer: jax.Array, inner: jax.Array, axis: int) -> jax.Array:
    """(u0 + (u1 + u2) / 2, (u1 - u2) / 2, u3 + (u1 + u2) / 2)."""
    apart = lax.pad(outer, jnp.zeros((), outer.dtype), [(0, 0, int(each == axis)) for each in range(outer.ndim)])
    signs = _along(np.array([1, -1, 1]), outer, axis)
    return apart + (_entry(inner, 0, axis) + signs * _entry(inner, 1, axis)) * 0.5


def _entry(pair: jax.Array, which: int, axis: int) -> jax.Array:
    return lax.slice_in_dim(pair, which, which + 1, axis=axis)


def _signs(like: jax.Array, axis: int) -> jax.Array:
    return _along(np.array([1, -1]), like, axis)


def _along(numbers: np.ndarray, like: jax.Array, axis: int) -> jax.Array:
    return jnp.asarray(numbers, like.dtype).reshape([-1 if each == axis else 1 for each in range(like.ndim)])
