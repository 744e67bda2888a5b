"""What is done to images equals torchvision's functions of the same name, or its own of bytes where it has no other."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from cnnjax.augment import colour, filters, geometry

pytest.importorskip("torch", reason="needs the extra `parity`")
pytest.importorskip("torchvision", reason="needs the extra `parity`")
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as theirs

pytestmark = pytest.mark.parity

BYTES = load_sample_image("china.jpg")[150:214, 300:350]
IMAGE = BYTES.astype(np.float32) / 255
# Of pixels, whose values are between 0 and 1.
EXACT = 1e-5
# Its weight of red is 0.2989, and ours ITU-R 601's 0.299.
LUMA = 1.01e-4


def as_torch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def as_array(image: torch.Tensor) -> np.ndarray:
    array = image.numpy().transpose(1, 2, 0)
    return array.astype(np.float32) / 255 if array.dtype == np.uint8 else array


@pytest.mark.parametrize("amount", [0.0, 0.3, 1.0, 1.8])
@pytest.mark.parametrize(
    ("ours", "peer", "tolerance"),
    [
        (colour.brightness, theirs.adjust_brightness, EXACT),
        (colour.contrast, theirs.adjust_contrast, LUMA),
        (colour.saturation, theirs.adjust_saturation, LUMA),
        (filters.sharpen, theirs.adjust_sharpness, EXACT),
        (colour.gamma, theirs.adjust_gamma, EXACT),
    ],
    ids=["brightness", "contrast", "saturation", "sharpen", "gamma"],
)
def test_factors(ours, peer, tolerance, amount):
    expected = as_array(peer(as_torch(IMAGE), amount))
    np.testing.assert_allclose(ours(IMAGE, jnp.float32(amount)), expected, atol=tolerance * abs(1 - amount) + EXACT)


@pytest.mark.parametrize("turns", [-0.4, 0.0, 0.1, 0.5])
def test_hue(turns):
    expected = as_array(theirs.adjust_hue(as_torch(IMAGE), turns))
    np.testing.assert_allclose(colour.hue(IMAGE, jnp.float32(turns)), expected, atol=EXACT)


def test_changes_without_a_number():
    for ours, peer in (
        (colour.invert, theirs.invert),
        (colour.autocontrast, theirs.autocontrast),
        (lambda image: image[:, ::-1], theirs.horizontal_flip),
        (lambda image: image[::-1], theirs.vertical_flip),
    ):
        np.testing.assert_allclose(ours(IMAGE), as_array(peer(as_torch(IMAGE))), atol=EXACT)
    np.testing.assert_allclose(colour.equalize(IMAGE), as_array(theirs.equalize(as_torch(BYTES))), atol=EXACT)
    np.testing.assert_allclose(colour.grey(IMAGE), as_array(theirs.rgb_to_grayscale(as_torch(IMAGE), 3)), atol=LUMA)


def test_posterize_and_solarize():
    for bits in (1, 4, 7):
        expected = as_array(theirs.posterize(as_torch(BYTES), bits))
        np.testing.assert_allclose(colour.posterize(IMAGE, jnp.float32(bits)), expected, atol=EXACT)
    expected = as_array(theirs.solarize(as_torch(IMAGE), 0.4))
    np.testing.assert_allclose(colour.solarize(IMAGE, jnp.float32(0.4)), expected, atol=EXACT)


@pytest.mark.parametrize("deviation", [0.5, 1.5])
def test_gaussian_blur(deviation):
    radius = 5
    expected = as_array(theirs.gaussian_blur(as_torch(IMAGE), [2 * radius + 1] * 2, [deviation] * 2))
    found = np.asarray(filters.gaussian_blur(IMAGE, jnp.float32(deviation), radius))
    inner = slice(radius, -radius)  # beyond the border torchvision does not double the last pixel
    np.testing.assert_allclose(found[inner, inner], expected[inner, inner], atol=EXACT)


MOVES = {
    "rotation": (geometry.rotation(jnp.float32(33)), {"angle": -33.0}),
    "translation": (geometry.translation(jnp.float32(3), jnp.float32(-7)), {"translate": [-7, 3]}),
    "zoom": (geometry.zoom(jnp.float32(1.3), jnp.float32(1.3)), {"scale": 1.3}),
    "horizontal shear": (geometry.shear(jnp.float32(0), jnp.float32(20)), {"shear": [20.0, 0.0]}),
    "vertical shear": (geometry.shear(jnp.float32(10), jnp.float32(0)), {"shear": [0.0, 10.0]}),
}


@pytest.mark.parametrize("name", MOVES)
def test_affine(name):
    matrix, change = MOVES[name]
    arguments = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **change}
    expected = theirs.affine(as_torch(IMAGE), **arguments, interpolation=InterpolationMode.BILINEAR)
    np.testing.assert_allclose(geometry.warp(IMAGE, matrix), as_array(expected), atol=2e-4)
