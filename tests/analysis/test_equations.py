"""Flat equations of functions that call, choose and loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from cnnjax.analysis.equations import EITHER, evaluate, trace

IMAGES = jax.ShapeDtypeStruct((1, 6, 8, 2), jnp.float32)


def names(function, *args):
    return [equation.name for equation in trace(function, *args).equations]


@jax.custom_vjp
def doubled(x):
    return x + x


doubled.defvjp(lambda x: (x + x, None), lambda _, gradient: (2 * gradient,))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (jax.jit(lambda x: jnp.sin(jax.jit(jnp.cos)(x))), ["cos", "sin"]),
        (jax.checkpoint(lambda x: jnp.sin(jnp.cos(x))), ["cos", "sin"]),
        (nn.relu, ["max"]),
        (doubled, ["add"]),
    ],
)
def test_calls_are_inlined(function, expected):
    assert names(function, IMAGES) == expected


def test_a_function_called_twice_has_values_of_its_own_each_time():
    sine = jax.jit(jnp.sin)
    first, second = trace(lambda x: sine(sine(x)), IMAGES).equations
    assert second.inputs == first.outputs
    assert second.outputs != first.outputs


def test_a_choice_is_all_of_its_branches():
    traced = trace(lambda x, which: lax.cond(which, jnp.sin, lambda x: -x, x), IMAGES, jnp.array(True))
    found = {equation.name: equation for equation in traced.equations}
    assert {"sin", "neg", EITHER} <= found.keys()
    assert traced.outputs is found[EITHER].outputs[0]
    assert {found["sin"].outputs[0], found["neg"].outputs[0]} <= set(found[EITHER].inputs)
    assert found["sin"].is_alternative != found["neg"].is_alternative


def test_a_choice_by_platform_is_one_too():
    found = names(lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos), IMAGES)
    assert {"sin", "cos", EITHER} <= set(found)


def test_a_loop_stays_one_equation():
    looped = names(lambda x: lax.scan(lambda carry, _: (jnp.sin(carry), None), x, length=3)[0], IMAGES)
    assert "scan" in looped
    assert "sin" not in looped


def test_outputs_keep_their_tree_and_inputs_their_order():
    traced = trace(lambda tree, x: {"b": x * tree["a"], "a": x}, {"a": jnp.ones(2)}, IMAGES)
    assert [value.shape for value in traced.inputs] == [(2,), (1, 6, 8, 2)]
    assert traced.outputs["a"] is traced.inputs[-1]
    assert traced.outputs["b"] is traced.equations[-1].outputs[0]
    assert (traced.outputs["b"].bytes, traced.outputs["b"].dtype) == (4 * 96, jnp.float32)


def test_what_depends_on_constants_alone_can_be_evaluated():
    table = np.arange(4.0, dtype=np.float32)
    traced = trace(lambda x: x[0, 0, 0, 0] * jnp.where(jnp.arange(4) < 2, jnp.asarray(table), -1.0), IMAGES)
    multiplied = traced.equations[-1]
    scalar, constant = sorted(multiplied.inputs, key=lambda value: value.is_constant)
    assert constant.is_constant
    assert not scalar.is_constant
    assert not multiplied.outputs[0].is_constant
    np.testing.assert_array_equal(evaluate(constant), [0, 1, -1, -1])
