"""Entries of a config as functions: every kind keeps its range, its shape and its key, and masks follow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import TypeAdapter
from sklearn.datasets import load_sample_image

from cnnjax.augment import geometry
from cnnjax.augment.pipeline import make_change
from cnnjax.config_augment import AnyAugmentation, ImageAugmentation, Warp

IMAGE = (load_sample_image("china.jpg")[150:182, 300:340] / 255).astype(np.float32)
LABELS = np.random.default_rng(0).integers(0, 5, IMAGE.shape[:2]).astype(np.int32)
KINDS = {kind.model_fields["kind"].annotation.__args__[0]: kind for kind in ImageAugmentation.__args__}
# For each kind the values at which it does nothing.
NOTHING = {
    "flip": {"horizontal": 0, "vertical": 0},
    "rotation": {"degrees": (0, 0)},
    "translation": {"vertical": (0, 0), "horizontal": (0, 0)},
    "shear": {"vertical": (0, 0), "horizontal": (0, 0)},
    "zoom": {"factor": (1, 1)},
    **{kind: {"factor": (1, 1)} for kind in ("brightness", "contrast", "saturation", "sharpen")},
    "hue": {"turns": (0, 0)},
    "colour_jitter": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0},
    "lighting": {"deviation": 0},
    **{kind: {"amount": (0, 0)} for kind in ("channel_shift", "rgb_shift")},
    "gamma": {"exponent": (1, 1)},
    "gaussian_blur": {"deviation": (1e-3, 1e-3)},
    "box_blur": {"radius": (0, 0)},
    "noise": {"deviation": (0, 0)},
    "cutout": {"side": 0},
}
GEOMETRIC = {"flip", "crop", "rotation", "translation", "shear", "zoom", "rand_augment", "trivial_augment"}


def entry(kind: str, **fields):
    return TypeAdapter(AnyAugmentation).validate_python({"kind": kind, **fields})


@functools.cache
def changed(kind: str, channels: int = 3):
    """Forty images and their labels, changed with a key each."""
    keys = jax.random.split(jax.random.key(0), 40)
    change = make_change([entry(kind)])
    return jax.jit(jax.vmap(lambda key: change(key, IMAGE[..., :channels], LABELS)))(keys)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_range_and_shape_are_kept(kind, channels):
    images, labels = changed(kind, channels)
    assert images.shape == (40, *IMAGE.shape[:2], channels)
    assert images.dtype == np.float32
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1 + 1e-6
    assert np.isfinite(np.asarray(images)).all()
    assert (labels.shape, labels.dtype) == ((40, *LABELS.shape), np.int32)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_decide(kind):
    images, labels = changed(kind)
    different = len({np.asarray(image).tobytes() for image in images})
    assert different >= (
        2 if kind in ("flip", "greyscale", "equalize", "box_blur") else 1 if kind == "median_blur" else 10
    )
    one = jax.jit(make_change([entry(kind)]))(jax.random.split(jax.random.key(0), 40)[7], IMAGE, LABELS)
    np.testing.assert_allclose(one[0], images[7], atol=2e-6)  # alone as among others
    np.testing.assert_array_equal(one[1], labels[7])


@pytest.mark.parametrize("kind", KINDS)
def test_labels_follow_geometry_and_nothing_else(kind):
    _, labels = changed(kind)
    moved = [not np.array_equal(each, LABELS) for each in labels]
    assert any(moved) == (kind in GEOMETRIC)


@pytest.mark.parametrize("kind", NOTHING)
def test_zero_strength_is_the_identity(kind):
    image, labels = jax.jit(make_change([entry(kind, **NOTHING[kind])]))(jax.random.key(3), IMAGE, LABELS)
    np.testing.assert_allclose(image, IMAGE, atol=2e-6)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("kind", [kind for kind, fields in KINDS.items() if "probability" in fields.model_fields])
def test_probability_zero_is_the_identity(kind):
    image, labels = jax.jit(make_change([entry(kind, probability=0)]))(jax.random.key(3), IMAGE, LABELS)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("kind", sorted(GEOMETRIC - {"trivial_augment"}))
def test_a_mask_goes_where_its_image_goes(kind):
    """An image that shows its labels shows the changed labels, but for pixels between two."""
    shown = np.kron(np.eye(2), np.ones((16, 20))).astype(np.int32)  # large fields: few pixels are at an edge
    image = np.repeat(shown[..., None], 3, -1).astype(np.float32)
    fields = {"value": 0.0} if "value" in KINDS[kind].model_fields else {}
    geometric = {"magnitude": 9.0, **fields} if kind == "rand_augment" else fields
    keys = jax.random.split(jax.random.key(1), 20)
    images, labels = jax.jit(jax.vmap(lambda key: make_change([entry(kind, **geometric)])(key, image, shown)))(keys)
    sharp = (images[..., 0] < 0.01) | (images[..., 0] > 0.99)
    agrees = (images[..., 0] > 0.5) == (labels == 1)
    share = np.asarray((agrees | ~sharp).mean((1, 2)))
    assert np.median(share) > 0.99


def test_warps_that_follow_each_other_are_one():
    entries = [entry("rotation", degrees=(30, 30)), entry("translation", vertical=(0.25, 0.25), horizontal=(0, 0))]
    together, labels = make_change(entries)(jax.random.key(0), IMAGE, LABELS)
    matrix = geometry.rotation(jnp.float32(30)) @ geometry.translation(jnp.float32(8), jnp.float32(0))
    np.testing.assert_allclose(together, geometry.warp(IMAGE, matrix), atol=1e-5)
    np.testing.assert_array_equal(labels, geometry.warp_labels(LABELS, matrix))
    text = str(jax.make_jaxpr(make_change(entries))(jax.random.key(0), IMAGE, None))
    alone = str(jax.make_jaxpr(make_change(entries[:1]))(jax.random.key(0), IMAGE, None))
    assert text.count("gather[") == alone.count("gather[")
    assert all(isinstance(each, Warp) for each in entries)


def test_entries_draw_independently():
    twice = jax.jit(jax.vmap(lambda key: make_change([entry("flip"), entry("flip")])(key, IMAGE, None)[0]))
    images = twice(jax.random.split(jax.random.key(0), 64))
    same = sum(np.array_equal(image, IMAGE) for image in np.asarray(images))
    assert 16 < same < 48  # two that always agreed would undo each other


def test_mean_of_a_uniform_range():
    grey = np.full((4, 4, 3), 0.5, np.float32)
    keys = jax.random.split(jax.random.key(0), 4000)
    values = jax.vmap(lambda key: make_change([entry("channel_shift", amount=(-0.1, 0.3))])(key, grey, None)[0])(keys)
    drawn = np.asarray(values[:, 0, 0, 0]) - 0.5
    assert (drawn.min() > -0.1 - 1e-6, drawn.max() < 0.3 + 1e-6) == (True, True)
    assert abs(drawn.mean() - 0.1) < 0.01
