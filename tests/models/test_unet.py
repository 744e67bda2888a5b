"""U-Net against an independent computation, the sizes that the paper prints, and what each switch changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definitions import as_float64, connect, convolve, pool, relu
from flax import linen as nn

from cnnjax.analysis.summary import summarize
from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.models.unet import Level
from cnnjax.nn.initializers import he_normal_fan_in
from cnnjax.nn.layers import Layers

TINY = {"width": 0.0625, "levels": 3}
"""Levels of 8, 8 and 16 channels."""


def shapes(network, size, channels=1, train=False):
    """Variables and outputs, without computing them."""
    images = jax.ShapeDtypeStruct((2, *size, channels), np.float32)
    init = functools.partial(network.init_with_output, train=train)
    outputs, variables = jax.eval_shape(init, jax.random.key(0), images)
    return variables, outputs


def params_of(layers, name=""):
    return {layer.name: layer.params for layer in layers if name in layer.name and layer.params}


def upsampled(x, layer, upsampling):
    batch, height, width, _ = x.shape
    if upsampling == "nearest":
        return convolve(x.repeat(2, 1).repeat(2, 2), **layer, padding="same")
    result = np.zeros((batch, 2 * height, 2 * width, layer["kernel"].shape[-1]))
    for row in (0, 1):
        for column in (0, 1):
            # Flax's kernels of transposed convolutions are turned by 180 degrees.
            result[:, row::2, column::2] = x @ layer["kernel"][1 - row, 1 - column] + layer["bias"]
    return result


def published_in_numpy(params, x, padding, skip="concatenate", upsampling="transposed", levels=3):
    """The network in float64, level by level; returns the logits and each level's map."""
    p, maps = as_float64(params), {}

    def two_convolutions(x, name):
        for layer in ("conv1", "conv2"):
            x = relu(convolve(x, **p[name][layer]["conv"], padding=padding))
        maps[name] = x
        return x

    for level in range(1, levels + 1):
        x = two_convolutions(x if level == 1 else pool(x, 2, 2, padding="ceil"), f"stage{level}")
    for level in range(levels - 1, 0, -1):
        encoded = maps[f"stage{level}"]
        x = upsampled(x, p[f"decoder{level}"]["upsample"], upsampling)
        if padding == "same":
            x = x[:, : encoded.shape[1], : encoded.shape[2]]
        else:
            rows, columns = (
                (large - small) // 2 for large, small in zip(encoded.shape[1:3], x.shape[1:3], strict=True)
            )
            encoded = encoded[:, rows : encoded.shape[1] - rows, columns : encoded.shape[2] - columns]
        if skip != "none":
            x = encoded + x if skip == "add" else np.concatenate([encoded, x], -1)
        x = two_convolutions(x, f"decoder{level}")
    return connect(x, p["head"]), maps


@pytest.mark.parametrize(
    ("size", "fields"),
    [
        ((48, 44), {"padding": "valid"}),
        ((16, 12), {"padding": "same"}),
        ((13, 10), {"padding": "same"}),
        ((44, 44), {"padding": "valid", "skip": "add"}),
        ((8, 7), {"padding": "same", "skip": "none", "upsampling": "nearest"}),
    ],
)
def test_equals_an_independent_computation(size, fields):
    network = create_model("unet", **TINY, **fields)
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    random = np.random.default_rng(1)
    variables, _ = shapes(network, size, channels=3)
    variables = jax.tree.map(lambda leaf: random.normal(0, 0.2, leaf.shape).astype(np.float32), variables)
    logits, maps = published_in_numpy(variables["params"], x, **fields)
    outputs = jax.jit(lambda variables, x: network.apply(variables, x, train=False))(variables, x)
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-5 * np.abs(logits).max())
    assert set(outputs.features) == set(maps)
    for name, feature in outputs.features.items():
        np.testing.assert_allclose(feature, maps[name], rtol=1e-4, atol=1e-5 * np.abs(maps[name]).max(), err_msg=name)


def test_bilinear_upsampling_interpolates_between_pixels():
    level = Level(Layers(train=False, norm="none", padding="same"), 2, 1, "bilinear", "none")
    x = np.random.default_rng(0).normal(size=(1, 3, 3, 2)).astype(np.float32)
    first = np.zeros((2, 2, 2, 2), np.float32)
    first[0, 0] = np.eye(2)  # the 2x2 convolution hands on its window's first pixel
    centre = np.zeros((3, 3, 2, 2), np.float32)
    centre[1, 1] = np.eye(2)
    params = {
        "upsample": {"kernel": first, "bias": np.zeros(2, np.float32)},
        "conv1": {"conv": {"kernel": centre, "bias": np.full(2, 10, np.float32)}},  # so that ReLU cuts nothing
    }
    large = level.apply({"params": params}, x, np.zeros((1, 6, 6, 2), np.float32)) - 10
    np.testing.assert_allclose(large[0, 0, 0], x[0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(large[0, 0, 1], 0.75 * x[0, 0, 0] + 0.25 * x[0, 0, 1], atol=1e-5)


def test_sizes_and_channels_of_figure_1():
    layers = {layer.name: layer for layer in summarize(create_model("unet"), (572, 572, 1)).layers}
    printed = {
        "stage1": (570, 568, 64), "stage2": (282, 280, 128), "stage3": (138, 136, 256), "stage4": (66, 64, 512),
        "stage5": (30, 28, 1024), "decoder4": (54, 52, 512), "decoder3": (102, 100, 256), "decoder2": (198, 196, 128),
        "decoder1": (390, 388, 64),
    }  # fmt: skip
    for name, (first, second, channels) in printed.items():
        assert layers[f"{name}/conv1/conv"].output_shape == (first, first, channels)
        assert layers[f"{name}/conv2/conv"].output_shape == (second, second, channels)
    assert layers["head"].output_shape == (388, 388, 2)
    assert sum(layer.params > 0 for layer in layers.values()) == 23


@pytest.mark.parametrize(
    ("fields", "size", "margin"),
    [
        ({}, 572, 92),
        ({}, 188, 92),  # the smallest
        ({"padding": "same"}, 512, 0),
        ({"padding": "same"}, 1, 0),
        ({"padding": "same"}, 37, 0),
        ({"levels": 2}, 18, 8),
        ({"levels": 1}, 7, 2),
        ({"levels": 3, "depth": 0.5}, 26, 10),
        ({"levels": 3, "depth": 1.5}, 66, 30),
    ],
)
def test_logits_lack_the_margin(fields, size, margin):
    network = create_model("unet", width=0.0625, **fields)
    _, outputs = shapes(network, (size, size + 32))
    assert network.margin() == margin
    assert outputs.logits.shape == (2, size - 2 * margin, size + 32 - 2 * margin, 2)


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        ({}, (572, 570), r"of 188 and 16 more each.* got 572x570, and nearest to 570 are 556 and 572; or set padding"),
        ({}, (187, 188), r"of at least 188x188; got \(2, 187, 188, 1\)"),
        ({"levels": 2}, (17, 18), "of at least 18x18"),
        ({"levels": 3, "depth": 0.5}, (27, 26), "nearest to 27 are 26 and 30"),
        ({"padding": "same"}, (0, 5), "of at least 1x1"),
    ],
)
def test_sizes_that_do_not_fit_raise(fields, size, message):
    with pytest.raises(ConfigError, match=message):
        shapes(create_model("unet", width=0.0625, **fields), size)


def test_every_size_fits_whose_pools_are_even_and_no_other():
    network = create_model("unet", width=0.0625, levels=3)
    found = []
    for size in range(40, 60):
        levels = (size - 4, (size - 4) / 2 - 4, ((size - 4) / 2 - 4) / 2 - 4)
        even = levels[0] % 2 == 0 and levels[1] % 2 == 0 and ((levels[2] * 2 - 4) * 2 - 4) >= 1
        try:
            network._require_fit(np.zeros((1, size, size, 1)))
            fits = True
        except ConfigError:
            fits = False
        assert fits == even, size
        found += [size] * fits
    assert found == [44, 48, 52, 56]


def test_features_go_down_and_up():
    _, outputs = shapes(create_model("unet_same"), (64, 32), channels=4)
    assert {name: feature.shape[1:] for name, feature in outputs.features.items()} == {
        "stage1": (64, 32, 64), "stage2": (32, 16, 128), "stage3": (16, 8, 256), "stage4": (8, 4, 512),
        "stage5": (4, 2, 1024), "decoder4": (8, 4, 512), "decoder3": (16, 8, 256), "decoder2": (32, 16, 128),
        "decoder1": (64, 32, 64),
    }  # fmt: skip
    assert outputs.aux == {}


def test_padding_and_levels_change_no_parameter_but_their_own():
    def params(**fields):
        variables, _ = shapes(create_model("unet", width=0.0625, **fields), (188, 188))
        return {
            jax.tree_util.keystr(path): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        }

    published, fewer = params(), params(levels=4)
    assert params(padding="same") == published
    kept = {name: shape for name, shape in published.items() if "stage5" not in name and "decoder4" not in name}
    assert fewer == kept


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_upsampling_by_interpolation_has_the_same_parameters(upsampling):
    size = (32, 32, 1)
    ours, published = (
        summarize(create_model("unet_same", upsampling=kind), size).layers for kind in (upsampling, "transposed")
    )
    assert params_of(ours) == params_of(published)
    macs, published_macs = ({layer.name: layer.macs for layer in layers} for layers in (ours, published))
    # The kernel moves over four times as many positions.
    assert {name: count // published_macs[name] for name, count in macs.items() if count != published_macs[name]} == {
        f"decoder{level}/upsample": 4 for level in (1, 2, 3, 4)
    }


@pytest.mark.parametrize("skip", ["add", "none"])
def test_without_concatenation_the_first_convolution_sees_half_the_channels(skip):
    ours, published = (
        params_of(summarize(create_model("unet_same", skip=kind), (16, 16, 1)).layers) for kind in (skip, "concatenate")
    )
    changed = {name: published[name] - count for name, count in ours.items() if count != published[name]}
    assert changed == {f"decoder{level}/conv1/conv": 9 * (64 * 2 ** (level - 1)) ** 2 for level in (1, 2, 3, 4)}


def test_depth_repeats_the_convolutions_of_each_level():
    variables, _ = shapes(create_model("unet_same", depth=1.5, **TINY), (16, 16))
    params = variables["params"]
    assert set(params) == {"stage1", "stage2", "stage3", "decoder1", "decoder2", "head"}
    for name, level in params.items():
        expected = {"conv1", "conv2", "conv3"} | ({"upsample"} if name.startswith("decoder") else set())
        assert name == "head" or set(level) == expected


def test_normalisation_takes_the_place_of_the_biases_it_makes_useless():
    variables, _ = shapes(create_model("unet_same", norm="batch", **TINY), (16, 16))
    params = variables["params"]
    assert set(params["decoder1"]["conv1"]) == {"conv", "norm"}
    assert set(params["decoder1"]["conv1"]["conv"]) == {"kernel"}
    assert set(params["decoder1"]["upsample"]) == set(params["head"]) == {"kernel", "bias"}
    assert set(variables["batch_stats"]) == {"stage1", "stage2", "stage3", "decoder1", "decoder2"}


@pytest.mark.parametrize("rate", [0.5, 0.0])
def test_dropout_at_the_end_of_the_contracting_path(rate):
    seen = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            seen.append((context.module.rate, context.module.deterministic, args[0].shape[1:]))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(create_model("unet_same", width=0.0625, dropout=rate), (32, 32), train=True)
    assert seen == [(rate, False, (4, 4, 32)), (rate, False, (2, 2, 64))]


def test_recomputation_changes_no_name():
    usual, _ = shapes(create_model("unet_same", **TINY), (16, 16))
    network = create_model("unet_same", remat=True, **TINY)
    ours, _ = shapes(network, (16, 16))
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, usual)

    def total(variables):
        outputs = network.apply(variables, jnp.zeros((1, 16, 16, 1)), train=True, rngs={"dropout": jax.random.key(0)})
        return outputs.logits.sum()

    recomputed = [equation for equation in jax.make_jaxpr(total)(ours).eqns if "prevent_cse" in equation.params]
    assert len(recomputed) == 5  # each level on each path


def test_weights_are_normal_with_variance_two_by_a_units_inputs():
    found = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, (nn.Conv, nn.ConvTranspose)):
            found["/".join(context.module.path)] = context.module.kernel_init
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(create_model("unet_same", **TINY), (8, 8))
    # An up-convolution's unit sees one position of the 2x2 kernel.
    upsampled = found.pop("decoder1/upsample")(jax.random.key(0), (2, 2, 64, 32))
    np.testing.assert_allclose(upsampled.std(), np.sqrt(2 / 64), rtol=0.03)
    del found["decoder2/upsample"]
    assert len(found) == 10
    assert all(kernel_init is he_normal_fan_in for kernel_init in found.values())
