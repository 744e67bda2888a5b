"""A convolution and the largest of each window of its outputs, in one operation.

A map of six channels leaves a CPU's vectors mostly empty, in the convolution and in all that follows. There, images and
kernel are folded, so that neighbouring positions become channels and a window's outputs become features, and the
maximum is over parts of the features. The kernel gets zeros where a window's outputs do not see alike: for 2x2 windows
of a 5x5 kernel it has 36 positions instead of 25.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from cnnjax.ops.conv import Lowering, convolve
from cnnjax.ops.pooling import max_pool

# With more features the additional products cost more than is gained.
_MOST_FEATURES = 16


def convolve_and_pool(
    images: jax.Array, kernel: jax.Array, bias: jax.Array, window: int, *, lowering: Lowering = "auto"
) -> tuple[jax.Array, jax.Array]:
    """`convolve(images, kernel) + bias`, and `max_pool` of that over windows that lie side by side.

    Args:
        images: (batch, height, width, channels).
        kernel: (size, size, channels, features).
        bias: (features,).
        window: height and width of the windows.
        lowering: how the convolution is written on a CPU.

    Returns:
        (batch, rows, columns, features) and (batch, rows // window, columns // window, features).
    """
    fits = not any((side - kernel.shape[0] + 1) % window for side in images.shape[1:3])
    small = fits and kernel.shape[3] <= _MOST_FEATURES
    if lowering == "native" or not small or jnp.finfo(images.dtype).bits < 32:
        outputs = _plain(images, kernel, bias, lowering)
        return outputs, max_pool(outputs, window, window)
    return _folded(images, kernel, bias, window, lowering)


def _plain(images: jax.Array, kernel: jax.Array, bias: jax.Array, lowering: Lowering) -> jax.Array:
    return convolve(images, kernel, lowering=lowering) + bias.reshape(1, 1, 1, -1)  # as Linen's layer adds it


def fold(images: jax.Array, window: int) -> jax.Array:
    """(batch, height, width, channels) to (batch, height // window, width // window, window² * channels)."""
    batch, height, width, channels = images.shape
    parted = images.reshape(batch, height // window, window, width // window, window, channels)
    return parted.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // window, width // window, -1)


def unfold(folded: jax.Array, window: int) -> jax.Array:
    """The inverse of `fold`."""
    batch, rows, columns, _ = folded.shape
    parted = folded.reshape(batch, rows, columns, window, window, -1).transpose(0, 1, 3, 2, 4, 5)
    return parted.reshape(batch, rows * window, columns * window, -1)


def fold_kernel(kernel: jax.Array, window: int) -> jax.Array:
    """(size, size, channels, features) to the kernel that gives folded outputs of folded images.

    It has window² times the channels and features, and as many positions as cover what a window's outputs see.
    """
    size, _, channels, features = kernel.shape
    blocks = -(-(size + window - 1) // window)
    rest = blocks * window - size
    offsets = [((row, rest - row), (column, rest - column)) for row in range(window) for column in range(window)]
    of_outputs = jnp.stack([jnp.pad(kernel, (*offset, (0, 0), (0, 0))) for offset in offsets], 3)
    parted = of_outputs.reshape(blocks, window, blocks, window, channels, window**2 * features)
    return parted.transpose(0, 2, 1, 3, 4, 5).reshape(blocks, blocks, window**2 * channels, -1)


def _convolve_folded(images: jax.Array, kernel: jax.Array, window: int, lowering: Lowering) -> jax.Array:
    """(batch, rows // window, columns // window, window² * features)."""
    kernel_of_blocks = fold_kernel(kernel, window)
    # The last blocks are filled up with what only zeros of the kernel see.
    missing = (kernel_of_blocks.shape[0] - 1) * window - (kernel.shape[0] - 1)
    filled = jnp.pad(images, ((0, 0), (0, missing), (0, missing), (0, 0))) if missing else images
    return convolve(fold(filled, window), kernel_of_blocks, lowering=lowering)


_Places = jax.Array
"""(batch, rows // window, columns // window, features): where in its window the largest lies, counted by rows."""


def _outputs(
    images: jax.Array, kernel: jax.Array, bias: jax.Array, window: int, lowering: Lowering
) -> tuple[jax.Array, jax.Array, _Places]:
    """All outputs, the largest of each window, and on a CPU where it lies."""

    def folded(images: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, _Places]:
        outputs = lax.optimization_barrier(_convolve_folded(images, kernel, window, lowering))
        parts = outputs.reshape(*outputs.shape[:3], window**2, -1)
        largest, place = lax.optimization_barrier((parts.max(3), parts.argmax(3).astype(np.int32)))
        return unfold(outputs, window) + bias, largest + bias, place

    def plain(images: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, _Places]:
        outputs = _plain(images, kernel, bias, "native")
        largest = max_pool(outputs, window, window)
        return outputs, largest, jnp.zeros(largest.shape, np.int32)

    return lax.platform_dependent(images, kernel, bias, cpu=folded, default=plain)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _folded(
    images: jax.Array, kernel: jax.Array, bias: jax.Array, window: int, lowering: Lowering
) -> tuple[jax.Array, jax.Array]:
    return _outputs(images, kernel, bias, window, lowering)[:2]


_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array, _Places]
_Three = tuple[jax.Array, jax.Array, jax.Array]


def _forward(
    images: CustomVJPPrimal, kernel: CustomVJPPrimal, bias: CustomVJPPrimal, window: int, lowering: Lowering
) -> tuple[tuple[jax.Array, jax.Array], _Kept]:
    given = (images.value, kernel.value, bias.value)
    outputs, largest, place = _outputs(*given, window, lowering)
    return (outputs, largest), (*given, outputs, place)


def _back(
    window: int, lowering: Lowering, kept: _Kept, cotangents: tuple[jax.Array | SymbolicZero, jax.Array | SymbolicZero]
) -> _Three:
    """The outputs' own gradient is most often none at all, and then costs nothing."""
    of_outputs, of_largest = cotangents
    if isinstance(of_largest, SymbolicZero):
        of_largest = jnp.zeros(kept[-1].shape, kept[0].dtype)
    given = () if isinstance(of_outputs, SymbolicZero) else (of_outputs,)

    def folded(
        images: jax.Array, kernel: jax.Array, bias: jax.Array, outputs: jax.Array, place: _Places,
        of_largest: jax.Array, *of_outputs: jax.Array,
    ) -> _Three:  # fmt: skip
        del bias, outputs
        place, of_largest = lax.optimization_barrier((place, of_largest))
        here = place[..., None, :] == np.arange(window**2, dtype=np.int32)[:, None]
        of_parts = lax.optimization_barrier(jnp.where(here, of_largest[..., None, :], 0))
        whole = functools.reduce(
            jnp.add, [fold(each, window) for each in of_outputs], of_parts.reshape(*place.shape[:3], -1)
        )
        by_bias = functools.reduce(jnp.add, [each.sum((0, 1, 2)) for each in (of_largest, *of_outputs)])
        convolution = functools.partial(_convolve_folded, window=window, lowering=lowering)
        return *jax.vjp(convolution, images, kernel)[1](whole), by_bias

    def plain(
        images: jax.Array, kernel: jax.Array, bias: jax.Array, outputs: jax.Array, place: _Places,
        of_largest: jax.Array, *of_outputs: jax.Array,
    ) -> _Three:  # fmt: skip
        del place
        (by_outputs,) = jax.vjp(lambda outputs: max_pool(outputs, window, window), outputs)[1](of_largest)
        whole = functools.reduce(jnp.add, of_outputs, by_outputs)
        return jax.vjp(functools.partial(_plain, lowering="native"), images, kernel, bias)[1](whole)

    return lax.platform_dependent(*kept, of_largest, *given, cpu=folded, default=plain)


_folded.defvjp(_forward, _back, symbolic_zeros=True)
