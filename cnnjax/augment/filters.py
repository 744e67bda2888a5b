"""What an image's pixels take from their neighbours, and noise. Images are (height, width, channels) floats, 0 to 1."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.augment.colour import blend

# Pillow's SMOOTH.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def sharpen(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Smooth at 0, as it is at 1, sharper above; the outermost pixels stay, as with Pillow and torchvision."""
    inner = sum(
        _SMOOTH[row, column] * image[row : image.shape[0] - 2 + row, column : image.shape[1] - 2 + column]
        for row in range(3)
        for column in range(3)
    )
    return blend(image, jnp.asarray(image).at[1:-1, 1:-1].set(inner), factor)


def gaussian_blur(image: jax.Array, deviation: jax.Array, radius: int) -> jax.Array:
    """The mean of the neighbours up to `radius` pixels away, weighted by a Gaussian of that many pixels' deviation."""
    offsets = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * jnp.square(offsets / jnp.maximum(deviation, 1e-6)))
    return _separable(image, weights / weights.sum())


def box_blur(image: jax.Array, radius: jax.Array, largest: int) -> jax.Array:
    """The mean of the neighbours up to `radius` pixels away each way, `radius` a whole number up to `largest`."""
    weights = (jnp.abs(jnp.arange(-largest, largest + 1)) <= radius).astype(image.dtype)
    return _separable(image, weights / weights.sum())


def median_blur(image: jax.Array, radius: int) -> jax.Array:
    """The middle one of the neighbours up to `radius` pixels away each way, channel by channel."""
    side = 2 * radius + 1
    padded = _pad(image, radius)
    neighbours = [
        padded[row : row + image.shape[0], column : column + image.shape[1]]
        for row in range(side)
        for column in range(side)
    ]
    return jnp.sort(jnp.stack(neighbours), 0)[side * side // 2]


def noise(image: jax.Array, key: jax.Array, deviation: jax.Array) -> jax.Array:
    """Adds an independent normal number to each value."""
    return jnp.clip(image + deviation * jax.random.normal(key, image.shape, image.dtype), 0, 1)


def cutout(image: jax.Array, row: jax.Array, column: jax.Array, side: jax.Array, value: float) -> jax.Array:
    """A square of one value, as far as it lies in the image (DeVries and Taylor 2017).

    Args:
        row, column: of its middle, in pixels from the upper left corner.
        side: in pixels.
    """
    rows = jnp.abs(jnp.arange(image.shape[0]) + 0.5 - row) < side / 2
    columns = jnp.abs(jnp.arange(image.shape[1]) + 0.5 - column) < side / 2
    return jnp.where((rows[:, None] & columns[None, :])[..., None], value, image)


def _separable(image: jax.Array, weights: jax.Array) -> jax.Array:
    """Correlation with the same weights down and across; beyond the border lies the mirrored image."""
    radius = len(weights) // 2
    height, width = image.shape[:2]
    padded = _pad(image, radius)
    down = jnp.stack([lax.slice_in_dim(padded, k, k + height, axis=0) for k in range(len(weights))], -1) @ weights
    return jnp.stack([lax.slice_in_dim(down, k, k + width, axis=1) for k in range(len(weights))], -1) @ weights


def _pad(image: jax.Array, radius: int) -> jax.Array:
    return jnp.pad(image, ((radius, radius), (radius, radius), (0, 0)), "symmetric")
