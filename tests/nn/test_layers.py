"""The layers that every network is made of, against their definitions in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.nn.activations import ACTIVATIONS
from cnnjax.nn.initializers import he_normal_fan_in
from cnnjax.nn.layers import ConvNorm, DepthwiseNorm, Layers, SqueezeExcite, as_pair, drop_path
from cnnjax.nn.norm import BatchAveraging

X = np.random.default_rng(0).normal(size=(2, 7, 6, 4)).astype(np.float32)


class Within(nn.Module):
    """A module whose only layer is the one under test."""

    layers: Layers
    method: str
    arguments: tuple = ()
    keywords: tuple = ()

    @nn.compact
    def __call__(self, x):
        return getattr(self.layers, self.method)(x, *self.arguments, **dict(self.keywords))


def run(layers, method, *arguments, x=X, **keywords):
    """(output, parameters) of one method of Layers."""
    module = Within(layers, method, arguments, tuple(keywords.items()))
    y, variables = module.init_with_output(jax.random.key(0), x)
    return y, variables.get("params", {})


def spread(variables, seed=1):
    """The same variables with random values, variances among them positive."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: random.uniform(0.5, 1.5, leaf.shape).astype(np.float32), variables)


def convolve(x, kernel, stride, pads, groups=1):
    """Each output a sum over its window, from the definition."""
    rows, columns, seen, features = kernel.shape
    x = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))
    height = (x.shape[1] - rows) // stride[0] + 1
    width = (x.shape[2] - columns) // stride[1] + 1
    y = np.zeros((len(x), height, width, features))
    for out in range(features):
        group = out // (features // groups)
        for row, column in np.ndindex(height, width):
            top, left = row * stride[0], column * stride[1]
            window = x[:, top : top + rows, left : left + columns, group * seen : (group + 1) * seen]
            y[:, row, column, out] = (window * kernel[..., out]).sum((1, 2, 3))
    return y


@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "pads"),
    [
        (3, 1, None, ((1, 1), (1, 1))),
        (3, 2, "symmetric", ((1, 1), (1, 1))),
        (3, 2, "same", ((1, 1), (0, 1))),
        ((1, 5), (2, 1), "symmetric", ((0, 0), (2, 2))),
        (3, 1, "valid", ((0, 0), (0, 0))),
        ((2, 3), 1, 2, ((2, 2), (2, 2))),
        (2, 2, ((0, 1), (1, 0)), ((0, 1), (1, 0))),
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution(kernel_size, stride, padding, pads, groups):
    layers = Layers(train=False)
    y, params = run(
        layers, "conv", 6, kernel_size, stride, name="conv", padding=padding, groups=groups,
        bias_init=nn.initializers.constant(0.5),
    )  # fmt: skip
    expected = convolve(X, params["conv"]["kernel"], as_pair(stride), pads, groups) + 0.5
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_convolution_takes_the_networks_habits():
    layers = Layers(train=False, padding="valid", kernel_init=nn.initializers.ones, bias_init=nn.initializers.ones)
    y, params = run(layers, "conv", 5, name="conv")
    assert y.shape == (2, 5, 4, 5)
    assert (params["conv"]["kernel"] == 1).all()
    assert (params["conv"]["bias"] == 1).all()
    assert list(run(layers, "conv", 5, name="conv", bias=False)[1]["conv"]) == ["kernel"]
    drawn = run(layers, "conv", 5, name="conv", kernel_init=he_normal_fan_in)[1]["conv"]["kernel"]
    assert len(np.unique(drawn)) == drawn.size


@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_convolution_sees_each_channel_by_itself(multiplier):
    y, params = run(Layers(train=False), "depthwise", 3, 2, name="conv", multiplier=multiplier)
    kernel = params["conv"]["kernel"]
    assert kernel.shape == (3, 3, 1, 4 * multiplier)
    assert list(params["conv"]) == ["kernel"]
    for channel in range(4):
        own = slice(channel * multiplier, (channel + 1) * multiplier)
        expected = convolve(X[..., channel : channel + 1], kernel[..., own], (2, 2), ((1, 1), (1, 1)))
        np.testing.assert_allclose(y[..., own], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "conv_bias", "leaves"),
    [
        ("batch", None, {"conv/kernel", "norm/scale", "norm/bias"}),
        ("batch", True, {"conv/kernel", "conv/bias", "norm/scale", "norm/bias"}),
        ("group", None, {"conv/kernel", "norm/scale", "norm/bias"}),
        ("layer", None, {"conv/kernel", "norm/scale", "norm/bias"}),
        ("none", None, {"conv/kernel", "conv/bias"}),
        ("none", False, {"conv/kernel"}),
    ],
)
@pytest.mark.parametrize("block", [functools.partial(ConvNorm, features=4), DepthwiseNorm])
def test_a_bias_only_where_no_normalisation_follows(block, norm, conv_bias, leaves):
    layers = Layers(train=False, norm=norm, conv_bias=conv_bias)
    params = block(layers).init(jax.random.key(0), X)["params"]
    assert {f"{layer}/{leaf}" for layer, tree in params.items() for leaf in tree} == leaves


@pytest.mark.parametrize("activate", [True, False])
@pytest.mark.parametrize("block", [ConvNorm, DepthwiseNorm])
def test_convolution_normalisation_activation(block, activate):
    layers = Layers(train=False, activation="silu", norm_epsilon=0.1)
    fields = {"features": 6, "groups": 2} if block is ConvNorm else {}
    module = block(layers, kernel_size=3, stride=2, padding="same", activate=activate, **fields)
    variables = spread(module.init(jax.random.key(0), X))
    params, stats = variables["params"], variables["batch_stats"]["norm"]
    groups = 2 if block is ConvNorm else 4
    y = convolve(X, params["conv"]["kernel"], (2, 2), ((1, 1), (0, 1)), groups)
    y = (y - stats["mean"]) / np.sqrt(stats["var"] + 0.1) * params["norm"]["scale"] + params["norm"]["bias"]
    expected = y / (1 + np.exp(-y)) if activate else y
    np.testing.assert_allclose(module.apply(variables, X), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_follows_the_networks_choices():
    layers = Layers(train=True, norm_momentum=0.3, norm_scale=False, batch_averaging=BatchAveraging(groups=2))
    module = Within(layers, "normalize", (), (("name", "norm"),))
    variables = module.init(jax.random.key(0), X)
    assert list(variables["params"]["norm"]) == ["bias"]
    y, changed = module.apply(variables, X, mutable=["batch_stats"])
    np.testing.assert_allclose(changed["batch_stats"]["norm"]["mean"], 0.7 * X.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    # Each of the two examples is a group of its own.
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-5)
    assert list(run(layers, "normalize", name="norm", scale=True)[1]["norm"]) == ["scale", "bias"]


def test_squeeze_and_excitation():
    module = SqueezeExcite(Layers(train=False), reduced=3)
    variables = spread(module.init(jax.random.key(0), X))
    params = variables["params"]
    assert {name: layer["kernel"].shape for name, layer in params.items()} == {"reduce": (4, 3), "expand": (3, 4)}
    hidden = X.mean((1, 2)) @ params["reduce"]["kernel"] - 2 + params["reduce"]["bias"]
    params["reduce"]["bias"] = params["reduce"]["bias"] - 2  # so that some hidden units are off
    assert (hidden < 0).any()
    expand = np.maximum(hidden, 0) @ params["expand"]["kernel"] + params["expand"]["bias"]
    expected = X * (1 / (1 + np.exp(-expand)))[:, None, None]
    np.testing.assert_allclose(module.apply(variables, X), expected, rtol=1e-5, atol=1e-6)
    silu = SqueezeExcite(Layers(train=False), reduced=3, activation="silu")
    expand = hidden / (1 + np.exp(-hidden)) @ params["expand"]["kernel"] + params["expand"]["bias"]
    np.testing.assert_allclose(
        silu.apply(variables, X), X * (1 / (1 + np.exp(-expand)))[:, None, None], rtol=1e-5, atol=1e-6
    )


# Stochastic depth.


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
    x = jnp.ones((10_000, 2, 1, 3))
    y = drop_path(x, 0.3, lambda: jax.random.key(0))
    kept = np.asarray(y[:, 0, 0, 0] > 0)
    np.testing.assert_array_equal(y, np.where(kept[:, None, None, None], np.float32(1) / np.float32(0.7), 0) * x)
    assert kept.mean() == pytest.approx(0.7, abs=0.02)
    assert y.mean() == pytest.approx(1, abs=0.03)


def test_drop_path_without_a_rate_draws_nothing():
    def no_key():
        raise AssertionError("no key is needed")

    assert drop_path(X, None, no_key) is X


def test_drop_path_takes_a_traced_rate():
    key, x = functools.partial(jax.random.key, 0), np.concatenate([X] * 16)
    dropped, gradient = jax.jit(lambda rate: jax.value_and_grad(lambda x: drop_path(x, rate, key).sum())(x))(0.5)
    expected = drop_path(x, 0.5, key)
    assert 0 < (expected == 0).all((1, 2, 3)).sum() < len(x)
    np.testing.assert_allclose(dropped, expected.sum(), rtol=1e-4)
    np.testing.assert_allclose(gradient * x, expected, rtol=1e-5)
    np.testing.assert_array_equal(jax.jit(lambda rate: drop_path(x, rate, key))(0.0), x)


def test_drop_path_keeps_the_type():
    assert drop_path(jnp.asarray(X, jnp.bfloat16), 0.5, lambda: jax.random.key(0)).dtype == jnp.bfloat16


# The rest.


def test_dropout_is_of_training_alone():
    np.testing.assert_array_equal(run(Layers(train=False), "dropout", 0.5)[0], X)
    module = Within(Layers(train=True), "dropout", (0.25,))
    y = module.apply({}, np.ones((100, 100), np.float32), rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.02)


def test_dense():
    layers = Layers(train=False)
    y, params = run(layers, "dense", 5, name="dense", bias_init=nn.initializers.ones)
    np.testing.assert_allclose(y, X @ params["dense"]["kernel"] + 1, rtol=1e-5, atol=1e-5)
    assert run(layers, "dense", 5, name="dense", kernel_init=nn.initializers.ones)[1]["dense"]["kernel"].sum() == 20


@pytest.mark.parametrize("method", ["conv", "depthwise", "dense", "normalize"])
def test_layers_compute_in_the_networks_precision(method):
    arguments = {"conv": (5,), "depthwise": (3,), "dense": (5,), "normalize": ()}[method]
    y, params = run(Layers(train=False, dtype=jnp.bfloat16), method, *arguments, name="layer")
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("dtype", "expected"), [(jnp.bfloat16, "float32"), (jnp.float32, "float32"), (np.float64, "float64")]
)
def test_logits_are_at_least_float32(dtype, expected):
    with jax.enable_x64(expected == "float64"):
        y, params = run(Layers(train=False, dtype=dtype), "logits", 5, x=jnp.asarray(X[:, 0, 0], dtype))
    assert y.dtype == expected
    assert list(params) == ["head"]


@pytest.mark.parametrize(
    ("name", "definition"),
    {
        "relu": lambda x: np.maximum(x, 0),
        "relu6": lambda x: np.clip(x, 0, 6),
        "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
        "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
        "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
        "tanh": np.tanh,
        "scaled_tanh": lambda x: 1.7159 * np.tanh(2 * x / 3),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "identity": lambda x: x,
    }.items(),
)
def test_activations(name, definition):
    x = np.linspace(-8, 8, 101, dtype=np.float32)
    np.testing.assert_allclose(ACTIVATIONS[name](x), definition(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(Layers(train=False, activation=name).activate(x), definition(x), rtol=1e-5, atol=1e-6)


def test_every_activation_is_tested():
    marks = next(mark for mark in test_activations.pytestmark if mark.name == "parametrize")
    assert {name for name, _ in marks.args[1]} == set(ACTIVATIONS)
