"""Colours, against Pillow and Python's colorsys."""

import colorsys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from cnnjax.augment import colour

BYTES = load_sample_image("china.jpg")[150:214, 300:350]
IMAGE = BYTES.astype(np.float32) / 255
PICTURE = Image.fromarray(BYTES)
ENHANCERS = {
    "brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color,
}  # fmt: skip


def as_floats(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.float32) / 255


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("name", ENHANCERS)
def test_enhancers_are_pillows(name, factor):
    expected = as_floats(ENHANCERS[name](PICTURE).enhance(factor))
    found = np.asarray(getattr(colour, name)(IMAGE, jnp.float32(factor)))
    np.testing.assert_allclose(found, expected, atol=(1 + 0.5 * abs(factor - 1) + 0.5) / 255)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("turns", [-0.4, 0.0, 0.1, 1 / 3, 1.0])
def test_hue_is_that_of_colorsys(turns):
    found = np.asarray(colour.hue(IMAGE, jnp.float32(turns)))
    for row, column in [(0, 0), (10, 40), (63, 49), (30, 5)]:
        h, s, v = colorsys.rgb_to_hsv(*IMAGE[row, column].astype(float))
        np.testing.assert_allclose(found[row, column], colorsys.hsv_to_rgb((h + turns) % 1, s, v), atol=1e-5)
    corners = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]], np.float32)
    np.testing.assert_allclose(colour.hue(corners, jnp.float32(1 / 3)), corners[:, [1, 2, 0, 3]], atol=1e-6)


def test_grey_is_pillows():
    expected = np.asarray(PICTURE.convert("L"), np.float32) / 255
    for channel in range(3):
        np.testing.assert_allclose(colour.grey(IMAGE)[..., channel], expected, atol=1 / 255)


def test_posterize_solarize_invert_autocontrast_and_equalize_are_pillows():
    for bits in (1, 4, 8):
        expected = as_floats(ImageOps.posterize(PICTURE, bits))
        np.testing.assert_allclose(colour.posterize(IMAGE, jnp.float32(bits)), expected, atol=1e-6)
    expected = as_floats(ImageOps.solarize(PICTURE, 100))
    np.testing.assert_allclose(colour.solarize(IMAGE, jnp.float32(99.5 / 255)), expected, atol=1e-6)
    np.testing.assert_allclose(colour.invert(IMAGE), as_floats(ImageOps.invert(PICTURE)), atol=1e-6)
    np.testing.assert_allclose(colour.autocontrast(IMAGE), as_floats(ImageOps.autocontrast(PICTURE)), atol=1 / 255)
    np.testing.assert_allclose(colour.equalize(IMAGE), as_floats(ImageOps.equalize(PICTURE)), atol=1e-6)
    flat = np.full((8, 8, 3), 0.2, np.float32)
    for change in (colour.autocontrast, colour.equalize):
        np.testing.assert_allclose(change(flat), flat, atol=1e-6)


def test_gamma_and_shifts():
    np.testing.assert_allclose(colour.gamma(IMAGE, jnp.float32(2)), IMAGE**2, atol=1e-6)
    amounts = np.array([0.5, -0.5, 0.1], np.float32)
    np.testing.assert_allclose(colour.shift(IMAGE, amounts), np.clip(IMAGE + amounts, 0, 1), atol=1e-6)
    one, two = (colour.lighting(np.full((2, 2, 3), 0.5, np.float32), jnp.array(w)) for w in ([1.0, 0, 0], [0, 1.0, 0]))
    moves = [np.asarray(each)[0, 0] - 0.5 for each in (one, two)]
    np.testing.assert_allclose([np.linalg.norm(move) for move in moves], [0.2175, 0.0188], rtol=1e-3)
    np.testing.assert_allclose(moves[0] @ moves[1], 0, atol=1e-5)
    assert np.ptp(moves[0]) < 0.01  # the first component is brightness


def test_components_are_orthonormal():
    np.testing.assert_allclose(colour.COMPONENTS.T @ colour.COMPONENTS, np.eye(3), atol=1e-3)


@pytest.mark.parametrize("name", ["hue", "saturation", "grey", "lighting"])
def test_grey_images_have_no_colours_to_change(name):
    image = IMAGE[..., :1]
    arguments = {"grey": (), "lighting": (jnp.ones(3),)}.get(name, (jnp.float32(0.3),))
    np.testing.assert_allclose(getattr(colour, name)(image, *arguments), image, atol=1e-6)
