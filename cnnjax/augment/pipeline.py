"""From a list of entries in a config to one pure function of a key and an image."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax import config_augment as kinds
from cnnjax.augment import colour, filters, geometry
from cnnjax.augment.random_policies import Pair, rand_augment, trivial_augment

Change = Callable[[jax.Array, jax.Array, jax.Array | None], Pair]
"""(key, image, labels of its pixels or None) to the changed image and labels."""


def make_change(entries: Sequence[kinds.ImageAugmentation]) -> Change:
    """All entries in their order, as one function of an image: (height, width, channels) float32 from 0 to 1.

    Warps that follow each other and fill alike are one, so that the image is sampled once.
    """
    changes: list[Change] = []
    for fill, group in ((fill, list(group)) for fill, group in itertools.groupby(entries, key=_fill)):
        changes += map(_make_one, group) if fill is None else [_make_warp(group)]

    def change(key: jax.Array, image: jax.Array, labels: jax.Array | None) -> Pair:
        for number, each in enumerate(changes):
            image, labels = each(jax.random.fold_in(key, number), image, labels)
        return image, labels

    return change


def _fill(entry: kinds.ImageAugmentation) -> tuple[kinds.Fill, float] | None:
    """What lies beyond the border of a warp; None of another change."""
    return (entry.fill, entry.value) if isinstance(entry, kinds.Warp) else None


def _make_warp(entries: Sequence[Any]) -> Change:
    fill, value = entries[0].fill, entries[0].value

    def change(key: jax.Array, image: jax.Array, labels: jax.Array | None) -> Pair:
        matrix = geometry.identity()
        for number, entry in enumerate(entries):
            whether, drawn = jax.random.split(jax.random.fold_in(key, number))
            own = _draw_matrix(entry, drawn, image.shape[:2])
            # A position of the result goes through the last entry's matrix first.
            matrix = matrix @ jnp.where(jax.random.bernoulli(whether, entry.probability), own, geometry.identity())
        warped = geometry.warp(image, matrix, fill=fill, value=value)
        return warped, None if labels is None else geometry.warp_labels(labels, matrix, fill=fill)

    return change


def _draw_matrix(entry: kinds.Warp, key: jax.Array, size: tuple[int, ...]) -> jax.Array:
    first, second = jax.random.split(key)
    if isinstance(entry, kinds.Rotation):
        return geometry.rotation(_uniform(first, entry.degrees))
    if isinstance(entry, kinds.Translation):
        down, right = _uniform(first, entry.vertical), _uniform(second, entry.horizontal)
        return geometry.translation(down * size[0], right * size[1])
    if isinstance(entry, kinds.Shear):
        return geometry.shear(_uniform(first, entry.vertical), _uniform(second, entry.horizontal))
    assert isinstance(entry, kinds.Zoom)
    factor, aspect = _uniform(first, entry.factor), jnp.sqrt(_uniform(second, entry.aspect))
    return geometry.zoom(factor / aspect, factor * aspect)


def _make_one(entry: Any) -> Change:
    if isinstance(entry, kinds.Flip):  # has two probabilities of its own
        return functools.partial(_flip, entry)

    def change(key: jax.Array, image: jax.Array, labels: jax.Array | None) -> Pair:
        whether, drawn = jax.random.split(key)
        done = jax.random.bernoulli(whether, entry.probability)
        if type(entry) in _MOVE:
            changed = _MOVE[type(entry)](entry, drawn, image, labels)
        else:
            changed = _RECOLOUR[type(entry)](entry, drawn, image), labels
        return jax.tree.map(lambda new, old: jnp.where(done, new, old), changed, (image, labels))

    return change


def _flip(entry: kinds.Flip, key: jax.Array, image: jax.Array, labels: jax.Array | None) -> Pair:
    vertical, horizontal = jax.random.uniform(key, (2,)) < jnp.array([entry.vertical, entry.horizontal])
    flipped = geometry.flip(image, vertical=vertical, horizontal=horizontal)
    return flipped, None if labels is None else geometry.flip(labels, vertical=vertical, horizontal=horizontal)


def _crop(entry: kinds.RandomCrop, key: jax.Array, image: jax.Array, labels: jax.Array | None) -> Pair:
    top, left = jax.random.randint(key, (2,), 0, 2 * entry.padding + 1)
    cut = geometry.shift_crop(image, top, left, entry.padding, fill=entry.fill, value=entry.value)
    return cut, None if labels is None else geometry.shift_crop(labels, top, left, entry.padding, fill=entry.fill)


def _jitter(entry: kinds.ColourJitter, key: jax.Array, image: jax.Array) -> jax.Array:
    order, *draws = jax.random.split(key, 5)
    amounts = [
        _uniform(draw, (middle - reach, middle + reach))
        for draw, middle, reach in zip(
            draws, (1, 1, 1, 0), (entry.brightness, entry.contrast, entry.saturation, entry.hue), strict=True
        )
    ]
    changes = [
        lambda x: colour.brightness(x, amounts[0]),
        lambda x: colour.contrast(x, amounts[1]),
        lambda x: colour.saturation(x, amounts[2]),
        lambda x: colour.hue(x, amounts[3]),
    ]
    for which in jax.random.permutation(order, 4):
        image = lax.switch(which, changes, image)
    return image


def _cutout(entry: kinds.Cutout, key: jax.Array, image: jax.Array) -> jax.Array:
    row, column = jax.random.uniform(key, (2,)) * jnp.array(image.shape[:2])
    return filters.cutout(image, row, column, jnp.asarray(entry.side * min(image.shape[:2])), entry.value)


def _noise(entry: kinds.Noise, key: jax.Array, image: jax.Array) -> jax.Array:
    deviation, values = jax.random.split(key)
    return filters.noise(image, values, _uniform(deviation, entry.deviation))


def _uniform(key: jax.Array, ends: tuple[float, float], shape: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(key, shape, minval=ends[0], maxval=ends[1])


_MOVE: dict[type, Callable[[Any, jax.Array, jax.Array, jax.Array | None], Pair]] = {
    kinds.RandomCrop: _crop,
    kinds.RandAugment: lambda entry, key, image, labels: rand_augment(
        key, image, labels, operations=entry.operations, magnitude=entry.magnitude, value=entry.value
    ),
    kinds.TrivialAugment: lambda entry, key, image, labels: trivial_augment(key, image, labels, value=entry.value),
}
_RECOLOUR: dict[type, Callable[[Any, jax.Array, jax.Array], jax.Array]] = {
    kinds.Brightness: lambda entry, key, image: colour.brightness(image, _uniform(key, entry.factor)),
    kinds.Contrast: lambda entry, key, image: colour.contrast(image, _uniform(key, entry.factor)),
    kinds.Saturation: lambda entry, key, image: colour.saturation(image, _uniform(key, entry.factor)),
    kinds.Hue: lambda entry, key, image: colour.hue(image, _uniform(key, entry.turns)),
    kinds.ColourJitter: _jitter,
    kinds.Greyscale: lambda entry, key, image: colour.grey(image),
    kinds.Lighting: lambda entry, key, image: colour.lighting(image, entry.deviation * jax.random.normal(key, (3,))),
    kinds.ChannelShift: lambda entry, key, image: colour.shift(image, _uniform(key, entry.amount)),
    kinds.RgbShift: lambda entry, key, image: colour.shift(image, _uniform(key, entry.amount, image.shape[-1:])),
    kinds.Gamma: lambda entry, key, image: colour.gamma(image, _uniform(key, entry.exponent)),
    kinds.Equalize: lambda entry, key, image: colour.equalize(image),
    kinds.Sharpen: lambda entry, key, image: filters.sharpen(image, _uniform(key, entry.factor)),
    kinds.GaussianBlur: lambda entry, key, image: filters.gaussian_blur(
        image, _uniform(key, entry.deviation), math.ceil(3 * entry.deviation[1])
    ),
    kinds.BoxBlur: lambda entry, key, image: filters.box_blur(
        image, jax.random.randint(key, (), entry.radius[0], entry.radius[1] + 1), entry.radius[1]
    ),
    kinds.MedianBlur: lambda entry, key, image: filters.median_blur(image, entry.radius),
    kinds.Noise: _noise,
    kinds.Cutout: _cutout,
}
