"""Network in Network against an independent computation, and what each switch changes."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from definitions import (
    as_float64,
    assert_same,
    average_to,
    connect,
    convolve,
    count_rematerialised,
    dropped_shapes,
    layers_with_parameters,
    pool,
    random_images,
    random_variables,
    relu,
    run,
    shapes,
    sizes,
)

from cnnjax.errors import ConfigError
from cnnjax.models import create_model

NARROW = {"width": 0.125}


layers_of = functools.partial(layers_with_parameters, "nin_cifar10", (32, 32, 3))


def convolutions(layers):
    """Channels and kernel of each convolution."""
    return {
        name.removesuffix("/conv"): (layer.output_shape[-1], layer.kernel[0])
        for name, layer in layers.items()
        if name.startswith("stage")
    }


def published(params, x):
    """The released network at any width in float64."""
    p = as_float64(params)
    features = {}
    for stage in (1, 2, 3):
        for conv in (1, 2, 3):
            x = relu(convolve(x, **p[f"stage{stage}"][f"conv{conv}"]["conv"]))
        features[f"stage{stage}"] = x
        if stage < 3:
            x = pool(x, 3, 2, (np.nanmax, np.nanmean)[stage - 1], padding="ceil")
    return features, x.mean((1, 2))


@pytest.mark.parametrize(("name", "size"), [("nin_cifar10", (32, 32)), ("nin_cifar100", (14, 21))])
def test_every_layer_equals_an_independent_computation(name, size):
    network = create_model(name, **NARROW)
    x = random_images(2, *size, 3)
    variables = random_variables(network, x.shape[1:])
    features, logits = published(variables["params"], x.astype(np.float64))
    assert_same(run(network, variables, x), features, logits)
    # Whoever has no maps but the last: all logits are means of what a ReLU left.
    assert logits.min() >= 0


def test_features_have_the_papers_sizes():
    _, outputs = shapes(create_model("nin_cifar100"), (32, 32, 3))
    assert sizes(outputs.features) == {"stage1": (32, 32, 96), "stage2": (16, 16, 192), "stage3": (8, 8, 100)}


@pytest.mark.parametrize(
    ("fields", "widths"),
    [
        ({}, ((192, 160, 96), (192, 192, 192), (192, 192, 10))),
        ({"pointwise_layers": 0}, ((96,), (192,), (10,))),
        ({"pointwise_layers": 1}, ((192, 96), (192, 192), (192, 10))),
        ({"depth": 0.5}, ((192, 96), (192, 192), (192, 10))),
        ({"depth": 1.5}, ((192, 160, 160, 96), (192,) * 4, (192, 192, 192, 10))),
        ({"pointwise_layers": 3}, ((192, 160, 160, 96), (192,) * 4, (192, 192, 192, 10))),
        ({"width": 0.5}, ((96, 80, 48), (96, 96, 96), (96, 96, 10))),
    ],
)
def test_layers_are_the_published_ones_times_depth_and_width(fields, widths):
    expected = {
        f"stage{stage}/conv{conv}": (width, kernel if conv == 1 else 1)
        for stage, (kernel, row) in enumerate(zip((5, 5, 3), widths, strict=True), 1)
        for conv, width in enumerate(row, 1)
    }
    assert convolutions(layers_of(**fields)) == expected


def test_pools_padded_on_all_sides_have_other_windows_of_the_same_number():
    network, other = (create_model("nin_cifar10", **NARROW, pool_padding=name) for name in ("ceil", "symmetric"))
    x = random_images(1, 16, 16, 3)
    variables = random_variables(network, x.shape[1:])
    one, two = (run(each, variables, x) for each in (network, other))
    assert sizes(one.features) == sizes(two.features)
    np.testing.assert_array_equal(one.features["stage1"], two.features["stage1"])
    assert not np.allclose(one.features["stage2"], two.features["stage2"], rtol=1e-2)
    assert not np.allclose(one.features["stage3"], two.features["stage3"], rtol=1e-2)


def test_a_dense_head_adds_one_layer_on_all_maps():
    averaged, dense = layers_of(), layers_of(head="dense")
    assert set(dense) - set(averaged) == {"head"}
    assert dense["head"].params == 8 * 8 * 10 * 10 + 10
    network = create_model("nin_cifar10", **NARROW, head="dense", head_size=3)
    x = random_images(2, 16, 16, 3)
    variables = random_variables(network, x.shape[1:])
    outputs = run(network, variables, x)
    maps = average_to(np.asarray(outputs.features["stage3"]), 3).reshape(2, -1)
    np.testing.assert_allclose(outputs.logits, connect(maps, variables["params"]["head"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [((16, 16, 96), 0.5), ((8, 8, 192), 0.5)]),
        ({"head": "dense", "dropout": 0.25}, [((16, 16, 96), 0.25), ((8, 8, 192), 0.25), ((8, 8, 10), 0.25)]),
        ({"dropout": 0.0}, []),
    ],
)
def test_dropout_follows_both_pools_and_stands_before_a_dense_head(fields, expected):
    network = create_model("nin_cifar10", **fields)
    assert dropped_shapes(network, (32, 32, 3)) == expected
    assert dropped_shapes(network, (32, 32, 3), train=False) == []


def test_normalised_convolutions_have_no_biases():
    variables, _ = shapes(create_model("nin_cifar10", norm="batch"), (32, 32, 3))
    assert {
        (tuple(convolution), tuple(convolution["conv"]))
        for stage in variables["params"].values()
        for convolution in stage.values()
    } == {(("conv", "norm"), ("kernel",))}


def test_rematerialising_wraps_every_block():
    networks = [create_model("nin_cifar10", remat=remat) for remat in (False, True)]
    assert [count_rematerialised(network, (32, 32, 3)) for network in networks] == [0, 3]
    plain, rematerialised = (shapes(network, (32, 32, 3))[0] for network in networks)
    assert plain == rematerialised


def test_any_size_and_low_precision():
    for image in ((1, 1, 1), (2, 5, 4)):
        for fields in ({}, {"pool_padding": "symmetric"}, {"head": "dense"}):
            _, outputs = shapes(create_model("nin_cifar10", **fields), image)
            assert outputs.logits.shape == (1, 10)
    with pytest.raises(ConfigError, match="at least 1x1"):
        shapes(create_model("nin_cifar10"), (0, 4, 3))
    _, outputs = shapes(create_model("nin_cifar10", dtype=jnp.bfloat16), (32, 32, 3))
    assert outputs.features["stage3"].dtype == jnp.bfloat16
    assert outputs.logits.dtype == jnp.float32
