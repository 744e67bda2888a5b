"""Concatenation of channels, and where its gradient is made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops.concatenate import concatenate


def test_maps_lie_side_by_side_and_each_gets_its_part_of_the_gradient():
    random = np.random.default_rng(0)
    maps = tuple(random.normal(size=(2, 3, 4, channels)).astype(np.float32) for channels in (1, 3, 2))
    result, pull_back = jax.vjp(concatenate, maps)
    np.testing.assert_array_equal(result, np.concatenate(maps, -1))
    weights = random.normal(size=result.shape).astype(np.float32)
    for found, expected in zip(pull_back(weights)[0], np.split(weights, [1, 4], -1), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("platform", "made_apart"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_only_on_cpus_is_the_gradient_made_apart(platform, made_apart):
    gradient = jax.jit(jax.grad(lambda maps: jnp.sin(concatenate(maps)).sum()))
    module = gradient.trace((jnp.ones((2, 3)), jnp.ones((2, 4)))).lower(lowering_platforms=(platform,)).as_text()
    assert ("optimization_barrier" in module) is made_apart
