"""Pooling: over windows, over a grid of any size, and over channels.

Windows are written as elementwise operations on strided slices: the backward pass of XLA's own maximum over windows is
about ten times slower on CPU (2x2 windows of 128 images of 28x28x6, both passes: 9.5 ms against 0.6).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.ops.padding import Padding, pad_amounts


def max_pool(x: jax.Array, window: int, stride: int, padding: Padding = "valid") -> jax.Array:
    """The largest value of each window; entries that tie for it share its gradient.

    Args:
        x: (batch, height, width, channels).
        window: height and width of the window.
        stride: step from one window to the next; rows and columns that fill no window are left out.
        padding: with minus infinity, see `cnnjax.ops.padding`.

    Returns:
        (batch, windows that fit the padded height, windows that fit the padded width, channels).
    """
    return _pool(_larger, -jnp.inf, x, window, stride, padding)


def sum_pool(x: jax.Array, window: int, stride: int, padding: Padding = "valid") -> jax.Array:
    """The sum of each window; shapes as in `max_pool`, padding with zeros."""
    return _pool(jnp.add, 0.0, x, window, stride, padding)


def average_pool(
    x: jax.Array, window: int, stride: int, padding: Padding = "valid", *, count_padding: bool = False
) -> jax.Array:
    """The mean of each window; shapes as in `max_pool`.

    Args:
        count_padding: divide by the whole window, padding counted (Caffe, PyTorch), not only by what lies in the image
            (TensorFlow, Keras). What `ceil` padding adds never counts.
    """
    total = sum_pool(x, window, stride, padding)
    if count_padding and padding != "ceil":
        return total / window**2
    ones = np.ones(x.shape[1:3], np.float32)
    pads = pad_amounts(padding, x.shape[1:3], (window, window), (stride, stride))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(ones, pads), (window, window))[::stride, ::stride]
    return total / jnp.asarray(windows.sum((2, 3))[:, :, None], x.dtype)


def global_average_pool(x: jax.Array) -> jax.Array:
    """(batch, height, width, channels) to (batch, channels), the mean over all positions."""
    return x.mean((1, 2))


def adaptive_average_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """(batch, height, width, channels) to (batch, *size, channels), for any height and width.

    Output i is the mean of the rows from floor(i * height / size) to ceil((i + 1) * height / size), as PyTorch's
    adaptive pooling has it; the image itself where it has that size already.
    """
    if x.shape[1:3] == size:
        return x
    rows, columns = (jnp.asarray(_bins(old, new), x.dtype) for old, new in zip(x.shape[1:3], size, strict=True))
    return jnp.einsum("ah,bw,nhwc->nabc", rows, columns, x)


def channel_max_pool(x: jax.Array, window: int) -> jax.Array:
    """The maximum over each run of `window` channels: (batch, height, width, channels) to channels // window.

    Depthwise max pooling: with filters that respond to one pattern turned or shifted, it learns to ignore the turn.
    """
    if x.shape[-1] % window:
        raise ValueError(f"{x.shape[-1]} channels cannot be cut into runs of {window}")
    runs = x.reshape(*x.shape[:-1], -1, window)
    return _in_pairs(_larger, [runs[..., index] for index in range(window)])


def _bins(old: int, new: int) -> np.ndarray:
    """(new, old) weights of the means over adaptive bins."""
    starts = np.arange(new) * old // new
    ends = -(-(np.arange(1, new + 1) * old) // new)
    inside = (np.arange(old) >= starts[:, None]) & (np.arange(old) < ends[:, None])
    return np.asarray(inside / inside.sum(1, keepdims=True))


def _pool(
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    neutral: float,
    x: jax.Array,
    window: int,
    stride: int,
    padding: Padding,
) -> jax.Array:
    pads = pad_amounts(padding, x.shape[1:3], (window, window), (stride, stride))
    if pads != ((0, 0), (0, 0)):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=neutral)
    height, width = ((size - window) // stride * stride + 1 for size in x.shape[1:3])
    entries = [
        x[:, row : row + height : stride, column : column + width : stride]
        for row in range(window)
        for column in range(window)
    ]
    return _in_pairs(combine, entries)


def _in_pairs(combine: Callable[[jax.Array, jax.Array], jax.Array], entries: list[jax.Array]) -> jax.Array:
    """All of them combined; in pairs, so that a 2x2 window's four equal entries share a gradient equally."""
    while len(entries) > 1:
        pairs = zip(entries[::2], entries[1::2], strict=False)
        entries = [combine(*pair) for pair in pairs] + entries[len(entries) // 2 * 2 :]
    return entries[0]


@jax.custom_jvp
def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.maximum`, whose gradient asks which of the two is the larger, and not which of them equals the result.

    A compiler may compute an entry again for the backward pass, rounded otherwise: then it equals no result any more,
    and its gradient is lost (XLA's CPU back end did so behind a normalisation).
    """
    return jnp.maximum(a, b)


@_larger.defjvp
def _larger_jvp(
    entries: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (a, b), (of_a, of_b) = entries, tangents
    share = jnp.where(a > b, 1.0, jnp.where(a < b, 0.0, 0.5)).astype(a.dtype)
    return _larger(a, b), share * of_a + (1 - share) * of_b
