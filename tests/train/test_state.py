"""The state before the first step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.train.state import init_state

SHAPE = (5, 5, 2)


def equal(one, other) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, other))


def test_it_holds_arrays_of_the_promised_types(tiny):
    state = init_state(tiny(norm=True), optax.sgd(0.1, momentum=0.9), 0, SHAPE, ema=True)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert (state.step.shape, state.step.dtype, int(state.step)) == ((), jnp.int32, 0)
    assert (state.key.shape, state.key.dtype) == ((2,), jnp.uint32)
    assert state.params["conv"]["kernel"].shape == (3, 3, 2, 4)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((state.params, state.batch_stats, state.ema)))
    np.testing.assert_array_equal(state.batch_stats["norm"]["mean"], np.zeros(4))
    np.testing.assert_array_equal(state.batch_stats["norm"]["var"], np.ones(4))


def test_averages_start_as_a_copy_of_their_own(tiny):
    state = init_state(tiny(norm=True), optax.sgd(0.1), 0, SHAPE, ema=True)
    assert equal(state.ema, {"params": state.params, "batch_stats": state.batch_stats})
    # Shared memory could not be donated twice.
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)


def test_no_averages_and_no_statistics_unless_there_are_some(tiny):
    state = init_state(tiny(), optax.sgd(0.1), 0, SHAPE, ema=False)
    assert state.ema is None
    assert state.batch_stats == {}


def test_it_is_a_function_of_the_seed_alone(tiny):
    one = init_state(tiny(), optax.sgd(0.1), 3, SHAPE, ema=False)
    again = init_state(tiny(dropout=0.5), optax.adam(0.2), 3, SHAPE, ema=True)
    other = init_state(tiny(), optax.sgd(0.1), 4, SHAPE, ema=False)
    assert equal((one.params, one.key), (again.params, again.key))
    assert not equal(one.params["conv"]["kernel"], other.params["conv"]["kernel"])
    assert not equal(one.key, other.key)


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_every_seed_that_a_config_allows_works(tiny, seed):
    state = init_state(tiny(), optax.sgd(0.1), seed, SHAPE, ema=False)
    assert np.isfinite(state.params["conv"]["kernel"]).all()
