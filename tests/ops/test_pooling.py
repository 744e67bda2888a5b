"""Pooling against its definition, window by window."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops import pooling
from cnnjax.ops.pooling import (
    adaptive_average_pool,
    average_pool,
    channel_max_pool,
    global_average_pool,
    max_pool,
    sum_pool,
)

# For each pooling: its value over one window and channel, and that value's gradient.
DEFINITIONS = {
    max_pool: (np.max, lambda entries: entries == entries.max()),
    sum_pool: (np.sum, np.ones_like),
    average_pool: (np.mean, lambda entries: np.full_like(entries, 1 / entries.size)),
}


@pytest.mark.parametrize("pool", DEFINITIONS)
@pytest.mark.parametrize(
    ("size", "window", "stride"), [((6, 8), 2, 2), ((7, 9), 2, 2), ((9, 8), 3, 2), ((5, 6), 3, 1), ((9, 10), 2, 3)]
)
def test_values_and_gradients(pool, size, window, stride):
    value, slope = DEFINITIONS[pool]
    random = np.random.default_rng(0)
    x = random.normal(size=(2, *size, 3)).astype(np.float32)
    output_size = [(side - window) // stride + 1 for side in size]
    weights = random.normal(size=(2, *output_size, 3)).astype(np.float32)
    expected, expected_gradient = np.zeros_like(weights), np.zeros_like(x)
    for image, row, column, channel in np.ndindex(weights.shape):
        top, left = row * stride, column * stride
        place = (image, slice(top, top + window), slice(left, left + window), channel)
        expected[image, row, column, channel] = value(x[place])
        expected_gradient[place] += weights[image, row, column, channel] * slope(x[place])

    result, pull_back = jax.jit(lambda x: jax.vjp(lambda x: pool(x, window, stride), x))(x)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pull_back(weights)[0], expected_gradient, rtol=1e-5, atol=1e-6)


def xlas_maximum(x, window, stride):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, stride, stride, 1), "VALID")


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 1), (3, 2), (2, 3)])
def test_the_first_of_equal_entries_takes_the_gradient(window, stride):
    # Few different numbers: most windows hold their maximum several times.
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 9, 8, 3)), jnp.float32)
    ours, xlas = (
        jax.grad(lambda x, pool=pool: (pool(x, window, stride) ** 2).sum())(x) for pool in (max_pool, xlas_maximum)
    )
    np.testing.assert_array_equal(ours, xlas)


def test_nan_shows():
    assert np.isnan(max_pool(jnp.array([1.0, jnp.nan, 2.0, 3.0]).reshape(1, 2, 2, 1), 2, 2)).all()


@pytest.mark.parametrize("pool", DEFINITIONS)
def test_dtype_is_kept(pool):
    assert pool(jnp.ones((1, 4, 4, 1), jnp.bfloat16), 2, 2).dtype == jnp.bfloat16


def first_and_count(padding, size, window, stride):
    """Where the first window begins along one axis, and how many windows there are."""
    if padding == "ceil":
        return 0, -(-(size - window) // stride) + 1
    if padding == "same":
        count = -(-size // stride)
        return -(max((count - 1) * stride + window - size, 0) // 2), count
    around = (window - 1) // 2 if padding == "symmetric" else padding
    return -around, (size + 2 * around - window) // stride + 1


PADDED = [
    *(("same", size, window, stride) for size, window, stride in [((6, 7), 3, 2), ((5, 6), 3, 1)]),
    *(("symmetric", size, window, stride) for size, window, stride in [((6, 7), 3, 2), ((5, 6), 5, 1)]),
    *(("ceil", size, window, stride) for size, window, stride in [((6, 7), 3, 2), ((7, 5), 2, 2)]),
    *((1, size, window, stride) for size, window, stride in [((4, 5), 2, 2)]),
]


@pytest.mark.parametrize("pool", DEFINITIONS)
@pytest.mark.parametrize(("padding", "size", "window", "stride"), PADDED)
def test_padding_is_no_part_of_a_window(pool, padding, size, window, stride):
    value, slope = DEFINITIONS[pool]
    random = np.random.default_rng(1)
    # All negative: a maximum over padding with zeros would show.
    x = -1 - random.uniform(size=(2, *size, 3)).astype(np.float32)
    (top, rows), (left, columns) = (first_and_count(padding, side, window, stride) for side in size)
    weights = random.normal(size=(2, rows, columns, 3)).astype(np.float32)
    expected, expected_gradient = np.zeros_like(weights), np.zeros_like(x)
    for image, row, column, channel in np.ndindex(weights.shape):
        y, z = top + row * stride, left + column * stride
        place = (image, slice(max(y, 0), y + window), slice(max(z, 0), z + window), channel)
        expected[image, row, column, channel] = value(x[place])
        expected_gradient[place] += weights[image, row, column, channel] * slope(x[place])

    @jax.jit
    def both(x, weights):
        result, pull_back = jax.vjp(lambda x: pool(x, window, stride, padding), x)
        return result, pull_back(weights)[0]

    result, gradient = both(x, weights)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("padding", "size", "window", "stride"), PADDED)
def test_counted_padding_divides_by_the_whole_window(padding, size, window, stride):
    x = np.random.default_rng(2).normal(size=(2, *size, 3)).astype(np.float32)

    @jax.jit
    def both(x):
        # What lies beyond the image under `ceil` never counts.
        other = average_pool(x, window, stride, padding) if padding == "ceil" else sum_pool(x, window, stride, padding)
        return average_pool(x, window, stride, padding, count_padding=True), other

    result, other = both(x)
    np.testing.assert_allclose(result, other if padding == "ceil" else other / window**2, rtol=1e-5, atol=1e-6)


def test_amounts_of_padding_may_differ_on_all_sides():
    x = np.arange(1.0, 13, dtype=np.float32).reshape(1, 3, 4, 1)
    result = sum_pool(x, 2, 2, ((1, 0), (0, 2)))
    np.testing.assert_array_equal(result[0, ..., 0], [[3, 7, 0], [30, 38, 0]])


@pytest.mark.parametrize(
    ("old", "new"),
    [((7, 7), (1, 1)), ((13, 4), (3, 2)), ((5, 8), (6, 6)), ((6, 6), (7, 7)), ((1, 3), (7, 7)), ((7, 7), (7, 7))],
)
def test_adaptive_average_is_the_mean_of_each_bin(old, new):
    x = np.random.default_rng(3).normal(size=(2, *old, 3)).astype(np.float32)
    expected = np.zeros((2, *new, 3))
    for row, column in np.ndindex(new):
        rows = slice(row * old[0] // new[0], -(-(row + 1) * old[0] // new[0]))
        columns = slice(column * old[1] // new[1], -(-(column + 1) * old[1] // new[1]))
        expected[:, row, column] = x[:, rows, columns].mean((1, 2))
    result = jax.jit(lambda x: adaptive_average_pool(x, new))(x)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_adaptive_average_leaves_a_map_of_that_size_alone():
    x = jnp.arange(12.0).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(adaptive_average_pool(x, (2, 3)), x)
    assert adaptive_average_pool(x.astype(jnp.bfloat16), (1, 5)).dtype == jnp.bfloat16


def test_global_average_is_the_mean_over_positions():
    x = np.random.default_rng(4).normal(size=(2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(global_average_pool(jnp.asarray(x)), x.reshape(2, 15, 4).mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: global_average_pool(x).sum())(x), 1 / 15, rtol=1e-6)


def test_channel_max_takes_runs_of_neighbouring_channels():
    x = jnp.asarray([3.0, 1.0, 2.0, -5.0, -4.0, -6.0]).reshape(1, 1, 1, 6)
    np.testing.assert_array_equal(channel_max_pool(x, 3)[0, 0, 0], [3, -4])
    np.testing.assert_array_equal(channel_max_pool(x, 2)[0, 0, 0], [3, 2, -4])
    np.testing.assert_array_equal(channel_max_pool(x, 1), x)
    np.testing.assert_array_equal(jax.grad(lambda x: channel_max_pool(x, 3).sum())(x)[0, 0, 0], [1, 0, 0, 0, 1, 0])
    with pytest.raises(ValueError, match="6 channels cannot be cut into runs of 4"):
        channel_max_pool(x, 4)


def test_gradients_of_runs_ask_for_no_equality_with_the_result():
    """A compiler may round an entry otherwise in the backward pass, and its gradient would be lost."""
    x = jnp.ones((1, 7, 7, 4))
    assert "= eq " not in str(jax.make_jaxpr(jax.grad(lambda x: channel_max_pool(x, 2).sum()))(x))
    # As it would be written with what compares so.
    assert "= eq " in str(jax.make_jaxpr(jax.grad(lambda x: jnp.maximum(x[:, 1:], x[:, :-1]).sum()))(x))


def test_the_gradient_does_not_ask_the_entries_again():
    """A compiler may round them otherwise in the backward pass: what equalled the maximum does so no more."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 9, 4)), jnp.float32)
    how = (3, 2, ((1, 1), (1, 1)))
    result, (kept, place) = pooling._largest_forward(x, *how)
    found = pooling._largest_back(*how, (jnp.full_like(kept, jnp.nan), place), jnp.ones_like(result))[0]
    np.testing.assert_array_equal(found, jax.grad(lambda x: max_pool(x, 3, 2, 1).sum())(x))
    assert found.sum() == result.size


def test_a_large_window_knows_its_places_in_bfloat16():
    place = 301  # of 324, and no bfloat16
    x = jnp.zeros(324).at[place].set(1).reshape(1, 18, 18, 1)
    gradient = jax.jit(jax.grad(lambda x: max_pool(x.astype(jnp.bfloat16), 18, 18).astype(jnp.float32).sum()))(x)
    assert gradient.ravel()[place] == gradient.sum() == 1


@pytest.mark.parametrize(("pool", "start", "joint"), [(max_pool, -jnp.inf, jax.lax.max), (sum_pool, 0.0, jax.lax.add)])
def test_pools_are_xlas_own_on_accelerators(pool, start, joint):
    def xlas(x):
        pads = ((0, 0), (1, 1), (1, 1), (0, 0))
        return jax.lax.reduce_window(x, start, joint, (1, 3, 3, 1), (1, 2, 2, 1), pads)

    def operations(pool, platform):
        step = jax.jit(jax.value_and_grad(lambda x: (pool(x) ** 2).sum()))
        exported = jax.export.export(step, platforms=[platform])(jax.ShapeDtypeStruct((2, 9, 9, 4), jnp.float32))
        found = re.findall(r"stablehlo\.\w+", exported.mlir_module())
        # A platform's branch is a case of one.
        aside = ("case", "return", "constant", "broadcast_in_dim")
        return collections.Counter(each for each in found if not each.endswith(aside))

    def ours(x):
        return pool(x, 3, 2, 1)

    for platform in ("tpu", "cuda"):
        assert operations(ours, platform) == operations(xlas, platform)
    assert "stablehlo.reduce_window" not in operations(ours, "cpu")


def test_second_derivatives_of_a_maximum():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 7, 3)), jnp.float32)

    def squared_slope(pool):
        return jax.grad(lambda x: (jax.grad(lambda x: (pool(x, 3, 2) ** 3).sum())(x) ** 2).sum())(x)

    np.testing.assert_allclose(squared_slope(max_pool), squared_slope(xlas_maximum), rtol=1e-5, atol=1e-5)
