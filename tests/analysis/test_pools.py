"""Pools are found in traces, whatever their window, and nothing else is taken for one."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from cnnjax.analysis.equations import trace
from cnnjax.analysis.pools import find_pools
from cnnjax.nn.layers import Layers, SqueezeExcite
from cnnjax.ops import pooling
from cnnjax.ops.local_response import local_response_norm

IMAGES = jax.ShapeDtypeStruct((1, 12, 14, 4), jnp.float32)


def pools_of(function):
    traced = trace(function, IMAGES)
    return traced, list(find_pools(traced.equations).values())


@pytest.mark.parametrize("kind", ["max_pool", "average_pool", "sum_pool"])
@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [
        (2, 2, "valid"),
        (3, 2, "symmetric"),
        (3, 2, "ceil"),
        (3, 1, "same"),
        (2, 1, "valid"),
        (5, 3, 1),
        (12, 2, "valid"),
    ],
)
def test_pools_over_windows(kind, window, stride, padding):
    traced, pools = pools_of(lambda x: getattr(pooling, kind)(x, window, stride, padding))
    assert [(pool.kind, pool.window, pool.stride) for pool in pools] == [(kind, (window, window), (stride, stride))]
    assert pools[0].output is traced.outputs


@pytest.mark.parametrize("count_padding", [False, True])
def test_averages_are_told_whatever_they_are_divided_by(count_padding):
    traced, pools = pools_of(lambda x: pooling.average_pool(x, 3, 2, "symmetric", count_padding=count_padding))
    assert [pool.kind for pool in pools] == ["average_pool"]
    assert pools[0].output is traced.outputs


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (pooling.global_average_pool, "global_average_pool"),
        (lambda x: x.mean((1, 2), keepdims=True), "global_average_pool"),
        (lambda x: x.max((1, 2)), "global_max_pool"),
        (lambda x: x.sum((1, 2)), "global_sum_pool"),
    ],
)
def test_pools_over_all_positions(function, kind):
    traced, pools = pools_of(function)
    assert [(pool.kind, pool.window, pool.stride) for pool in pools] == [(kind, (12, 14), None)]
    assert pools[0].output is traced.outputs


@pytest.mark.parametrize(("function", "kind"), [(nn.max_pool, "max_pool"), (nn.avg_pool, "average_pool")])
def test_flax_pools_are_found_too(function, kind):
    _, pools = pools_of(lambda x: function(x, (3, 2), (2, 1)))
    assert [(pool.kind, pool.window, pool.stride) for pool in pools] == [(kind, (3, 2), (2, 1))]


def test_several_pools_come_in_their_order():
    def inception(x):
        x = pooling.max_pool(nn.relu(x), 3, 2, "same")
        pooled = pooling.average_pool(x, 3, 1, "same")
        return pooling.global_average_pool(jnp.concatenate([x, pooled], -1) + 1)

    traced = trace(inception, IMAGES)
    found = find_pools(traced.equations)
    assert [pool.kind for pool in found.values()] == ["max_pool", "average_pool", "global_average_pool"]
    assert list(found) == sorted(found)
    assert all(pool.output in traced.equations[index].outputs for index, pool in found.items())


@pytest.mark.parametrize(
    "function",
    [
        local_response_norm,
        lambda x: pooling.channel_max_pool(x, 2),
        lambda x: x[:, ::2, ::2],
        lambda x: x[:, 1:9, 1:9] + x[:, 4:12, 4:12],
        lambda x: x[:, :11, :11] + x[:, :11, :11],
        lambda x: jnp.maximum(x, 0) + x,
        lambda x: x.mean((1, 2, 3)),
        lambda x: x.mean(-1),
        lambda x: jax.image.resize(x, (1, 24, 28, 4), "nearest"),
    ],
)
def test_other_functions_are_no_pools(function):
    assert pools_of(function)[1] == []


def test_squeeze_and_excitation_begins_with_one():
    module = SqueezeExcite(Layers(train=False), 2)
    variables = jax.eval_shape(module.init, jax.random.key(0), IMAGES)
    found = find_pools(trace(module.apply, variables, IMAGES).equations).values()
    assert [pool.kind for pool in found] == ["global_average_pool"]


def test_a_choice_of_two_ways_to_pool_is_one_pool():
    def pool(x):
        return jax.lax.platform_dependent(
            x, cpu=lambda x: pooling.max_pool(x, 2, 2), default=lambda x: nn.max_pool(x, (2, 2), (2, 2))
        )

    assert [found.kind for found in pools_of(pool)[1]] == ["max_pool"]
