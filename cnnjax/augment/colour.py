"""What colour an image's pixels have. Images are (height, width, channels) floats from 0 to 1; so are the results.

Where Pillow and torchvision have a function, this is the same one but for their rounding to bytes. Of images in grey,
saturation and hue change nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# The principal components of the colours of ImageNet's training set, pixels from 0 to 1: columns and eigenvalues'
# roots, as Krizhevsky's code and the release of ResNet have them.
COMPONENTS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32)
DEVIATIONS = np.array([0.2175, 0.0188, 0.0045], np.float32)


def blend(image: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
    """`other` at factor 0, the image at 1, and beyond it above 1; within 0 and 1."""
    return jnp.clip(other + factor * (image - other), 0, 1)


def grey(image: jax.Array) -> jax.Array:
    """(height, width, channels) of one brightness a pixel: ITU-R 601 luma."""
    if image.shape[-1] != 3:
        return image
    return jnp.broadcast_to((image @ _LUMA)[..., None], image.shape)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Black at 0, twice as bright at 2."""
    return blend(image, jnp.zeros_like(image), factor)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """The mean brightness everywhere at 0."""
    return blend(image, jnp.full_like(image, grey(image).mean()), factor)


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Grey at 0."""
    return blend(image, grey(image), factor)


def hue(image: jax.Array, turns: jax.Array) -> jax.Array:
    """Each pixel's hue turned on the colour wheel; by a third, red is green."""
    if image.shape[-1] != 3:
        return image
    largest, smallest = image.max(-1), image.min(-1)
    chroma = largest - smallest
    red, green, blue = (image[..., channel] for channel in range(3))
    safe = jnp.where(chroma > 0, chroma, 1)
    sector = jnp.where(
        largest == red,
        (green - blue) / safe % 6,
        jnp.where(largest == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sector = sector + 6 * turns

    def channel(start: int) -> jax.Array:
        position = (start + sector) % 6
        return largest - chroma * jnp.clip(jnp.minimum(position, 4 - position), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)], -1)


def gamma(image: jax.Array, exponent: jax.Array) -> jax.Array:
    """Each value to the power of `exponent`: darker above 1."""
    return image**exponent


def shift(image: jax.Array, amounts: jax.Array) -> jax.Array:
    """Adds one amount, or one a channel."""
    return jnp.clip(image + amounts, 0, 1)


def lighting(image: jax.Array, weights: jax.Array) -> jax.Array:
    """AlexNet's (section 4.1): adds to all pixels the colours' principal components, by `weights` (3,) times their
    deviations."""
    if image.shape[-1] != 3:
        return image
    return shift(image, jnp.asarray(COMPONENTS) @ (weights * DEVIATIONS))


def invert(image: jax.Array) -> jax.Array:
    """The negative."""
    return 1 - image


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """The negative of what is not below the threshold."""
    return jnp.where(image < threshold, image, 1 - image)


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Bytes without all but their first `bits` bits."""
    step = 2.0 ** (8 - bits)
    return jnp.floor(_bytes(image) / step) * step / 255


def autocontrast(image: jax.Array) -> jax.Array:
    """Each channel stretched to the whole range; one that has a single value stays."""
    low, high = image.min((0, 1)), image.max((0, 1))
    flat = high <= low
    return jnp.where(flat, image, (image - low) / jnp.where(flat, 1, high - low))


def equalize(image: jax.Array) -> jax.Array:
    """Each channel's values spread so that they are equally frequent: Pillow's, on bytes."""

    def one(channel: jax.Array) -> jax.Array:
        levels = _bytes(channel).astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[levels.ravel()].add(1)
        last = counts[255 - jnp.argmax(counts[::-1] > 0)]
        step = (counts.sum() - last) // 255
        table = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
        return jnp.where(step > 0, jnp.clip(table, 0, 255), jnp.arange(256))[levels] / 255

    return jax.vmap(one, -1, -1)(image)


def _bytes(image: jax.Array) -> jax.Array:
    return jnp.round(image * 255)
