"""The arithmetic that papers and courses quote, computed by this package's own functions."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from cnnjax.analysis import receptive_fields, summarize
from cnnjax.analysis.catalogue import describe_model
from cnnjax.models import create_model
from cnnjax.models.resnet import Residual
from cnnjax.nn.layers import Layers, SqueezeExcite
from cnnjax.nn.network import Network, Outputs
from cnnjax.nn.separable import SeparableConv
from cnnjax.ops.padding import output_size, pad_amounts
from cnnjax.ops.pooling import global_average_pool

conv = functools.partial(nn.Conv, use_bias=False)


class Chain(Network, kw_only=True):
    """Modules and functions one after the other."""

    steps: tuple

    @nn.compact
    def __call__(self, images, *, train):
        x = images
        for step in self.steps:
            x = step(x)
        return Outputs(logits=x, aux={}, features={"last": x} if x.ndim == 4 else {})


def costs(*steps, shape):
    return summarize(Chain(steps=steps), shape)


def layer(module, **fields):
    """A layer of the package's own, with its name, as one step."""
    return lambda x: module(**fields, name="layer")(x)


def test_a_5x5_convolution_with_and_without_a_reduction():
    padding = ((2, 2), (2, 2))
    direct = costs(conv(48, (5, 5), padding=padding), shape=(14, 14, 480))
    reduced = costs(conv(16, (1, 1)), conv(48, (5, 5), padding=padding), shape=(14, 14, 480))
    assert direct.macs == 112_896_000
    assert [each.macs for each in reduced.layers] == [1_505_280, 3_763_200]
    assert reduced.macs == 5_268_480
    assert direct.macs / reduced.macs == pytest.approx(21.4, abs=0.05)


def test_a_dense_layer_on_a_map_against_global_average_pooling():
    dense = costs(lambda x: x.reshape(1, -1), nn.Dense(1024, use_bias=False), shape=(7, 7, 1024))
    pooled = costs(global_average_pool, shape=(7, 7, 1024))
    assert (dense.params, pooled.params) == (51_380_224, 0)
    assert dense.layers[0].output_shape == pooled.layers[0].output_shape == (1024,)


@pytest.mark.parametrize(
    ("small", "large", "weights", "ratio"), [(3, 7, (27, 49), 1.815), (2, 5, (18, 25), 1 / (1 - 0.28))]
)
def test_stacks_of_3x3_against_one_large_kernel(small, large, weights, ratio):
    channels = 64
    stack = costs(*(conv(channels, (3, 3)) for _ in range(small)), shape=(32, 32, channels))
    single = costs(conv(channels, (large, large)), shape=(32, 32, channels))
    assert (stack.params, single.params) == tuple(weight * channels**2 for weight in weights)
    assert single.params / stack.params == pytest.approx(ratio, abs=5e-4)
    assert stack.features[0].receptive_field == single.features[0].receptive_field
    assert stack.features[0].receptive_field.size == (large, large)


def test_a_depthwise_separable_convolution_of_three_channels():
    layers = Layers(train=False)
    separable = costs(layer(SeparableConv, layers=layers, features=3), shape=(8, 8, 3))
    kernels = [each.params for each in separable.layers if each.kind == "Conv"]
    assert costs(conv(3, (3, 3)), shape=(8, 8, 3)).params == 81
    assert kernels == [27, 9]


def test_the_cost_of_a_depthwise_separable_convolution():
    shape, layers = (14, 14, 512), Layers(train=False)
    separable = costs(layer(SeparableConv, layers=layers, features=512), shape=shape)
    full = costs(conv(512, (3, 3)), shape=shape)
    assert separable.macs / full.macs == pytest.approx(1 / 512 + 1 / 9, rel=1e-12)
    assert full.macs / separable.macs == pytest.approx(8.8, abs=0.05)


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "found"),
    [
        (224, 7, 2, 3, 112),
        (227, 11, 4, 0, 55),
        (224, 11, 4, 2, 55),
        (224, 11, 4, 0, 54),
        (112, 3, 2, "ceil", 56),
        (112, 3, 2, 0, 55),
        (32, 3, 2, "ceil", 16),
        (16, 3, 2, "ceil", 8),
    ],
)
def test_output_sizes(size, window, stride, padding, found):
    assert output_size(size, window, stride, padding) == found


@pytest.mark.parametrize(
    ("size", "window", "pads"), [(224, 3, (0, 1)), (224, 5, (1, 2)), (147, 3, (1, 1)), (74, 3, (0, 1))]
)
def test_tensorflows_same_padding(size, window, pads):
    assert pad_amounts("same", (size, size), (window, window), (2, 2)) == (pads, pads)


def test_lenet5():
    summary = summarize(create_model("lenet5"), (32, 32, 1))
    by_name = {each.name: each for each in summary.layers}
    layers = ("c1", "s2", "c3", "s4", "c5", "f6")
    assert [by_name[name].params for name in layers] == [156, 12, 1_516, 32, 48_120, 10_164]
    assert summary.params == 60_000
    connections = [122_304, 5_880, 151_600, 2_000, 48_120, 10_164, 840]
    assert [each.connections for each in summary.layers] == connections
    assert summary.connections == sum(connections) == 340_908
    assert by_name["c3"].macs // 100 == by_name["c3"].params - 16 == 25 * (6 * 3 + 6 * 4 + 3 * 4 + 1 * 6) == 1_500


def test_squeeze_and_excitation_of_2048_channels():
    added = costs(layer(SqueezeExcite, layers=Layers(train=False), reduced=2048 // 16), shape=(7, 7, 2048))
    assert added.params == 524_288 + 128 + 2_048 == 526_464


def test_channels_of_densenet121():
    summary = summarize(create_model("densenet121"), (224, 224, 3))
    features = {each.name: each.channels for each in summary.features}
    transitions = [
        each.output_shape[-1] for each in summary.layers if each.name.startswith("transition") and each.kind == "Conv"
    ]
    stages = [features[f"stage{number}"] for number in (1, 2, 3, 4)]
    assert [features["stem"], *stages] == [64, 256, 512, 1024, 1024]
    assert transitions == [128, 256, 512]


def residual(features, **fields):
    """Weights of the convolutions in a residual block that keeps its shape."""
    layers = Layers(train=False)
    summary = costs(
        lambda x: Residual(layers, features=features, name="block", **fields)(x, None), shape=(14, 14, features)
    )
    return sum(each.params for each in summary.layers if each.kind == "Conv")


def test_a_basic_block_against_a_bottleneck():
    assert residual(256, bottleneck=False, inner=256, reduced=256) == 2 * 9 * 256**2 == 1_179_648
    assert residual(256, bottleneck=True, inner=64, reduced=64) == 256 * 64 + 9 * 64**2 + 64 * 256 == 69_632


def test_a_block_of_resnext50():
    grouped = residual(256, bottleneck=True, inner=128, reduced=128, cardinality=32)
    assert grouped == 32 * (256 * 4 + 9 * 4**2 + 4 * 256) == 70_144


@pytest.mark.parametrize("layers", [20, 32, 44, 56, 110])
def test_projection_shortcuts_on_cifar(layers):
    identity, projection = (describe_model(f"cifar_resnet{layers}{option}")["params"] for option in ("", "_b"))
    assert projection - identity == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64 == 2_752


def test_stacked_windows_grow_by_two_for_each_3x3():
    def stack(x):
        for _ in range(3):
            x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
        return x

    assert receptive_fields(stack, jnp.ones((1, 9, 9, 1))).size == (7, 7)


def test_compound_scaling_doubles_the_cost():
    # alpha * beta ** 2 * gamma ** 2, the depth, width and resolution of EfficientNet.
    assert math.prod((1.2, 1.1**2, 1.15**2)) == pytest.approx(1.920270, abs=5e-7)
