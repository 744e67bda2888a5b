"""A stage is its blocks one after the other, however it is compiled; stacked parameters are those of its blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.nn.stage import Stage, linear_drop_rates, stack_blocks, unstack_blocks


class Toy(nn.Module):
    """A block with a parameter, a statistic and noise: (noise - x) * weight + shift + drop rate."""

    features: int
    shift: float = 0.0
    noise: bool = False

    @nn.compact
    def __call__(self, x, drop_rate):
        """(batch, inputs) to (batch, features)."""
        weight = self.param("weight", nn.initializers.normal(1.0), (x.shape[-1], self.features))
        calls = self.variable("batch_stats", "calls", jnp.zeros, ())
        if not self.is_initializing():
            calls.value += 1 + self.shift
        noise = jax.random.normal(self.make_rng("dropout"), x.shape) if self.noise else 0.0
        return jnp.tanh((noise - x) @ weight) + self.shift + (0.0 if drop_rate is None else drop_rate)


def blocks(*shifts, features=4, **fields):
    return tuple(functools.partial(Toy, features=features, shift=shift, **fields) for shift in shifts)


X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def initialise(stage, x=X):
    return stage.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x)


@pytest.mark.parametrize(
    ("shifts", "names"),
    [
        ((0.0,), ["block1"]),
        ((0.0, 0.0), ["block1", "block2"]),
        ((0.0, 0.0, 0.0), ["block1", "block2to3"]),
        ((0.0,) * 7, ["block1", "block2to7"]),
        # Runs of equal blocks; the first block stands alone even where it is equal.
        ((1.0, 0.0, 0.0, 2.0, 3.0, 3.0, 3.0), ["block1", "block2to3", "block4", "block5to7"]),
    ],
)
def test_a_scanned_run_is_one_module(shifts, names):
    scanned = initialise(Stage(blocks(*shifts), scan=True))["params"]
    assert list(scanned) == names
    assert list(initialise(Stage(blocks(*shifts)))["params"]) == [f"block{n}" for n in range(1, len(shifts) + 1)]
    for name, params in scanned.items():
        first, _, last = name.removeprefix("block").partition("to")
        run = (int(last) - int(first) + 1,) if last else ()
        assert params["weight"].shape == (*run, 4, 4)


def test_the_blocks_of_a_run_start_differently():
    weights = initialise(Stage(blocks(*(0.0,) * 5), scan=True))["params"]["block2to5"]["weight"]
    assert len(np.unique(weights)) == weights.size


@pytest.mark.parametrize("drop_rates", [None, (0.0, 0.1, 0.2, 0.4, 0.8)])
@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("scan", [False, True])
def test_output_gradient_and_statistics_are_those_of_the_blocks(scan, remat, drop_rates):
    shifts = (0.5, 0.0, 0.0, 0.0, 0.5)
    stage = Stage(blocks(*shifts), drop_rates, remat=remat, scan=scan)
    variables = initialise(stage)
    weights = [unstack_blocks(variables)["params"][f"block{n}"]["weight"] for n in range(1, 6)]

    def apply(params, x):
        y, changed = stage.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.square(y).sum(), (y, changed)

    def by_hand(weights, x):
        for weight, shift, rate in zip(weights, shifts, drop_rates or (0.0,) * 5, strict=True):
            x = jnp.tanh(-x @ weight) + shift + rate
        return jnp.square(x).sum(), x

    (by_params, by_x), (y, changed) = jax.jit(jax.grad(apply, (0, 1), has_aux=True))(variables["params"], X)
    (expected_by_weights, expected_by_x), expected = jax.grad(by_hand, (0, 1), has_aux=True)(weights, X)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(y, expected)
    close(by_x, expected_by_x)
    for number, weight in enumerate(expected_by_weights, 1):
        close(unstack_blocks(by_params)[f"block{number}"]["weight"], weight)
    calls = unstack_blocks(changed)["batch_stats"]
    assert [float(calls[f"block{number}"]["calls"]) for number in range(1, 6)] == [1.5, 1, 1, 1, 1.5]


@pytest.mark.parametrize(("scan", "remat", "times"), [(False, True, 5), (True, True, 2), (True, False, 0)])
def test_remat_wraps_each_block(scan, remat, times):
    stage = Stage(blocks(*(0.0,) * 5), remat=remat, scan=scan)
    variables = initialise(stage)
    apply = functools.partial(stage.apply, mutable=["batch_stats"])
    jaxpr = str(jax.make_jaxpr(lambda variables: apply(variables, X)[0])(variables))
    assert jaxpr.count("remat") + jaxpr.count("checkpoint[") == times


def test_each_block_of_a_run_draws_its_own_numbers():
    """Two blocks y = noise - x: equal noise would cancel."""
    stage = Stage(blocks(0.0, 0.0, 0.0, noise=True), scan=True)
    variables = initialise(stage)
    # The blocks of the run pass on what they see, through tanh at a small scale.
    identity = {"weight": jnp.broadcast_to(jnp.eye(4) * 1e-3, (2, 4, 4))}
    params = {"block1": {"weight": jnp.zeros((4, 4))}, "block2to3": identity}
    y = stage.apply({**variables, "params": params}, X, rngs={"dropout": jax.random.key(3)}, mutable=["batch_stats"])[0]
    first_alone = 1e-3 * jnp.abs(y).max()
    assert jnp.abs(y).max() > 1e-4
    assert first_alone > 0
    again = stage.apply(
        {**variables, "params": params}, X, rngs={"dropout": jax.random.key(4)}, mutable=["batch_stats"]
    )[0]
    assert not np.allclose(y, again, atol=1e-6)


@pytest.mark.parametrize("shifts", [(0.0,) * 4, (1.0, 0.0, 0.0, 2.0, 3.0, 3.0), (0.0, 1.0)])
def test_stacking_undoes_unstacking(shifts):
    scanned = initialise(Stage(blocks(*shifts), scan=True))
    tree = {"params": {"stem": {"kernel": X}, "stage1": scanned["params"]}, "batch_stats": scanned["batch_stats"]}
    plain = unstack_blocks(tree)
    assert list(plain["params"]["stage1"]) == [f"block{n}" for n in range(1, len(shifts) + 1)]
    np.testing.assert_array_equal(plain["params"]["stem"]["kernel"], X)
    back = stack_blocks(plain, tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_unstacking_keeps_the_order_of_the_blocks():
    tree = {"block1": {"w": np.float32(1)}, "block2to4": {"w": np.array([2, 3, 4], np.float32)}}
    assert {name: float(block["w"]) for name, block in unstack_blocks(tree).items()} == {
        f"block{number}": number for number in (1, 2, 3, 4)
    }


def test_drop_rates_grow_linearly_over_all_stages():
    rates = linear_drop_rates(0.6, (2, 3, 1, 1))
    assert [len(stage) for stage in rates] == [2, 3, 1, 1]
    np.testing.assert_allclose(np.concatenate(rates), np.arange(7) * 0.1, atol=1e-12)
    assert linear_drop_rates(0.5, (1,)) == [(0.0,)]


def test_no_drop_rates_where_nothing_is_dropped():
    assert linear_drop_rates(0.0, (2, 3)) == [None, None]
