"""EfficientNet: its block against an independent computation, what each switch changes, and Lite's rule."""

import functools
import re
from typing import NamedTuple

import flax
import jax
import numpy as np
import pytest
from definitions import as_float64, connect, convolve, normalise, sigmoid
from flax import linen as nn

from cnnjax.analysis.summary import summarize
from cnnjax.errors import ConfigError
from cnnjax.models import create_model, get_variant
from cnnjax.models.efficientnet import MBConv
from cnnjax.nn.initializers import depthwise_he_normal, he_normal_fan_out
from cnnjax.nn.layers import Layers
from cnnjax.nn.stage import Stage

TINY = {"width": 0.25, "depth": 0.25, "num_classes": 10}
"""Stages of one block each, of 8, 8, 16, 24, 32, 48 and 80 channels; the stem has 8."""


class Layer(NamedTuple):
    output_shape: tuple[int, ...]
    kernel: tuple[int, int] | None
    params: int
    macs: int


@functools.cache
def layers_of(**fields):
    """Each layer of a tiny network by its name."""
    layers = summarize(create_model("efficientnet_b0", **{**TINY, **fields}), (32, 32, 3)).layers
    return {layer.name: Layer(layer.output_shape, layer.kernel, layer.params, layer.macs) for layer in layers}


def matching(layers, pattern):
    return {name: layer for name, layer in layers.items() if re.search(pattern, name)}


def shapes(network, size, channels=3, train=False):
    """Variables and outputs, without computing them."""
    images = jax.ShapeDtypeStruct((2, *size, channels), np.float32)
    init = functools.partial(network.init_with_output, train=train)
    outputs, variables = jax.eval_shape(init, jax.random.key(0), images)
    return variables, outputs


def block(**fields):
    defaults = {
        "features": 6, "kernel_size": 3, "expansion": 4, "stride": 1, "separable": True, "se_ratio": 0.25,
        "shortcut": "identity", "layers": Layers(train=False, activation="silu", padding="same", norm_epsilon=1e-3),
    }  # fmt: skip
    return MBConv(**{**defaults, **fields})


def randomised(tree, seed=0):
    """The same tree with random leaves; running variances are positive."""
    random = np.random.default_rng(seed)
    return jax.tree.map_with_path(
        lambda path, leaf: (
            np.abs(random.normal(1, 0.3, leaf.shape)) + 0.1
            if path[-1].key == "var"
            else random.normal(0, 0.5, leaf.shape)
        ).astype(np.float32),
        tree,
    )


def silu(x):
    return x * sigmoid(x)


def published_block(variables, x, kernel, stride, padding, shortcut):
    """An MBConv in float64, straight from its description; padding is (before, after) on both axes."""
    params, statistics = as_float64(variables["params"]), as_float64(variables["batch_stats"])

    def conv_norm(x, name, **fields):
        x = convolve(x, **params[name]["conv"], padding="valid", **fields)
        return normalise(x, params[name]["norm"], statistics[name]["norm"], 1e-3)

    y = silu(conv_norm(x, "expand"))
    assert params["depthwise"]["conv"]["kernel"].shape == (kernel, kernel, 1, y.shape[-1])
    y = silu(conv_norm(np.pad(y, ((0, 0), padding, padding, (0, 0))), "depthwise", stride=stride))
    hidden = silu(connect(y.mean((1, 2)), params["squeeze_excite"]["reduce"]))
    y = y * sigmoid(connect(hidden, params["squeeze_excite"]["expand"]))[:, None, None]
    y = conv_norm(y, "project")
    return x + y if shortcut else y


@pytest.mark.parametrize(
    ("kernel", "stride", "features", "padding", "shortcut"),
    [
        (3, 1, 8, (1, 1), True),
        (3, 1, 6, (1, 1), False),  # other channels
        (3, 2, 8, (0, 1), False),  # SAME: an even size gets its padding at the bottom and right
        (5, 2, 6, (1, 2), False),
    ],
)
def test_block_equals_an_independent_computation(kernel, stride, features, padding, shortcut):
    module = block(features=features, kernel_size=kernel, stride=stride)
    x = np.random.default_rng(1).normal(size=(2, 6, 10, 8)).astype(np.float32)
    variables = randomised(jax.eval_shape(module.init, jax.random.key(0), x, None))
    assert variables["params"]["squeeze_excite"]["reduce"]["kernel"].shape == (32, 2)  # a quarter of the input's 8
    expected = published_block(variables, x, kernel, stride, padding, shortcut)
    np.testing.assert_allclose(jax.jit(module.apply)(variables, x, None), expected, rtol=1e-4, atol=1e-5)


def test_block_without_shortcut_is_the_branch_alone():
    x = np.random.default_rng(1).normal(size=(2, 5, 4, 6)).astype(np.float32)
    variables = randomised(jax.eval_shape(block().init, jax.random.key(0), x, None))
    with_shortcut, without = (jax.jit(block(shortcut=kind).apply)(variables, x, None) for kind in ("identity", "none"))
    np.testing.assert_allclose(with_shortcut - without, x, atol=1e-5)


def test_a_dropped_branch_leaves_the_shortcut_and_a_kept_one_makes_up_for_it():
    x = np.random.default_rng(1).normal(size=(64, 2, 2, 6)).astype(np.float32)
    variables = randomised(jax.eval_shape(block().init, jax.random.key(0), x, None))
    branch = jax.jit(block().apply)(variables, x, None) - x
    dropped = jax.jit(block().apply)(variables, x, np.float32(0.5), rngs={"dropout": jax.random.key(1)}) - x
    is_dropped = np.abs(dropped).max((1, 2, 3)) == 0
    assert 0.25 < is_dropped.mean() < 0.75
    np.testing.assert_allclose(dropped[~is_dropped], 2 * branch[~is_dropped], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "size", "heights"),
    [
        ({}, (64, 96), (32, 32, 16, 8, 4, 4, 2, 2, 2)),
        ({}, (65, 33), (33, 33, 17, 9, 5, 5, 3, 3, 3)),
        ({"padding": "symmetric"}, (65, 33), (33, 33, 17, 9, 5, 5, 3, 3, 3)),
        ({}, (1, 1), (1, 1, 1, 1, 1, 1, 1, 1, 1)),
        ({"stem": "small"}, (32, 32), (32, 32, 32, 16, 8, 8, 4, 4, 4)),
    ],
)
def test_features(fields, size, heights):
    variables, outputs = shapes(create_model("efficientnet_b0", num_classes=7, **fields), size, channels=5)
    names = ("stem", *(f"stage{stage}" for stage in range(1, 9)))
    channels = (32, 16, 24, 40, 80, 112, 192, 320, 1280)
    found = {name: (feature.shape[1], feature.shape[3]) for name, feature in outputs.features.items()}
    assert found == dict(zip(names, zip(heights, channels, strict=True), strict=True))
    assert outputs.logits.shape == (2, 7)
    assert outputs.aux == {}
    assert variables["params"]["stem"]["conv"]["kernel"].shape == (3, 3, 5, 32)


@pytest.mark.parametrize("shape", [(2, 0, 1, 3), (32, 32, 3)])
def test_images_of_no_size_or_without_a_batch_raise(shape):
    with pytest.raises(ConfigError, match="of at least 1x1"):
        create_model("efficientnet_b0").init(jax.random.key(0), np.zeros(shape), train=False)


def test_kernels_of_the_published_network_and_of_one_size():
    published = [layer.kernel[0] for layer in matching(layers_of(), "block1/depthwise/conv").values()]
    assert published == [3, 3, 5, 3, 5, 5, 3]
    for size in (3, 7):
        layers = layers_of(kernel_size=size)
        assert {layer.kernel for layer in matching(layers, "depthwise/conv").values()} == {(size, size)}
        others = {name: layer for name, layer in layers.items() if "depthwise" not in name}
        assert others == {name: layer for name, layer in layers_of().items() if "depthwise" not in name}


def test_squeeze_excite_follows_the_blocks_input():
    squeezed = matching(layers_of(se_ratio=0.5), "squeeze_excite/reduce")
    assert {name: layer.output_shape for name, layer in squeezed.items()} == {
        f"{name}/squeeze_excite/reduce": (hidden,)
        for name, hidden in {
            "stage1/block1": 4, "stage2/block1": 4, "stage3/block1": 4, "stage4/block1": 8, "stage5/block1": 12,
            "stage6/block1": 16, "stage7/block1": 24,
        }.items()
    }  # fmt: skip
    without = layers_of(se_ratio=0.0)
    assert without == {name: layer for name, layer in layers_of().items() if "squeeze_excite" not in name}


def test_full_convolution_in_place_of_the_depthwise_one():
    full, depthwise = layers_of(separable=False), layers_of()
    convolutions = matching(full, "/convolution/conv")
    assert not matching(full, "depthwise")
    assert len(convolutions) == len(matching(depthwise, "depthwise/conv")) == 7
    for name, layer in convolutions.items():
        twin = depthwise[name.replace("convolution/", "depthwise/")]
        channels = layer.output_shape[-1]
        assert (layer.kernel, layer.output_shape) == (twin.kernel, twin.output_shape)
        assert (layer.params, layer.macs) == (twin.params * channels, twin.macs * channels)


@pytest.mark.parametrize("expansion", [1, 2])
def test_expansion(expansion):
    layers = layers_of(expansion=expansion)
    assert bool(matching(layers, "/expand/conv")) == (expansion > 1)
    assert not matching(layers, "stage1/block1/expand/conv")
    assert layers["stage1/block1/depthwise/conv"].output_shape[-1] == 8
    assert layers["stage6/block1/depthwise/conv"].output_shape[-1] == 32 * expansion


def test_lite_scales_neither_stem_nor_last_convolution_nor_the_ends_repeats():
    def widths_and_repeats(scale_ends):
        params = shapes(create_model("efficientnet_b0", width=1.4, depth=1.8, scale_ends=scale_ends), (8, 8))[0][
            "params"
        ]
        ends = (params["stem"], params["stage1"]["block1"]["project"], params["stage7"]["block1"]["project"])
        widths = [end["conv"]["kernel"].shape[-1] for end in (*ends, params["stage8"])]
        return widths, [len(params[f"stage{stage}"]) for stage in range(1, 8)]

    assert widths_and_repeats(scale_ends=True) == ([48, 24, 448, 1792], [2, 4, 4, 6, 6, 8, 2])
    assert widths_and_repeats(scale_ends=False) == ([32, 24, 448, 1280], [1, 4, 4, 6, 6, 8, 1])


@pytest.mark.parametrize(
    ("name", "size", "params", "millions"),
    [
        ("efficientnet_lite1", 240, 5_416_680, 5.4),
        ("efficientnet_lite2", 260, 6_092_072, 6.1),
        ("efficientnet_lite3", 280, 8_197_096, 8.2),
        ("efficientnet_lite4", 300, 13_006_568, 13.0),
    ],
)
def test_lite_has_the_released_number_of_parameters(name, size, params, millions):
    assert get_variant(name).input_shape == (size, size, 3)
    variables, _ = shapes(create_model(name), (8, 8))
    found = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert found == params
    assert round(found / 1e6, 1) == millions


def test_without_normalisation_convolutions_have_biases():
    variables, _ = shapes(create_model("efficientnet_b0", norm="none", **TINY), (32, 32))
    assert set(variables) == {"params"}
    kernels = [path for path in flax.traverse_util.flatten_dict(variables["params"]) if path[-1] == "kernel"]
    biases = [path for path in flax.traverse_util.flatten_dict(variables["params"]) if path[-1] == "bias"]
    assert {path[:-1] for path in kernels} == {path[:-1] for path in biases}


@pytest.mark.parametrize("train", [True, False])
def test_stochastic_depth_of_block_i_of_n(train):
    rates = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, Stage) and context.method_name == "__call__":
            rates[context.module.name] = context.module.drop_rates or ()
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(create_model("efficientnet_b0", width=0.25), (32, 32), train=train)
    found = [rate for stage in sorted(rates) for rate in rates[stage]]
    np.testing.assert_allclose(found, 0.2 * np.arange(16) / 16 if train else [], atol=1e-9)


def test_only_dropout_and_stochastic_depth_draw_random_numbers():
    variables, _ = shapes(create_model("efficientnet_b0", **TINY), (32, 32))

    def train(**fields):
        network, images = create_model("efficientnet_b0", **TINY, **fields), np.zeros((2, 32, 32, 3), np.float32)
        jax.eval_shape(lambda v: network.apply(v, images, train=True, mutable=["batch_stats"]), variables)

    train(dropout=0.0, stochastic_depth=0.0)
    for fields in ({"dropout": 0.0}, {"stochastic_depth": 0.0}):
        with pytest.raises(flax.errors.InvalidRngError):
            train(**fields)


def test_scan_stacks_equal_blocks():
    variables, outputs = shapes(create_model("efficientnet_b0", width=0.25, scan=True), (32, 32))
    usual, usual_outputs = shapes(create_model("efficientnet_b0", width=0.25), (32, 32))
    assert set(variables["params"]["stage6"]) == {"block1", "block2to4"}
    assert set(variables["params"]["stage3"]) == {"block1", "block2"}
    stacked = variables["params"]["stage6"]["block2to4"]["expand"]["conv"]["kernel"]
    assert stacked.shape == (3, *usual["params"]["stage6"]["block2"]["expand"]["conv"]["kernel"].shape)
    assert jax.tree.map(np.shape, outputs) == jax.tree.map(np.shape, usual_outputs)


def test_released_initialisation():
    found = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, (nn.Conv, nn.Dense)):
            found["/".join(context.module.path)] = context.module.kernel_init
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(create_model("efficientnet_b0", **TINY), (8, 8))
    head = found.pop("head")(jax.random.key(0), (50, 400))
    np.testing.assert_allclose([head.min(), head.max()], [-0.05, 0.05], rtol=0.01)
    for name, kernel_init in found.items():
        assert kernel_init is (depthwise_he_normal if "depthwise" in name else he_normal_fan_out), name
