"""The course's small network against an independent computation, and what each switch changes."""

import functools

import numpy as np
import pytest
from definitions import (
    as_float64,
    assert_same,
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

from cnnjax.analysis.summary import summarize
from cnnjax.errors import ConfigError
from cnnjax.models import create_model

layers_of = functools.partial(layers_with_parameters, "simple_cnn", (28, 28, 1))


def published(params, x):
    """The network at any width in float64."""
    p = as_float64(params)
    features = {}
    for stage, size in enumerate((1, 2, 2), 1):
        for conv in range(1, size + 1):
            x = relu(convolve(x, **p[f"stage{stage}"][f"conv{conv}"]["conv"]))
        features[f"stage{stage}"] = x
        x = pool(x, 2, 2)
    features["pool"] = x
    x = relu(connect(x.reshape(len(x), -1), p["dense1"]))
    x = relu(connect(x, p["dense2"]))
    return features, connect(x, p["head"])


@pytest.mark.parametrize("image", [(28, 28, 1), (17, 30, 3)])
def test_every_layer_equals_an_independent_computation(image):
    network = create_model("simple_cnn", width=0.25)
    x = random_images(2, *image)
    variables = random_variables(network, image)
    features, logits = published(variables["params"], x.astype(np.float64))
    assert_same(run(network, variables, x), features, logits)


def test_layers_sizes_and_parameters_are_the_published_ones():
    _, outputs = shapes(create_model("simple_cnn"), (28, 28, 1))
    expected = {"stage1": (28, 28, 64), "stage2": (14, 14, 128), "stage3": (7, 7, 256), "pool": (3, 3, 256)}
    assert sizes(outputs.features) == expected
    assert {name: (layer.kernel or (0,))[0] for name, layer in layers_of().items()} == {
        "stage1/conv1/conv": 7, "stage2/conv1/conv": 3, "stage2/conv2/conv": 3, "stage3/conv1/conv": 3,
        "stage3/conv2/conv": 3, "dense1": 0, "dense2": 0, "head": 0,
    }  # fmt: skip
    convolutions = [(49 * 1, 64), (9 * 64, 128), (9 * 128, 128), (9 * 128, 256), (9 * 256, 256)]
    dense = [(3 * 3 * 256, 128), (128, 64), (64, 10)]
    params = sum((inputs + 1) * outputs for inputs, outputs in [*convolutions, *dense])
    assert summarize(create_model("simple_cnn"), (28, 28, 1)).params == params == 1_413_834


def test_width_and_depth():
    halved, twice = layers_of(width=0.5), layers_of(depth=2)
    for name, layer in layers_of().items():
        assert halved[name].output_shape[-1] * (1 if name == "head" else 2) == layer.output_shape[-1], name
        assert (twice[name].kernel, twice[name].output_shape) == (layer.kernel, layer.output_shape), name
    added = {"stage1/conv2/conv", *(f"stage{stage}/conv{conv}/conv" for stage in (2, 3) for conv in (3, 4))}
    assert set(twice) - set(layers_of()) == added
    assert {twice[name].kernel for name in added} == {(3, 3)}


def test_a_global_average_head_has_no_hidden_layers():
    layers, dense = layers_of(head="global_average"), layers_of()
    assert set(dense) - set(layers) == {"dense1", "dense2"}
    assert layers["head"].params == 256 * 10 + 10


def test_lists_of_stages_and_of_dense_layers_are_fields():
    layers = layers_of(stage_sizes=(3,), stage_widths=(8,), stem_kernel=5, dense_widths=())
    assert list(layers) == ["stage1/conv1/conv", "stage1/conv2/conv", "stage1/conv3/conv", "head"]
    assert [layer.kernel for layer in layers.values()] == [(5, 5), (3, 3), (3, 3), None]
    assert layers["head"].params == 14 * 14 * 8 * 10 + 10


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [((128,), 0.5), ((64,), 0.5)]),
        ({"head": "global_average", "dropout": 0.25}, [((256,), 0.25)]),
        ({"dropout": 0.0}, []),
    ],
)
def test_dropout_acts_in_training_alone_where_it_stands(fields, expected):
    network = create_model("simple_cnn", **fields)
    assert dropped_shapes(network, (28, 28, 1)) == expected
    assert dropped_shapes(network, (28, 28, 1), train=False) == []


def test_normalised_convolutions_have_no_biases():
    variables, _ = shapes(create_model("simple_cnn", norm="batch"), (28, 28, 1))
    params = variables["params"]
    for stage in ("stage1", "stage2", "stage3"):
        for convolution in params[stage].values():
            assert (set(convolution), set(convolution["conv"])) == ({"conv", "norm"}, {"kernel"})
    assert set(params["dense1"]) == {"kernel", "bias"}


def test_rematerialising_wraps_every_block():
    networks = [create_model("simple_cnn", remat=remat) for remat in (False, True)]
    assert [count_rematerialised(network, (28, 28, 1)) for network in networks] == [0, 3]
    plain, rematerialised = (shapes(network, (28, 28, 1))[0] for network in networks)
    assert plain == rematerialised


def test_smallest_size():
    _, outputs = shapes(create_model("simple_cnn"), (8, 9, 3))
    assert outputs.features["pool"].shape == (1, 1, 1, 256)
    with pytest.raises(ConfigError, match="at least 8x8"):
        shapes(create_model("simple_cnn"), (8, 7, 3))


@pytest.mark.parametrize("fields", [{"stage_sizes": (1, 2)}, {"stage_sizes": (), "stage_widths": ()}])
def test_stages_have_a_size_and_a_width_each(fields):
    with pytest.raises(ConfigError, match="expected as many stage_sizes as stage_widths, got"):
        create_model("simple_cnn", **fields)
