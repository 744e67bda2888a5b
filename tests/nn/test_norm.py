"""BatchNorm against Linen's own and against its definition, for each way of averaging."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.nn.layers import Layers
from cnnjax.nn.norm import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, BatchAveraging, BatchNorm

SHAPE = (8, 5, 4, 3)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(1.5, 2.0, SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def weights():
    """A loss that is not symmetric in the entries: their sum with these weights."""
    return np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    random = np.random.default_rng(2)
    return {
        "params": {name: random.normal(1, 0.5, 3).astype(np.float32) for name in ("scale", "bias")},
        "batch_stats": {
            "mean": random.normal(0, 1, 3).astype(np.float32),
            "var": random.uniform(0.5, 2, 3).astype(np.float32),
        },
    }


def train(layer, variables, x, weights, **call):
    """(output, running statistics after, gradients by parameters and input) of one training step."""

    def loss(params, x):
        y, updated = layer.apply({**variables, "params": params}, x, mutable=["batch_stats"], **call)
        return (y * weights).sum(), (y, updated["batch_stats"])

    run = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    gradients, (y, statistics) = run(variables["params"], x)
    return y, statistics, gradients


def assert_close(result, expected, rtol=1e-5, atol=1e-5):
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), result, expected)


def normalised(x, mean, var, variables):
    params = variables["params"]
    return (x - mean) / np.sqrt(var + BATCH_NORM_EPSILON) * params["scale"] + params["bias"]


def moved(variables, mean, var):
    """The running statistics after one step that saw these."""
    seen = {"mean": mean, "var": var}
    return {
        name: BATCH_NORM_MOMENTUM * old + (1 - BATCH_NORM_MOMENTUM) * seen[name]
        for name, old in variables["batch_stats"].items()
    }


def test_global_averaging_equals_linens(x, weights, variables):
    linens = nn.BatchNorm(use_running_average=False, momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON)
    assert_close(train(BatchNorm(), variables, x, weights, train=True), train(linens, variables, x, weights))


def test_evaluation_equals_linens_and_changes_nothing(x, variables):
    linens = nn.BatchNorm(use_running_average=True, epsilon=BATCH_NORM_EPSILON)
    y, updated = BatchNorm().apply(variables, x, train=False, mutable=["batch_stats"])
    np.testing.assert_allclose(y, linens.apply(variables, x), rtol=1e-5, atol=1e-5)
    assert_close(updated["batch_stats"], variables["batch_stats"], rtol=0, atol=0)
    stats = variables["batch_stats"]
    np.testing.assert_allclose(y, normalised(x, stats["mean"], stats["var"], variables), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "averaging", [BatchAveraging(groups=4), BatchAveraging(group_size=2), BatchAveraging(groups=99, group_size=2)]
)
def test_groups_are_normalised_one_by_one(averaging, x, weights, variables):
    y, statistics, gradients = train(BatchNorm(averaging), variables, x, weights, train=True)
    groups = x.reshape(4, 2, *SHAPE[1:])
    means, variances = groups.mean((1, 2, 3)), groups.var((1, 2, 3))
    expected = [normalised(*group, variables) for group in zip(groups, means, variances, strict=True)]
    np.testing.assert_allclose(y, np.concatenate(expected), rtol=1e-5, atol=1e-5)
    assert_close(statistics, moved(variables, means.mean(0), variances.mean(0)))

    # Groups do not see each other, so their gradients are those of four small batches.
    alone = [
        train(BatchNorm(), variables, x[part], weights[part], train=True)[2]
        for part in (slice(start, start + 2) for start in range(0, 8, 2))
    ]
    summed = jax.tree.map(lambda *leaves: sum(leaves), *(params for params, _ in alone))
    assert_close(gradients, (summed, np.concatenate([by_x for _, by_x in alone])), rtol=1e-4, atol=1e-4)


def test_frozen_trains_with_running_statistics_and_leaves_them(x, weights, variables):
    layer = BatchNorm(BatchAveraging(frozen=True))
    y, statistics, (by_params, by_x) = train(layer, variables, x, weights, train=True)
    stats = variables["batch_stats"]
    np.testing.assert_allclose(y, normalised(x, stats["mean"], stats["var"], variables), rtol=1e-5, atol=1e-5)
    assert_close(statistics, stats, rtol=0, atol=0)
    factor = variables["params"]["scale"] / np.sqrt(stats["var"] + BATCH_NORM_EPSILON)
    np.testing.assert_allclose(by_x, weights * factor, rtol=1e-5, atol=1e-6)
    assert np.any(by_params["scale"] != 0)


@pytest.mark.parametrize("mapping", ["vmap", "pmap"])
def test_an_axis_is_averaged_over(mapping, x, weights, variables):
    """Four parts of a batch that share statistics are the whole batch: values, statistics and gradients."""
    layer = BatchNorm(BatchAveraging(axis_name="data"))
    parts = x.reshape(4, 2, *SHAPE[1:])

    def part(x):
        y, updated = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        return y, updated["batch_stats"]

    mapped = jax.vmap(part, axis_name="data") if mapping == "vmap" else jax.pmap(part, axis_name="data")
    expected_y, expected_statistics, (_, expected_by_x) = train(BatchNorm(), variables, x, weights, train=True)
    y, statistics = mapped(parts)
    np.testing.assert_allclose(y.reshape(SHAPE), expected_y, rtol=1e-5, atol=1e-5)
    for device in range(4):
        assert_close(jax.tree.map(lambda leaf, index=device: leaf[index], statistics), expected_statistics)

    by_parts = jax.grad(lambda parts: (mapped(parts)[0].reshape(SHAPE) * weights).sum())(parts)
    np.testing.assert_allclose(by_parts.reshape(SHAPE), expected_by_x, rtol=1e-4, atol=1e-5)


def test_no_axis_means_no_averaging_over_it(x, variables):
    apply = functools.partial(BatchNorm().apply, train=True, mutable=["batch_stats"])
    parts = jax.vmap(lambda x: apply(variables, x)[0], axis_name="data")(x.reshape(4, 2, *SHAPE[1:]))
    grouped, _ = BatchNorm(BatchAveraging(groups=4)).apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(parts.reshape(SHAPE), grouped, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("averaging", [BatchAveraging(groups=8), BatchAveraging(axis_name="data")])
def test_initialisation_needs_no_groups_and_no_axis(averaging):
    variables = BatchNorm(averaging).init(jax.random.key(0), jnp.full((1, 2, 2, 3), 7.0), train=True)
    expected = {"params": {"scale": 1, "bias": 0}, "batch_stats": {"mean": 0, "var": 1}}
    for collection, leaves in expected.items():
        for name, value in leaves.items():
            np.testing.assert_array_equal(variables[collection][name], np.full(3, value, np.float32))


@pytest.mark.parametrize(
    ("averaging", "batch"),
    [(BatchAveraging(groups=3), 8), (BatchAveraging(group_size=3), 8), (BatchAveraging(group_size=16), 8)],
)
def test_uneven_groups_raise(averaging, batch):
    with pytest.raises(ValueError, match=f"a batch of {batch} cannot be cut into BatchNorm groups of "):
        averaging.count_groups(batch)


def test_bfloat16_keeps_statistics_in_float32(x, variables):
    layer = BatchNorm(dtype=jnp.bfloat16)
    small = jnp.asarray(x + 100, jnp.bfloat16)
    y, updated = layer.apply(variables, small, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(small, np.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {np.dtype("float32")}
    expected = moved(variables, exact.mean((0, 1, 2)), exact.var((0, 1, 2)))
    assert_close(updated["batch_stats"], expected, rtol=1e-3, atol=0)
    # bfloat16 cannot tell 100 from 100.4: a mean held in it would shift the output.
    by_hand = normalised(exact, exact.mean((0, 1, 2)), exact.var((0, 1, 2)), variables)
    np.testing.assert_allclose(np.asarray(y, np.float32), by_hand, atol=0.03)


@pytest.mark.parametrize("kept", [["scale"], ["bias"], []])
def test_scale_and_bias_can_be_left_out(kept, x):
    layer = BatchNorm(use_scale="scale" in kept, use_bias="bias" in kept)
    variables = layer.init(jax.random.key(0), x, train=False)
    assert list(variables.get("params", {})) == kept
    y, _ = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(y, (0, 1, 2)), 1, rtol=1e-4)


# Group and layer normalisation, which `Layers` chooses by name.


class Normalised(nn.Module):
    """One normalisation of a network's."""

    layers: Layers

    @nn.compact
    def __call__(self, x):
        return self.layers.normalize(x, name="norm")


def by_groups(x, groups, epsilon, params):
    """Each example's mean and variance over positions and the channels of a group (Wu and He 2018)."""
    cut = x.astype(np.float64).reshape(*x.shape[:3], groups, -1)
    mean, var = cut.mean((1, 2, 4), keepdims=True), cut.var((1, 2, 4), keepdims=True)
    return ((cut - mean) / np.sqrt(var + epsilon)).reshape(x.shape) * params["scale"] + params["bias"]


@pytest.mark.parametrize(
    ("norm", "channels", "groups"),
    [("group", 64, 32), ("group", 48, 24), ("group", 16, 16), ("group", 68, 17), ("group", 37, 1), ("layer", 64, 1)],
)
def test_group_and_layer_normalisation(norm, channels, groups):
    random = np.random.default_rng(4)
    x = random.normal(1.5, 2.0, (2, 3, 4, channels)).astype(np.float32)
    module = Normalised(Layers(train=True, norm=norm, norm_epsilon=0.1))
    params = {"norm": {name: random.normal(1, 0.5, channels).astype(np.float32) for name in ("scale", "bias")}}
    assert jax.tree.map(jnp.shape, module.init(jax.random.key(0), x)) == {"params": jax.tree.map(jnp.shape, params)}
    y = module.apply({"params": params}, x)
    np.testing.assert_allclose(y, by_groups(x, groups, 0.1, params["norm"]), rtol=1e-4, atol=1e-4)
    # Training or not, an example does not see the others.
    alone = Normalised(Layers(train=False, norm=norm, norm_epsilon=0.1)).apply({"params": params}, x[1:])
    np.testing.assert_allclose(alone, y[1:], rtol=1e-5, atol=1e-5)


def test_no_normalisation_is_the_input_itself(x):
    module = Normalised(Layers(train=True, norm="none"))
    assert module.init(jax.random.key(0), x) == {}
    np.testing.assert_array_equal(module.apply({}, x), x)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_group_normalisation_in_bfloat16_keeps_its_statistics_exact(norm):
    x = np.random.default_rng(5).normal(100, 1.0, (2, 3, 4, 64)).astype(jnp.bfloat16)
    module = Normalised(Layers(train=True, norm=norm, dtype=jnp.bfloat16))
    y, variables = module.init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    expected = by_groups(np.asarray(x, np.float32), 1 if norm == "layer" else 32, 1e-5, variables["params"]["norm"])
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, atol=0.05)
