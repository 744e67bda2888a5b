"""AlexNet: both of the paper's networks against an independent computation, and what each switch changes."""

import functools

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
    initial_deviations,
    pool,
    random_images,
    random_variables,
    relu,
    respond,
    run,
    shapes,
    sizes,
)
from flax import traverse_util

from cnnjax.analysis.summary import summarize
from cnnjax.errors import ConfigError
from cnnjax.models import create_model

NARROW = {"width": 0.125, "num_classes": 10}
"""Channels 16, 32, 48, 48, 32, and 512 units."""
TINY = {**NARROW, "stem": "small", "dense_width": 128}


def names(variables, collection="params"):
    return set(traverse_util.flatten_dict(variables.get(collection, {}), sep="/"))


@functools.cache
def summary(name="alexnet", size=227, **fields):
    return summarize(create_model(name, **fields), (size, size, 3))


@functools.cache
def tiny(**fields):
    """A tiny network's outputs in evaluation, with the same random weights for the same shapes."""
    network = create_model("alexnet", **{**TINY, **fields})
    x = random_images(2, 24, 24, 3, scale=30)
    variables = random_variables(network, x.shape[1:])
    return run(network, variables, x)


def published(params, x, towers):
    """Section 3 at any width in float64, with towers kept apart."""
    p = as_float64(params)
    features = {}

    def conv(x, name, **fields):
        assert x.shape[-1] == p[name]["conv"]["kernel"].shape[2] * (
            towers if name in ("conv2", "conv4", "conv5") else 1
        )
        return relu(convolve(x, **p[name]["conv"], **fields))

    x = features["stage1"] = respond(conv(x, "conv1", stride=4, padding="valid"))
    x = features["stage2"] = respond(conv(pool(x, 3, 2), "conv2"))
    x = conv(conv(pool(x, 3, 2), "conv3"), "conv4")
    x = features["stage3"] = conv(x, "conv5")
    x = features["pool"] = pool(x, 3, 2)
    x = average_to(x, 6).reshape(len(x), -1)
    x = relu(connect(x, p["dense1"]))
    x = relu(connect(x, p["dense2"]))
    return features, connect(x, p["head"])


@pytest.mark.parametrize(
    ("name", "towers", "size"),
    [("alexnet", 2, (227, 227)), ("alexnet", 2, (99, 131)), ("alexnet_single_tower", 1, (99, 131))],
)
def test_every_layer_equals_an_independent_computation(name, towers, size):
    network = create_model(name, **NARROW)
    # Large enough for the response normalisation to matter.
    x = random_images(1, *size, 3, scale=100)
    variables = random_variables(network, x.shape[1:])
    features, logits = published(variables["params"], x.astype(np.float64), towers)
    assert_same(run(network, variables, x), features, logits)


def test_features_have_the_papers_sizes():
    _, outputs = shapes(create_model("alexnet"), (227, 227, 3))
    expected = {"stage1": (55, 55, 96), "stage2": (27, 27, 256), "stage3": (13, 13, 256), "pool": (6, 6, 256)}
    assert sizes(outputs.features) == expected
    _, outputs = shapes(create_model("alexnet_owt"), (224, 224, 3))
    assert sizes(outputs.features) == {**expected, "stage1": (55, 55, 64), "stage2": (27, 27, 192)}


def test_initial_weights_and_biases_are_the_papers():
    found = initial_deviations(create_model("alexnet"), (227, 227, 3))
    assert {name: bias for name, (_, bias) in found.items()} == {
        "conv1/conv": 0, "conv2/conv": 1, "conv3/conv": 0, "conv4/conv": 1, "conv5/conv": 1, "dense1": 1, "dense2": 1,
        "head": 0,
    }  # fmt: skip
    assert all(deviation == pytest.approx(0.01, rel=0.05) for deviation, _ in found.values())
    found = initial_deviations(create_model("alexnet", initialization="he_normal"), (227, 227, 3))
    assert all(start == (pytest.approx((2 / 144) ** 0.5, rel=0.05), 0) for start in found.values())


def test_response_normalisation_off_is_that_of_constants_that_do_nothing():
    off = tiny(lrn="off")
    np.testing.assert_allclose(tiny(lrn_k=1.0, lrn_alpha=0.0).logits, off.logits, rtol=1e-5, atol=1e-5)
    assert not np.allclose(tiny().logits, off.logits, rtol=1e-2)
    # The maps of the third stage are not normalised: off or on, they are what the activation makes of theirs.
    assert off.features["stage3"].min() == 0


@pytest.mark.parametrize("constant", [{"lrn_size": 3}, {"lrn_k": 1.0}, {"lrn_alpha": 1e-3}, {"lrn_beta": 0.5}])
def test_each_constant_of_response_normalisation_counts(constant):
    assert not np.allclose(tiny().features["stage1"], tiny(**constant).features["stage1"], rtol=1e-3)


def test_batch_normalisation_in_place_of_response_normalisation():
    plain, _ = shapes(create_model("alexnet"), (227, 227, 3))
    other, _ = shapes(create_model("alexnet", lrn="batch_norm"), (227, 227, 3))
    added = {f"conv{index}/response_norm/{leaf}" for index in (1, 2) for leaf in ("scale", "bias")}
    assert names(other) - names(plain) == added
    assert names(plain) <= names(other)
    assert names(plain, "batch_stats") == set()
    assert names(other, "batch_stats") == {
        f"conv{index}/response_norm/{leaf}" for index in (1, 2) for leaf in ("mean", "var")
    }
    # After the activation, so that what it makes has both signs.
    assert tiny(lrn="batch_norm").features["stage1"].min() < 0


def test_plain_pools_keep_the_published_sizes_and_see_less():
    plain, overlapping = summary(pooling="plain"), summary()
    assert (plain.params, plain.macs) == (overlapping.params, overlapping.macs)
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 2, 2] = 1
    maxima = {kind: create_model("alexnet", pooling=kind)._pool(x).max() for kind in ("overlapping", "plain")}
    assert maxima == {"overlapping": 1, "plain": 0}


def test_ceil_counts_the_windows_that_the_map_does_not_fill():
    sizes_of = {
        padding: sizes(shapes(create_model("alexnet", pool_padding=padding), (224, 224, 3))[1].features)
        for padding in ("valid", "ceil")
    }
    assert sizes_of["valid"]["pool"] == (5, 5, 256)
    assert sizes_of["ceil"]["pool"] == (6, 6, 256)


def test_towers_halve_the_kernels_of_conv2_conv4_and_conv5():
    two, one = summary().layers, summary("alexnet_single_tower").layers
    shares = {a.name: a.macs / b.macs for a, b in zip(two, one, strict=True) if b.macs}
    assert shares == {
        "conv1/conv": 1, "conv2/conv": 0.5, "conv3/conv": 1, "conv4/conv": 0.5, "conv5/conv": 0.5,
        "dense1": 1, "dense2": 1, "head": 1,
    }  # fmt: skip


def test_a_global_average_head_has_no_hidden_layers():
    layers, dense = (
        {layer.name: layer for layer in summary(**fields).layers} for fields in ({"head": "global_average"}, {})
    )
    assert layers["head"].params == 256 * 1000 + 1000
    convolutions = {name for name in dense if name.startswith("conv")}
    assert {name for name in layers if layers[name].params} == {*convolutions, "head"}
    assert all(layers[name] == dense[name] for name in convolutions)
    network = create_model("alexnet", **TINY, head="global_average")
    x = random_images(2, 24, 24, 3)
    variables = random_variables(network, x.shape[1:])
    outputs = run(network, variables, x)
    head = variables["params"]["head"]
    expected = outputs.features["pool"].mean((1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-4, atol=1e-5)


def test_the_dense_heads_map_is_a_field():
    layers = {layer.name: layer for layer in summary(head_size=3, dense_width=100).layers}
    assert layers["dense1"].params == 3 * 3 * 256 * 100 + 100
    assert layers["dense2"].params == 100 * 100 + 100


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [((4096,), 0.5), ((4096,), 0.5)]),
        ({"dropped": "inputs"}, [((9216,), 0.5), ((4096,), 0.5)]),
        ({"head": "global_average", "dropout": 0.25}, [((256,), 0.25)]),
        ({"dropout": 0.0}, []),
    ],
)
def test_dropout_acts_in_training_alone_where_it_stands(fields, expected):
    network = create_model("alexnet", **fields)
    assert dropped_shapes(network, (227, 227, 3)) == expected
    assert dropped_shapes(network, (227, 227, 3), train=False) == []


@pytest.mark.parametrize(
    ("depth", "channels"),
    [(1 / 3, {"conv3": 256}), (0.5, {"conv3": 384, "conv4": 256}), (1.0, {"conv3": 384, "conv4": 384, "conv5": 256})],
)
def test_depth_multiplies_the_last_stage(depth, channels):
    layers = {layer.name: layer for layer in summary(depth=depth).layers}
    found = {name.split("/")[0]: layer.output_shape[-1] for name, layer in layers.items() if name.endswith("/conv")}
    assert found == {"conv1": 96, "conv2": 256, **channels}
    assert layers["conv3/conv"].params == 9 * 256 * channels["conv3"] + channels["conv3"]  # sees both towers


def test_a_deeper_last_stage_repeats_conv4():
    layers = {layer.name: layer for layer in summary(depth=2).layers}
    assert [layers[f"conv{index}/conv"].output_shape[-1] for index in range(3, 9)] == [384] * 5 + [256]
    assert layers["conv5/conv"].macs == layers["conv4/conv"].macs == layers["conv3/conv"].macs * 384 // 256 // 2


def test_width_scales_every_layer():
    halved = {layer.name: layer.output_shape[-1] for layer in summary(width=0.5).layers}
    for layer in (layer for layer in summary().layers if layer.params):
        expected = layer.output_shape[-1] if layer.name == "head" else layer.output_shape[-1] // 2
        assert halved[layer.name] == expected, layer.name


def test_a_small_stem_keeps_the_size():
    variables, outputs = shapes(create_model("alexnet", stem="small", num_classes=10), (32, 32, 3))
    assert sizes(outputs.features) == {
        "stage1": (32, 32, 96), "stage2": (32, 32, 256), "stage3": (15, 15, 256), "pool": (7, 7, 256),
    }  # fmt: skip
    assert variables["params"]["conv1"]["conv"]["kernel"].shape == (3, 3, 3, 96)


def test_normalised_convolutions_have_no_biases():
    variables, _ = shapes(create_model("alexnet", norm="batch", lrn="off"), (227, 227, 3))
    convolutions = {name for name in names(variables) if name.startswith("conv")}
    leaves = ("conv/kernel", "norm/scale", "norm/bias")
    assert convolutions == {f"conv{index}/{leaf}" for index in range(1, 6) for leaf in leaves}


def test_rematerialising_wraps_every_block():
    networks = [create_model("alexnet", remat=remat) for remat in (False, True)]
    assert [count_rematerialised(network, (227, 227, 3)) for network in networks] == [0, 5]
    plain, rematerialised = (shapes(network, (227, 227, 3))[0] for network in networks)
    assert plain == rematerialised


@pytest.mark.parametrize(
    ("fields", "smallest"),
    [
        ({}, 67),
        ({"stem_padding": 2}, 63),
        ({"pooling": "plain"}, 39),
        ({"pool_padding": "ceil"}, 11),
        ({"stem": "small"}, 7),
        ({"stem": "small", "pooling": "plain"}, 4),
        ({"stem": "small", "pool_padding": "ceil"}, 1),
    ],
)
def test_smallest_size(fields, smallest):
    network = create_model("alexnet", **fields)
    for image in ((smallest, smallest, 4), (smallest, smallest + 30, 1)):
        _, outputs = shapes(network, image)
        assert min(outputs.features["pool"].shape) >= 1
        assert outputs.logits.shape == (1, 1000)
    assert shapes(network, (smallest, smallest, 3))[1].features["pool"].shape[1:3] == (1, 1)
    if smallest > 1:
        with pytest.raises(ConfigError, match=f"at least {smallest}x{smallest}"):
            shapes(network, (smallest, smallest - 1, 3))
