"""Inception modules: what their data means, and what their parameters are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.nn.branches import Branches, Conv, Fork, Pool
from cnnjax.nn.layers import ConvNorm, Layers, SqueezeExcite
from cnnjax.nn.rounding import stretch
from cnnjax.ops.pooling import average_pool, max_pool

LAYERS = Layers(train=False, norm="none")


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)


def random_params(module, x):
    """Random parameters of the module's own shapes."""
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes["params"])


def convolve(params, x, step):
    """What a convolution of the data is, as a layer."""
    layer = ConvNorm(LAYERS, step.features, step.kernel_size, step.stride, step.padding)
    return layer.apply({"params": params}, x)


def assert_computes(module, expected, params, x):
    """The module's output is that of a function of its parameters and its input; gives it."""
    both = jax.jit(lambda params, x: (module.apply({"params": params}, x), expected(params, x)))
    found, other = both(params, x)
    np.testing.assert_allclose(found, other, rtol=1e-5, atol=1e-5)
    return found


def test_branches_are_concatenated_in_their_order(x):
    conv, pool, row = Conv(4), Pool("max", 3, 2, "ceil"), Conv(5, (1, 3))
    module = Branches(LAYERS, (("b", (pool, conv)), ("a", (row, pool)), ("c", (pool,))))
    params = random_params(module, x)
    assert {name: sorted(params[name]) for name in params} == {"a": ["conv1"], "b": ["conv1"]}

    def expected(params, x):
        pooled = max_pool(x, 3, 2, "ceil")
        second = max_pool(convolve(params["a"]["conv1"], x, row), 3, 2, "ceil")
        return jnp.concatenate([convolve(params["b"]["conv1"], pooled, conv), second, pooled], -1)

    assert assert_computes(module, expected, params, x).shape == (2, 3, 3, 4 + 5 + 3)


@pytest.mark.parametrize(
    ("conv", "sides"), [(Conv(2, 3, 2), (4, 3)), (Conv(2, 3, 2, "valid"), (3, 2)), (Conv(2, 3, 1, "valid"), (5, 4))]
)
def test_convolutions_stride_and_pad_as_they_say(x, conv, sides):
    module = Branches(LAYERS, (("conv", (conv,)),))
    params = random_params(module, x)
    y = assert_computes(module, lambda params, x: convolve(params["conv"]["conv1"], x, conv), params, x)
    assert y.shape == (2, *sides, 2)


def test_a_branch_without_steps_passes_the_input_on(x):
    module = Branches(LAYERS, (("conv", (Conv(2),)), ("input", ())))
    params = random_params(module, x)
    assert set(params) == {"conv"}
    conv = lambda params, x: convolve(params["conv"]["conv1"], x, Conv(2))  # noqa: E731
    assert_computes(module, lambda params, x: jnp.concatenate([conv(params, x), x], -1), params, x)


def test_arms_of_a_fork_see_the_same_input(x):
    before, arms, after = Conv(4), (Conv(3, (1, 3)), Conv(2, (3, 1))), Conv(6)
    module = Branches(LAYERS, (("branch", (before, Fork(arms), Pool("average"), after)),))
    params = random_params(module, x)["branch"]
    assert sorted(params) == ["conv1", "conv2_arm1", "conv2_arm2", "conv3"]

    def expected(params, x):
        params = params["branch"]
        seen = convolve(params["conv1"], x, before)
        forked = [convolve(params[f"conv2_arm{index}"], seen, arm) for index, arm in enumerate(arms, 1)]
        return convolve(params["conv3"], average_pool(jnp.concatenate(forked, -1), 3, 1, "same"), after)

    assert_computes(module, expected, {"branch": params}, x)


@pytest.mark.parametrize(
    ("pool", "corner"),
    [
        (Pool("max"), 5.0),
        (Pool("average"), (0 + 1 + 4 + 5) / 4),
        (Pool("average", count_padding=True), (0 + 1 + 4 + 5) / 9),
        (Pool("average", 2, 2, "valid"), (0 + 1 + 4 + 5) / 4),
    ],
)
def test_pools(pool, corner):
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    y = pool(image)
    assert y.shape == ((1, 2, 2, 1) if pool.stride == 2 else (1, 4, 4, 1))
    np.testing.assert_allclose(y[0, 0, 0, 0], corner, rtol=1e-6)


@pytest.mark.parametrize(("ratio", "hidden"), [(4, 2), (100, 1)])
def test_squeeze_and_excitation_sees_all_branches(x, ratio, hidden):
    branches = (("first", (Conv(5),)), ("second", (Conv(4, 3),)))
    module = Branches(LAYERS, branches, se_ratio=ratio)
    params = random_params(module, x)
    assert params["squeeze_excite"]["reduce"]["kernel"].shape == (9, hidden)

    def expected(params, x):
        rest = {name: tree for name, tree in params.items() if name != "squeeze_excite"}
        y = Branches(LAYERS, branches).apply({"params": rest}, x)
        return SqueezeExcite(LAYERS, hidden).apply({"params": params["squeeze_excite"]}, y)

    assert_computes(module, expected, params, x)


@pytest.mark.parametrize(
    ("multiplier", "modules"),
    [
        (1.0, {"a": "a", "b": "b", "c": "c"}),
        (2.0, {"a": "a", "a_2": "a", "b": "b", "b_2": "b", "c": "c", "c_2": "c"}),
        (4 / 3, {"a": "a", "b": "b", "c": "c", "c_2": "c"}),
        (2 / 3, {"b": "b", "c": "c"}),
        (0.01, {"c": "c"}),
    ],
)
def test_a_stage_is_stretched_evenly(multiplier, modules):
    assert list(stretch(("a", "b", "c"), multiplier).items()) == list(modules.items())
