"""Depthwise separable convolutions: what they compute, and what each field changes."""

import jax
import numpy as np
import pytest

from cnnjax.nn.layers import Layers
from cnnjax.nn.separable import SeparableConv

X = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)


def applied(norm="none", **fields):
    module, random = SeparableConv(Layers(train=False, norm=norm), 4, **fields), np.random.default_rng(3)
    shapes = jax.eval_shape(module.init, jax.random.key(0), X)
    variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)
    return variables["params"], module.apply(variables, X)


def depthwise_then_pointwise(params, activation, x=X, multiplier=1):
    """Each output pixel from its 3x3 neighbourhood, zeros around, one channel at a time; then the sum over channels."""
    depthwise, pointwise = params["depthwise"]["kernel"], params["pointwise"]["kernel"][0, 0]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    batch, height, width, channels = x.shape
    spatial = np.zeros((batch, height, width, channels * multiplier))
    for row in range(3):
        for column in range(3):
            shifted = padded[:, row : row + height, column : column + width]
            spatial += np.repeat(shifted, multiplier, -1) * depthwise[row, column, 0]
    return activation(spatial) @ pointwise + params["pointwise"]["bias"]


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("none", lambda x: x),
        ("relu", lambda x: np.maximum(x, 0)),
        ("elu", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    ],
)
def test_is_depthwise_then_pointwise_with_the_activation_between(name, activation):
    params, found = applied(intermediate_activation=name, activate=False)
    np.testing.assert_allclose(found, depthwise_then_pointwise(params, activation), rtol=1e-4, atol=1e-5)


def test_multiplier_gives_each_channel_several_depthwise_outputs():
    params, found = applied(multiplier=2, activate=False)
    assert params["depthwise"]["kernel"].shape == (3, 3, 1, 6)
    expected = depthwise_then_pointwise(params, lambda x: x, multiplier=2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_activation_follows_unless_told_otherwise():
    _, linear = applied(activate=False)
    _, activated = applied()
    np.testing.assert_array_equal(activated, np.maximum(linear, 0))
    assert (np.asarray(linear) < 0).any()


def shapes(norm="none", **fields):
    """Of the output and of the parameters."""
    module = SeparableConv(Layers(train=False, norm=norm), 4, **fields)
    outputs, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), X)
    return outputs.shape, jax.tree.map(lambda leaf: leaf.shape, variables["params"])


def test_stride_and_padding_are_those_of_the_depthwise_convolution():
    assert shapes(stride=2)[0] == (2, 3, 3, 4)
    assert shapes(padding="valid")[0] == (2, 3, 4, 4)
    assert shapes(kernel_size=5, padding="valid")[0] == (2, 1, 2, 4)


def test_only_without_normalisation_the_pointwise_convolution_has_a_bias():
    assert shapes("none")[1] == {
        "depthwise": {"kernel": (3, 3, 1, 3)},
        "pointwise": {"kernel": (1, 1, 3, 4), "bias": (4,)},
    }
    assert shapes("batch")[1] == {
        "depthwise": {"kernel": (3, 3, 1, 3)},
        "pointwise": {"kernel": (1, 1, 3, 4)},
        "norm": {"scale": (4,), "bias": (4,)},
    }


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_initial_variance_survives_many_layers(activation):
    """Without normalisation, the mean square of activated maps is neither doubled nor halved by each layer."""
    x = before = np.maximum(np.random.default_rng(1).normal(size=(1, 16, 16, 256)), 0).astype(np.float32)
    module = SeparableConv(Layers(train=False, norm="none"), 256, intermediate_activation=activation)
    apply = jax.jit(lambda key, x: module.init_with_output(key, x)[0])
    for seed in range(6):
        x = apply(jax.random.key(seed), x)
    assert 0.2 < np.square(x).mean() / np.square(before).mean() < 3
