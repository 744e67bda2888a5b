"""Where an image's pixels go: flips, crops, and whatever a matrix can do.

Images are (height, width, channels) floats, labels of pixels (height, width) integers. A matrix is 3x3 and takes a
position of the result, (row, column, 1) in pixels from the middle, to the position in the image that it shows.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from cnnjax.config_augment import Fill

# What NumPy's pad calls them; JAX's map_coordinates has our names.
_PADDED = {"constant": "constant", "nearest": "edge", "reflect": "symmetric", "wrap": "wrap"}


def identity() -> jax.Array:
    """Leaves an image as it is."""
    return jnp.eye(3)


def rotation(degrees: jax.Array) -> jax.Array:
    """Counter-clockwise, about the middle."""
    angle = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _matrix(cos, sin, 0, -sin, cos, 0)


def translation(down: jax.Array, right: jax.Array) -> jax.Array:
    """By so many pixels."""
    return _matrix(1, 0, -down, 0, 1, -right)


def shear(vertical: jax.Array, horizontal: jax.Array) -> jax.Array:
    """By degrees: what lies right of the middle moves up by the tangent of `vertical` times its distance, what lies
    below it left by that of `horizontal`: torchvision's `affine`, one at a time."""
    return _matrix(1, jnp.tan(jnp.deg2rad(vertical)), 0, jnp.tan(jnp.deg2rad(horizontal)), 1, 0)


def zoom(vertical: jax.Array, horizontal: jax.Array) -> jax.Array:
    """By factors; above 1 enlarges."""
    return _matrix(1 / vertical, 0, 0, 0, 1 / horizontal, 0)


def warp(image: jax.Array, matrix: jax.Array, *, fill: Fill = "constant", value: float = 0.0) -> jax.Array:
    """The image seen through a matrix: of the four pixels around each position their bilinear mean.

    Args:
        fill: what lies beyond the border: `constant` is `value`, `nearest` the border's pixels, `reflect` the image
            mirrored with its border's pixels doubled, `wrap` the image again.
    """
    positions = _positions(image.shape[:2], matrix)
    sample = jax.vmap(lambda channel: map_coordinates(channel, positions, order=1, mode=fill, cval=value), -1, -1)
    return sample(image)


def warp_labels(labels: jax.Array, matrix: jax.Array, *, fill: Fill = "constant") -> jax.Array:
    """The labels seen through a matrix: those of the nearest pixels; class 0 beyond the border with `constant`."""
    return map_coordinates(labels, _positions(labels.shape, matrix), order=0, mode=fill, cval=0)


def flip(x: jax.Array, *, vertical: jax.Array, horizontal: jax.Array) -> jax.Array:
    """An image or labels, upside down or mirrored where these are true."""
    x = jnp.where(vertical, x[::-1], x)
    return jnp.where(horizontal, x[:, ::-1], x)


def shift_crop(
    x: jax.Array, top: jax.Array, left: jax.Array, padding: int, *, fill: Fill = "constant", value: float = 0.0
) -> jax.Array:
    """An image or labels, padded on all sides and cut to its size again from (top, left), each 0 to 2 * padding."""
    pads = ((padding, padding), (padding, padding), *((0, 0),) * (x.ndim - 2))
    constant = {"constant_values": value} if fill == "constant" else {}
    padded = jnp.pad(x, pads, _PADDED[fill], **constant)
    return jax.lax.dynamic_slice(padded, (top, left, *(0,) * (x.ndim - 2)), x.shape)


def _positions(size: tuple[int, ...], matrix: jax.Array) -> list[jax.Array]:
    """For each pixel of the result the row and the column that it shows, from the upper left one's middle."""
    middle = [(side - 1) / 2 for side in size]
    offsets = [jnp.arange(side) - half for side, half in zip(size, middle, strict=True)]
    rows, columns = jnp.meshgrid(*offsets, indexing="ij")
    return [matrix[axis, 0] * rows + matrix[axis, 1] * columns + matrix[axis, 2] + middle[axis] for axis in range(2)]


def _matrix(*entries: jax.Array | float) -> jax.Array:
    return jnp.stack([jnp.asarray(entry, jnp.float32) for entry in (*entries, 0, 0, 1)]).reshape(3, 3)
