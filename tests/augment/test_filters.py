"""Filters, against SciPy and Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage
from sklearn.datasets import load_sample_image

from cnnjax.augment import filters

BYTES = load_sample_image("flower.jpg")[100:140, 200:250]
IMAGE = BYTES.astype(np.float32) / 255


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.5])
def test_sharpen_is_pillows(factor):
    expected = np.asarray(ImageEnhance.Sharpness(Image.fromarray(BYTES)).enhance(factor), np.float32) / 255
    found = filters.sharpen(IMAGE, jnp.float32(factor))
    np.testing.assert_allclose(found, expected, atol=(1 + abs(factor - 1)) / 255)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 2.4])
def test_gaussian_blur_is_scipys(deviation):
    expected = ndimage.gaussian_filter(IMAGE, (deviation, deviation, 0), mode="reflect", radius=(7, 7, 0))
    np.testing.assert_allclose(filters.gaussian_blur(IMAGE, jnp.float32(deviation), 7), expected, atol=1e-5)


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_box_and_median_blur_are_scipys(radius):
    side = 2 * radius + 1
    box = ndimage.uniform_filter(IMAGE, (side, side, 1), mode="reflect")
    np.testing.assert_allclose(filters.box_blur(IMAGE, jnp.float32(radius), 3), box, atol=1e-5)
    median = ndimage.median_filter(IMAGE, (side, side, 1), mode="reflect")
    np.testing.assert_array_equal(filters.median_blur(IMAGE, radius), median)


def test_noise_has_its_deviation():
    grey = np.full((100, 100, 3), 0.5, np.float32)
    noisy = filters.noise(grey, jax.random.key(0), jnp.float32(0.05)) - 0.5
    assert float(noisy.std()) == pytest.approx(0.05, rel=0.02)
    assert abs(float(noisy.mean())) < 0.001
    np.testing.assert_array_equal(filters.noise(IMAGE, jax.random.key(0), jnp.float32(0)), IMAGE)
    assert float(filters.noise(IMAGE, jax.random.key(0), jnp.float32(9)).min()) >= 0


def test_cutout_covers_a_square_as_far_as_there_is_an_image():
    ones = np.ones((40, 50, 3), np.float32)
    covered = np.asarray(filters.cutout(ones, jnp.float32(20), jnp.float32(25), jnp.float32(10), 0.25))
    np.testing.assert_array_equal(np.unique(covered), [0.25, 1])
    rows, columns = np.nonzero(covered[..., 0] < 1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 24, 20, 29)
    corner = np.asarray(filters.cutout(ones, jnp.float32(0), jnp.float32(0), jnp.float32(10), 0.0))
    assert (corner[..., 0] == 0).sum() == 25
    np.testing.assert_array_equal(filters.cutout(ones, jnp.float32(20), jnp.float32(25), jnp.float32(0), 0.0), ones)
