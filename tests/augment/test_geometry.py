"""Where pixels go, against SciPy and Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_image

from cnnjax.augment import geometry

PHOTOGRAPH = load_sample_image("flower.jpg")[100:164, 200:250].astype(np.float32) / 255
LABELS = np.random.default_rng(0).integers(0, 5, PHOTOGRAPH.shape[:2]).astype(np.int32)
# What SciPy calls them; "wrap" and "constant" there are of a grid whose last points are the border.
MODES = {"constant": "grid-constant", "nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap"}
# No position lies halfway between two pixels, where SciPy and JAX choose different ones.
MATRICES = {
    "rotation": geometry.rotation(jnp.float32(33)),
    "far": geometry.translation(jnp.float32(70.3), jnp.float32(-55.2)),
    "shear": geometry.shear(jnp.float32(10), jnp.float32(-20)),
    "zoom": geometry.zoom(jnp.float32(0.4637), jnp.float32(1.7321)),
}


@pytest.mark.parametrize("fill", MODES)
@pytest.mark.parametrize("name", MATRICES)
def test_warp_samples_as_scipy(name, fill):
    matrix = np.asarray(MATRICES[name], np.float64)
    middle = (np.array(PHOTOGRAPH.shape[:2]) - 1) / 2
    offset = middle + matrix[:2, 2] - matrix[:2, :2] @ middle
    for channel in range(3):
        expected = ndimage.affine_transform(
            PHOTOGRAPH[..., channel], matrix[:2, :2], offset, order=1, mode=MODES[fill], cval=0.25
        )
        found = geometry.warp(PHOTOGRAPH, MATRICES[name], fill=fill, value=0.25)[..., channel]
        np.testing.assert_allclose(found, expected, atol=2e-4)
    labels = ndimage.affine_transform(LABELS, matrix[:2, :2], offset, order=0, mode=MODES[fill])
    assert np.mean(geometry.warp_labels(LABELS, MATRICES[name], fill=fill) != labels) < 0.01  # halfway positions


def test_turns_are_counter_clockwise_as_pillows():
    image = Image.fromarray((PHOTOGRAPH[:50, :50] * 255).astype(np.uint8))
    expected = np.asarray(image.rotate(30, Image.Resampling.BILINEAR), np.float32) / 255
    found = np.asarray(geometry.warp(PHOTOGRAPH[:50, :50], geometry.rotation(jnp.float32(30))))
    inside = np.hypot(*np.meshgrid(np.arange(50) - 24.5, np.arange(50) - 24.5)) < 20
    assert np.abs(found - expected)[inside].mean() < 0.01
    quarter = geometry.warp(PHOTOGRAPH[:50, :50], geometry.rotation(jnp.float32(90)))
    np.testing.assert_allclose(quarter, np.rot90(PHOTOGRAPH[:50, :50]), atol=1e-5)


def test_moves_go_down_and_right_and_zooming_enlarges():
    moved = geometry.warp(PHOTOGRAPH, geometry.translation(jnp.float32(3), jnp.float32(5)))
    np.testing.assert_allclose(moved[3:, 5:], PHOTOGRAPH[:-3, :-5], atol=1e-5)
    assert not np.any(moved[:3])
    assert not np.any(moved[:, :5])
    dot = np.zeros((9, 9, 1), np.float32)
    dot[3, 4] = 1
    enlarged = geometry.warp(dot, geometry.zoom(jnp.float32(2), jnp.float32(2)))[..., 0]
    assert float(enlarged.sum()) == pytest.approx(4)
    assert float(enlarged[2, 4]) == 1  # twice as far from the middle
    sheared = geometry.warp(PHOTOGRAPH, geometry.shear(jnp.float32(0), jnp.float32(45)), fill="wrap")
    np.testing.assert_allclose(
        sheared[-1], np.roll(PHOTOGRAPH[-1], -31, 0) * 0.5 + np.roll(PHOTOGRAPH[-1], -32, 0) * 0.5, atol=1e-4
    )


@pytest.mark.parametrize("fill", MODES)
def test_nothing_is_changed_by_nothing(fill):
    zero, one = jnp.float32(0), jnp.float32(1)
    for matrix in (
        geometry.identity(), geometry.rotation(zero), geometry.translation(zero, zero),
        geometry.shear(zero, zero), geometry.zoom(one, one),
    ):  # fmt: skip
        np.testing.assert_array_equal(geometry.warp(PHOTOGRAPH, matrix, fill=fill, value=0.5), PHOTOGRAPH)
        np.testing.assert_array_equal(geometry.warp_labels(LABELS, matrix, fill=fill), LABELS)
    no = jnp.array(False)
    np.testing.assert_array_equal(geometry.flip(PHOTOGRAPH, vertical=no, horizontal=no), PHOTOGRAPH)
    middle = geometry.shift_crop(PHOTOGRAPH, 3, 3, 3, fill=fill, value=0.5)
    np.testing.assert_array_equal(middle, PHOTOGRAPH)


def test_flips_are_numpys():
    for vertical in (False, True):
        for horizontal in (False, True):
            expected = PHOTOGRAPH[:: -1 if vertical else 1, :: -1 if horizontal else 1]
            flipped = geometry.flip(PHOTOGRAPH, vertical=jnp.array(vertical), horizontal=jnp.array(horizontal))
            np.testing.assert_array_equal(flipped, expected)


@pytest.mark.parametrize(("fill", "mode"), [("nearest", "edge"), ("reflect", "symmetric"), ("wrap", "wrap")])
def test_crops_are_cut_from_the_padded_image(fill, mode):
    padded = np.pad(PHOTOGRAPH, ((4, 4), (4, 4), (0, 0)), mode)
    cut = jax.jit(lambda top, left: geometry.shift_crop(PHOTOGRAPH, top, left, 4, fill=fill))(8, 1)
    np.testing.assert_array_equal(cut, padded[8 : 8 + 64, 1 : 1 + 50])
    labels = geometry.shift_crop(LABELS, 8, 1, 4, fill=fill)
    np.testing.assert_array_equal(labels, np.pad(LABELS, 4, mode)[8 : 8 + 64, 1 : 1 + 50])
    assert float(geometry.shift_crop(PHOTOGRAPH, 0, 0, 4, value=0.3)[:4].min()) == pytest.approx(0.3)
