"""Training images blended with others of their batch, and their labels with them.

Neighbours are blended, the first with the second, the third with the fourth: they lie on one device, however many there
are.
"""

import jax
import jax.numpy as jnp

from cnnjax.config_augment import BatchAugmentation, CutMix


def mix(entry: BatchAugmentation, key: jax.Array, images: jax.Array, shares: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Blends two images.

    Args:
        images: (2, height, width, channels).
        shares: (2,), how much of each image's label is its own; the rest is the other's.

    Returns:
        The blended images and their shares.
    """
    whether, share, place = jax.random.split(key, 3)
    own = jax.random.beta(share, entry.alpha, entry.alpha)
    if isinstance(entry, CutMix):
        keep, own = _outside(place, images.shape[1:3], own)
        mixed = jnp.where(keep, images, images[::-1])
    else:
        mixed = own * images + (1 - own) * images[::-1]
    done = jax.random.bernoulli(whether, entry.probability)
    return jnp.where(done, mixed, images), jnp.where(done, own * shares + (1 - own) * (1 - shares), shares)


def _outside(key: jax.Array, size: tuple[int, ...], share: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(height, width, 1), false in a rectangle of the image's proportions, and what part of the image is true."""
    inside = jnp.ones(())
    for axis, (side, drawn) in enumerate(zip(size, jax.random.uniform(key, (2,)), strict=True)):
        length, middle = side * jnp.sqrt(1 - share), jnp.floor(side * drawn)
        start, stop = (jnp.clip(jnp.floor(middle + sign * length / 2), 0, side) for sign in (-1, 1))
        places = jnp.arange(side)
        along = (places >= start) & (places < stop)
        inside = inside * (along[:, None] if axis == 0 else along[None, :])
    return inside[..., None] == 0, 1 - inside.mean()
