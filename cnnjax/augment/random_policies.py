"""RandAugment (Cubuk, Zoph, Shlens and Le 2019, arXiv:1909.13719) and TrivialAugment (Müller and Hutter 2021,
arXiv:2103.10158): changes that are chosen anew for each image.

Both papers' fourteen operations, with torchvision's ranges; rotations, shears and moves sample bilinearly, where
torchvision by default takes the nearest pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.augment import colour, geometry
from cnnjax.augment.filters import sharpen

Pair = tuple[jax.Array, jax.Array | None]
"""An image, and the labels of its pixels if they have some."""


@dataclass(frozen=True)
class Strengths:
    """What the largest magnitude means."""

    shear: float
    """Tangent."""
    vertical: float
    """Pixels."""
    horizontal: float
    degrees: float
    factor: float
    """Away from 1."""
    lost_bits: int


def rand_augment(
    key: jax.Array, image: jax.Array, labels: jax.Array | None, *, operations: int, magnitude: float, value: float
) -> Pair:
    """So many operations, one after the other, each drawn from all, of magnitude 0 to 30."""
    strengths = Strengths(0.3, 150 / 331 * image.shape[0], 150 / 331 * image.shape[1], 30.0, 0.9, 4)
    for each in jax.random.split(key, operations):
        image, labels = _one(each, image, labels, strengths, jnp.asarray(magnitude / 30), value)
    return image, labels


def trivial_augment(key: jax.Array, image: jax.Array, labels: jax.Array | None, *, value: float) -> Pair:
    """One operation with one of 31 magnitudes."""
    operation, magnitude = jax.random.split(key)
    strengths = Strengths(0.99, 32.0, 32.0, 135.0, 0.99, 6)
    drawn = jax.random.randint(magnitude, (), 0, 31) / 30
    return _one(operation, image, labels, strengths, drawn, value)


def _one(
    key: jax.Array, image: jax.Array, labels: jax.Array | None, most: Strengths, magnitude: jax.Array, value: float
) -> Pair:
    which, sign = jax.random.split(key)
    signed = jnp.where(jax.random.bernoulli(sign), magnitude, -magnitude)
    tilt, none = jnp.rad2deg(jnp.arctan(most.shear * signed)), jnp.zeros(())
    matrices = [
        geometry.shear(none, tilt),
        geometry.shear(tilt, none),
        geometry.translation(none, jnp.trunc(most.horizontal * signed)),
        geometry.translation(jnp.trunc(most.vertical * signed), none),
        geometry.rotation(most.degrees * signed),
    ]
    factor = 1 + most.factor * signed
    recolour: list[Callable[[jax.Array], jax.Array]] = [
        lambda x: x,
        lambda x: colour.brightness(x, factor),
        lambda x: colour.saturation(x, factor),
        lambda x: colour.contrast(x, factor),
        lambda x: sharpen(x, factor),
        lambda x: colour.posterize(x, 8 - jnp.round(most.lost_bits * magnitude)),
        lambda x: colour.solarize(x, 1 - magnitude),
        colour.autocontrast,
        colour.equalize,
    ]
    drawn = jax.random.randint(which, (), 0, len(matrices) + len(recolour))
    # One warp serves all five: an image that is recoloured is not moved.
    moved = drawn < len(matrices)
    matrix = jnp.where(moved, jnp.stack(matrices)[jnp.minimum(drawn, len(matrices) - 1)], geometry.identity())
    recoloured = lax.switch(jnp.maximum(drawn - len(matrices), 0), recolour, image)
    changed = jnp.where(moved, geometry.warp(image, matrix, value=value), recoloured)
    return changed, None if labels is None else geometry.warp_labels(labels, matrix)
