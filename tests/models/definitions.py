"""Layers straight from their definitions in float64 numpy, for images (batch, height, width, channels).

Below them is what tests ask of a network: its shapes, its layers, random variables for it, and what it computes.
"""

import functools
import math
import re

import jax
import numpy as np
from flax import linen as nn

from cnnjax.analysis.summary import summarize
from cnnjax.models import create_model
from cnnjax.weights.convert import flatten


def convolve(x, kernel, bias=0.0, *, stride=1, padding="symmetric"):
    """A convolution; a kernel for fewer channels than x has is one in groups, each with its part of the outputs."""
    groups = x.shape[-1] // kernel.shape[2]
    windows = np.split(_windows(x, kernel.shape[:2], stride, padding, 0.0), groups, 3)
    kernels = np.split(np.asarray(kernel, np.float64), groups, 3)
    maps = [np.tensordot(seen, own, ((4, 5, 3), (0, 1, 2))) for seen, own in zip(windows, kernels, strict=True)]
    return np.concatenate(maps, -1) + bias


def pool(x, window, stride, statistic=np.nanmax, *, padding="valid"):
    """A statistic of each window that passes over the padding, which is not a number."""
    return statistic(_windows(x, (window, window), stride, padding, np.nan), (4, 5))


def pads(size, window, stride, padding):
    """How much comes before and after along one axis: none, the same on both sides, TensorFlow's, or Caffe's.

    The last lets windows hang over the end that the image does not fill, as long as they begin in it.
    """
    if padding in ("valid", "symmetric"):
        return (0, 0) if padding == "valid" else ((window - 1) // 2,) * 2
    outputs = {"same": -(-size // stride), "ceil": min(-(-size // stride), -(-(size - window) // stride) + 1)}[padding]
    total = max((outputs - 1) * stride + window - size, 0)
    return (0, total) if padding == "ceil" else (total // 2, total - total // 2)


def _windows(x, window, stride, padding, value):
    """(batch, rows, columns, channels, window height, window width)."""
    around = [pads(*sizes, stride, padding) for sizes in zip(x.shape[1:3], window, strict=True)]
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), *around, (0, 0)), constant_values=value)
    return np.lib.stride_tricks.sliding_window_view(padded, window, axis=(1, 2))[:, ::stride, ::stride]


def relu(x):
    return np.maximum(x, 0)


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalise(x, parameters, statistics, epsilon):
    """Batch normalisation with running statistics; a factor only if it has one."""
    factor = parameters.get("scale", 1.0) / np.sqrt(statistics["var"] + epsilon)
    return (x - statistics["mean"]) * factor + parameters["bias"]


def respond(x, size=5, k=2.0, alpha=1e-4, beta=0.75):
    """Local response normalisation: each channel by its neighbours' squares."""
    channels = x.shape[-1]
    squares = [
        np.square(x[..., max(0, channel - size // 2) : channel + size // 2 + 1]).sum(-1) for channel in range(channels)
    ]
    return x / (k + alpha * np.stack(squares, -1)) ** beta


def average_to(x, size):
    """The means of size x size bins, which overlap or repeat where the image's sides are no multiple."""
    (_, height, width, _), result = x.shape, np.empty((len(x), size, size, x.shape[-1]))
    for row, column in np.ndindex(size, size):
        rows = slice(row * height // size, -(-(row + 1) * height // size))
        columns = slice(column * width // size, -(-(column + 1) * width // size))
        result[:, row, column] = x[:, rows, columns].mean((1, 2))
    return result


def connect(x, parameters):
    """A dense layer."""
    return x @ parameters["kernel"] + parameters["bias"]


def shapes(network, image, *, train=False):
    """The shapes of variables and outputs, without computing them; image is (height, width, channels)."""
    images = jax.ShapeDtypeStruct((1, *image), np.float32)
    init = functools.partial(network.init_with_output, train=train)
    outputs, variables = jax.eval_shape(init, jax.random.key(0), images)
    return variables, outputs


@functools.cache
def built(name, image, *, train=False, **fields):
    """The shapes of the outputs for one image and of the variables by path, as initialisation makes them."""
    variables, outputs = shapes(create_model(name, **fields), image, train=train)
    leaves = {path: leaf.shape for path, leaf in flatten(variables).items()}
    return jax.tree.map(lambda leaf: leaf.shape[1:], outputs), leaves


def blocks_of(leaves):
    """The names of the stages' blocks that have parameters."""
    return sorted({"/".join(path.split("/")[:2]) for path in leaves if path.startswith("stage")})


def kernel_sizes(leaves, prefix):
    """Height and width of the kernels below a path, in the order of the layers' names."""
    return [leaves[path][:2] for path in sorted(leaves) if path.startswith(prefix) and path.endswith("conv/kernel")]


@functools.cache
def layers_with_parameters(name, image, **fields):
    """Each layer with parameters by its name."""
    return {layer.name: layer for layer in summarize(create_model(name, **fields), image).layers if layer.params}


def random_variables(network, image, seed=0):
    """Variables with random leaves of a size that keeps the maps' size; positive where they are variances."""
    random = np.random.default_rng(seed)

    def fill(path, leaf):
        if path[-1].key == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            return (random.normal(size=leaf.shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        if path[-1].key in ("scale", "var"):
            return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return random.normal(size=leaf.shape, scale=0.2).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes(network, image)[0])


def random_images(*shape, scale=1.0, seed=7):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def as_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def part(variables, path):
    """The parameters and the running statistics of the module at `path`."""
    parameters, statistics = variables["params"], variables.get("batch_stats", {})
    for name in path.split("/"):
        parameters, statistics = parameters[name], statistics.get(name, {})
    return parameters, statistics


def assert_same(outputs, features, logits):
    """All maps and the logits, relative to each one's largest value."""
    assert set(outputs.features) == set(features)
    for name, expected in {**features, "logits": logits}.items():
        found = outputs.logits if name == "logits" else outputs.features[name]
        assert found.shape == expected.shape, name
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=name)


def sizes(features):
    """(height, width, channels) of each map."""
    return {name: tuple(leaf.shape[1:]) for name, leaf in features.items()}


@functools.cache
def _compiled(network):
    return jax.jit(functools.partial(network.apply, train=False))


def run(network, variables, x):
    """The network's outputs in evaluation."""
    return _compiled(network)(variables, x)


def initial_deviations(network, image):
    """By each layer's path the deviation that its initialiser gives a kernel (3, 3, 16, 64), and the value of biases.

    That kernel has a fan-in of 144 and a fan-out of 576.
    """
    return {
        name: (_deviation(layer.kernel_init), _start(layer.bias_init))
        for name, (layer, _) in _layers(network, image).items()
    }


def initial_gain(network, image):
    """By how much the head's weights increase the deviation of its inputs, were they of mean zero, at the start."""
    layer, inputs = _layers(network, image)["head"]
    return _deviation(layer.kernel_init, (inputs, layer.features)) * math.sqrt(inputs)


def _layers(network, image):
    """By path every convolution and dense layer, and its number of inputs' channels."""
    found = {}

    def note(call, args, kwargs, context):
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, nn.Conv | nn.Dense):
            found["/".join(layer.path)] = (layer, args[0].shape[-1])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes(network, image)
    return found


@functools.cache
def _deviation(initializer, shape=(3, 3, 16, 64)):
    return float(np.std(initializer(jax.random.key(0, impl="unsafe_rbg"), shape, np.float32)))


@functools.cache
def _start(initializer):
    values = np.unique(initializer(jax.random.key(0), (7,), np.float32))
    assert len(values) == 1
    return float(values[0])


def count_rematerialised(network, image):
    """How many parts of the network are computed again in the backward pass."""
    images = jax.ShapeDtypeStruct((1, *image), np.float32)

    def compute(variables, x):
        return network.apply(variables, x, train=False).logits

    program = str(jax.make_jaxpr(compute)(shapes(network, image)[0], images))
    return len(re.findall(r"= (?:remat2?|checkpoint)\[", program))


def dropped_shapes(network, image, *, train=True):
    """The shapes of what dropout drops values from, first to last, each with the share that it drops."""
    found = []

    def note(call, args, kwargs, context):
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, nn.Dropout):
            found.append((args[0].shape[1:], 0.0 if layer.deterministic else layer.rate))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes(network, image, train=train)
    return [(shape, rate) for shape, rate in found if rate]


def count_draws(network, variables, image, *, train):
    """How often the network draws random numbers."""

    def count(jaxpr):
        inner = [leaf for equation in jaxpr.eqns for leaf in jax.tree.leaves(list(equation.params.values()))]
        closed = [getattr(leaf, "jaxpr", leaf) for leaf in inner]
        return sum(equation.primitive.name == "random_bits" for equation in jaxpr.eqns) + sum(
            count(found) for found in closed if hasattr(found, "eqns")
        )

    def compute(variables, x, key):
        return network.apply(variables, x, train=train, rngs={"dropout": key}, mutable=["batch_stats"])[0].logits

    images = jax.ShapeDtypeStruct((2, *image), np.float32)
    return count(jax.make_jaxpr(compute)(variables, images, jax.random.key(0)).jaxpr)
