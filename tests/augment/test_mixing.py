"""Mixup and CutMix: what is blended, and that labels are blended by as much."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.augment.mixing import mix
from cnnjax.config_augment import CutMix, Mixup

IMAGES = jnp.stack([jnp.zeros((20, 30, 3)), jnp.ones((20, 30, 3))])
KEYS = jax.random.split(jax.random.key(0), 300)


def mixed(entry, keys=KEYS, shares=(1.0, 1.0)):
    return jax.jit(jax.vmap(lambda key: mix(entry, key, IMAGES, jnp.array(shares))))(keys)


@pytest.mark.parametrize("entry", [Mixup(kind="mixup", alpha=0.4), CutMix(kind="cutmix")], ids=str)
def test_labels_are_mixed_by_as_much_as_images(entry):
    images, shares = mixed(entry)
    np.testing.assert_allclose(1 - images[:, 0].mean((1, 2, 3)), shares[:, 0], atol=1e-5)
    np.testing.assert_allclose(images[:, 1].mean((1, 2, 3)), shares[:, 1], atol=1e-5)
    np.testing.assert_allclose(shares[:, 0], shares[:, 1], atol=1e-6)
    # A rectangle that reaches beyond the border puts less of the other image in than was drawn.
    assert abs(float(shares.mean()) - (0.5 if isinstance(entry, Mixup) else 0.65)) < 0.06
    assert float(shares.std()) > 0.2


def test_mixup_draws_from_beta():
    _, shares = mixed(Mixup(kind="mixup", alpha=2.0), jax.random.split(jax.random.key(1), 4000))
    assert float(shares[:, 0].var()) == pytest.approx(1 / (4 * 5), rel=0.1)


def test_cutmix_puts_one_rectangle():
    images, _ = mixed(CutMix(kind="cutmix"))
    for image in np.asarray(images[:40, 0, :, :, 0]):
        rows, columns = np.nonzero(image)
        if rows.size:
            assert image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
            assert set(np.unique(image)) <= {0.0, 1.0}


def test_what_was_mixed_is_mixed_on():
    entry = Mixup(kind="mixup", alpha=1.0)
    plain = mixed(entry)[1][:, 0]
    _, shares = mixed(entry, shares=(0.75, 0.75))
    np.testing.assert_allclose(shares[:, 0], 0.75 * plain + 0.25 * (1 - plain), atol=1e-6)


def test_probability_zero_leaves_all():
    images, shares = mixed(CutMix(kind="cutmix", probability=0))
    np.testing.assert_array_equal(images, jnp.broadcast_to(IMAGES, images.shape))
    np.testing.assert_array_equal(shares, np.ones_like(shares))
