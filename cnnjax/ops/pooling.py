"""Pooling: over windows, over a grid of any size, and over channels.

On CPUs windows are written as elementwise operations on slices: the backward pass of XLA's own maximum over windows is
about ten times slower there (2x2 windows of 128 images of 28x28x6, both passes: 9.5 ms against 0.6). Left to itself,
JAX would make a padded image of the gradient of each position of the windows, and add them up: 64 ms where this takes
4 (3x3 windows at stride 1 of 8 images of 28x28x256). Elsewhere they are XLA's own.
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops.padding import Padding, Pads, pad_amounts


def max_pool(x: jax.Array, window: int, stride: int, padding: Padding = "valid") -> jax.Array:
    """The largest value of each window; the first of those that tie, by rows, takes its gradient.

    Args:
        x: (batch, height, width, channels).
        window: height and width of the window.
        stride: step from one window to the next; rows and columns that fill no window are left out.
        padding: with minus infinity, see `cnnjax.ops.padding`.

    Returns:
        (batch, windows that fit the padded height, windows that fit the padded width, channels).
    """
    return _largest(x, window, stride, pad_amounts(padding, x.shape[1:3], (window, window), (stride, stride)))


def sum_pool(x: jax.Array, window: int, stride: int, padding: Padding = "valid") -> jax.Array:
    """The sum of each window; shapes as in `max_pool`, padding with zeros."""
    pads = pad_amounts(padding, x.shape[1:3], (window, window), (stride, stride))
    return _total(x, (x.shape[1], x.shape[2]), window, stride, pads)


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
    entries = [runs[..., index] for index in range(window)]
    # In pairs, so that four equal entries share a gradient equally.
    while len(entries) > 1:
        pairs = zip(entries[::2], entries[1::2], strict=False)
        entries = [_larger(*pair) for pair in pairs] + entries[len(entries) // 2 * 2 :]
    return entries[0]


def _bins(old: int, new: int) -> np.ndarray:
    """(new, old) weights of the means over adaptive bins."""
    starts = np.arange(new) * old // new
    ends = -(-(np.arange(1, new + 1) * old) // new)
    inside = (np.arange(old) >= starts[:, None]) & (np.arange(old) < ends[:, None])
    return np.asarray(inside / inside.sum(1, keepdims=True))


def _entries(x: jax.Array, window: int, stride: int, pads: Pads, neutral: float) -> list[jax.Array]:
    """What each position of the window sees: (batch, windows down, windows across, channels) each."""
    if pads != ((0, 0), (0, 0)):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=neutral)
    height, width = ((size - window) // stride * stride + 1 for size in x.shape[1:3])
    return [
        x[:, row : row + height : stride, column : column + width : stride]
        for row in range(window)
        for column in range(window)
    ]


def _native(
    x: jax.Array, window: int, stride: int, pads: Pads, neutral: float, joint: Callable[..., jax.Array]
) -> jax.Array:
    sizes, steps = (1, window, window, 1), (1, stride, stride, 1)
    result: jax.Array = lax.reduce_window(x, neutral, joint, sizes, steps, ((0, 0), *pads, (0, 0)))
    return result


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _largest(x: jax.Array, window: int, stride: int, pads: Pads) -> jax.Array:
    def slices(x: jax.Array) -> jax.Array:
        x = lax.optimization_barrier(x)  # or what leads to it may be computed again for each position of the windows
        return functools.reduce(jnp.maximum, _entries(x, window, stride, pads, -jnp.inf))

    return lax.platform_dependent(x, cpu=slices, default=_native_largest(window, stride, pads))


def _native_largest(window: int, stride: int, pads: Pads) -> Callable[[jax.Array], jax.Array]:
    return functools.partial(_native, window=window, stride=stride, pads=pads, neutral=-jnp.inf, joint=lax.max)


_Kept = tuple[jax.Array, jax.Array]


def _place_dtype(x: jax.Array, window: int) -> np.dtype:
    # Numbers as wide as the image's are computed along with them; but bfloat16 has no 257.
    return np.dtype(x.dtype if window**2 <= 256 else np.int32)


def _largest_forward(x: jax.Array, window: int, stride: int, pads: Pads) -> tuple[jax.Array, _Kept]:
    """The largest value of each window, and where on a CPU it lies: the position in the window, counted by rows."""

    def slices(x: jax.Array) -> _Kept:
        largest, *others = _entries(lax.optimization_barrier(x), window, stride, pads, -jnp.inf)
        place = jnp.zeros(largest.shape, _place_dtype(x, window))
        for number, entry in enumerate(others, 1):
            place = jnp.where(entry > largest, jnp.asarray(number, place.dtype), place)
            largest = jnp.maximum(largest, entry)
        return lax.optimization_barrier((largest, place))

    def native(x: jax.Array) -> _Kept:
        largest = _native_largest(window, stride, pads)(x)
        return largest, jnp.zeros(largest.shape, _place_dtype(x, window))

    largest, place = lax.platform_dependent(x, cpu=slices, default=native)
    return largest, (x, place)


def _largest_back(window: int, stride: int, pads: Pads, kept: _Kept, cotangent: jax.Array) -> tuple[jax.Array]:
    def slices(x: jax.Array, place: jax.Array, cotangent: jax.Array) -> jax.Array:
        size = (x.shape[1], x.shape[2])
        place, cotangent = lax.optimization_barrier((place, cotangent))
        parts, places = (_spread(each, size, window, stride, pads) for each in (cotangent, place))
        terms = [
            jnp.where(where == jnp.asarray(position, place.dtype)[:, :, None], part, 0)
            for where, part, position in zip(places, parts, _positions(size, window, stride, pads), strict=True)
        ]
        return functools.reduce(jnp.add, terms)

    def native(x: jax.Array, place: jax.Array, cotangent: jax.Array) -> jax.Array:
        del place
        return jax.vjp(_native_largest(window, stride, pads), x)[1](cotangent)[0]

    return (lax.platform_dependent(*kept, cotangent, cpu=slices, default=native),)


_largest.defvjp(_largest_forward, _largest_back)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _total(x: jax.Array, size: tuple[int, int], window: int, stride: int, pads: Pads) -> jax.Array:
    del size

    def slices(x: jax.Array) -> jax.Array:
        return functools.reduce(jnp.add, _entries(lax.optimization_barrier(x), window, stride, pads, 0.0))

    return lax.platform_dependent(x, cpu=slices, default=_native_total(window, stride, pads))


def _native_total(window: int, stride: int, pads: Pads) -> Callable[[jax.Array], jax.Array]:
    return functools.partial(_native, window=window, stride=stride, pads=pads, neutral=0.0, joint=lax.add)


def _total_back(
    size: tuple[int, int], window: int, stride: int, pads: Pads, kept: None, cotangent: jax.Array
) -> tuple[jax.Array]:
    del kept

    def slices(cotangent: jax.Array) -> jax.Array:
        cotangent = lax.optimization_barrier(cotangent)
        positions = _positions(size, window, stride, pads)
        terms = [
            part if (position >= 0).all() else jnp.where(position[:, :, None] >= 0, part, 0)
            for part, position in zip(_spread(cotangent, size, window, stride, pads), positions, strict=True)
        ]
        return functools.reduce(jnp.add, terms)

    def native(cotangent: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((len(cotangent), *size, cotangent.shape[3]), cotangent.dtype)
        return jax.linear_transpose(_native_total(window, stride, pads), shape)(cotangent)[0]

    return (lax.platform_dependent(cotangent, cpu=slices, default=native),)


_total.defvjp(lambda x, *how: (_total(x, *how), None), _total_back)


def _positions(size: tuple[int, int], window: int, stride: int, pads: Pads) -> list[np.ndarray]:
    """Where each position of the image lies in the windows that `_spread` gives, counted by rows; -1 outside."""
    down, across = ((np.arange(length) + low) % stride for length, (low, _) in zip(size, pads, strict=True))
    found = []
    for up, left in itertools.product(range(-(-window // stride)), repeat=2):
        rows, columns = down[:, None] + stride * up, across + stride * left
        found.append(np.where((rows < window) & (columns < window), rows * window + columns, -1))
    return found


def _spread(values: jax.Array, size: tuple[int, int], window: int, stride: int, pads: Pads) -> list[jax.Array]:
    """The values of windows for each position of the image that they see: (batch, *size, channels) each.

    So many as windows may see one position. Zeros where there is no window; where the window ends before the position,
    which `_positions` tells, what it has all the same.
    """
    (above, _), (beside, _) = pads
    # Position p of the padded image lies in window p // stride, and in some before it.
    rows, columns = -(-(above + size[0]) // stride), -(-(beside + size[1]) // stride)
    most = -(-window // stride)
    around = [(0, 0, 0), (most - 1, rows - values.shape[1], 0), (most - 1, columns - values.shape[2], 0), (0, 0, 0)]
    padded = lax.pad(values, jnp.zeros((), values.dtype), around)

    def seen(up: int, left: int) -> jax.Array:
        """Of the window so many before the last one that may see a position."""
        part = padded[:, most - 1 - up :, most - 1 - left :][:, :rows, None, :columns, None]
        batch, *_, channels = part.shape
        each = jnp.broadcast_to(part, (batch, rows, stride, columns, stride, channels))
        each = each.reshape(batch, rows * stride, columns * stride, channels)
        return each[:, above : above + size[0], beside : beside + size[1]]

    return [seen(*before) for before in itertools.product(range(most), repeat=2)]


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
