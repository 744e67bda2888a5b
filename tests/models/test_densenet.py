"""DenseNet: the paper's table for small images, an independent computation, and what each switch changes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definitions import (
    as_float64,
    assert_same,
    built,
    connect,
    convolve,
    count_draws,
    count_rematerialised,
    normalise,
    part,
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

TINY = {"growth_rate": 4, "stage_sizes": (2, 3), "stem": "small", "num_classes": 5}
CIFAR = {"stem": "small", "num_classes": 10}
BASIC = {**CIFAR, "bottleneck": False, "compression": 1.0, "stem_width": 16}


def tiny(**fields):
    return create_model("densenet121", **{**TINY, **fields})


def leaf_shapes(**fields):
    """The shapes of the variables by path."""
    return built("densenet121", (8, 8, 3), **{**TINY, **fields})[1]


def features(side, **fields):
    return sizes(shapes(tiny(**fields), (side, side, 3))[1].features)


@pytest.mark.parametrize(
    ("fields", "growth_rate", "layers", "published"),
    [(BASIC, 12, 12, 1.0), (CIFAR, 12, 16, 0.8)],
    ids=["L=40", "BC, L=100"],
)
def test_millions_of_parameters_of_table_2(fields, growth_rate, layers, published):
    network = create_model("densenet121", growth_rate=growth_rate, stage_sizes=(layers,) * 3, **fields)
    params = jax.tree.leaves(shapes(network, (32, 32, 3))[0]["params"])
    assert round(sum(math.prod(leaf.shape) for leaf in params) / 1e6, 1) == published
    convolutions = sum(leaf.ndim == 4 for leaf in params)
    assert convolutions + 1 == 3 * layers * (2 if network.bottleneck else 1) + 4


@pytest.mark.parametrize("bottleneck", [False, True])
def test_against_an_independent_computation(bottleneck):
    network, images = tiny(bottleneck=bottleneck, compression=0.7, stem_width=5), random_images(2, 9, 12, 3)
    variables = random_variables(network, images.shape[1:])
    exact = as_float64(variables)

    def norm_conv(x, path):
        params, statistics = part(exact, path)
        return convolve(relu(normalise(x, params["norm"], statistics["norm"], 1e-5)), **params["conv"])

    x = convolve(images, **exact["params"]["stem"])
    expected = {"stem": x}
    for stage, size in ((1, 2), (2, 3)):
        for layer in range(1, size + 1):
            new = norm_conv(x, f"stage{stage}/layer{layer}/conv1") if bottleneck else x
            assert new.shape[-1] == (16 if bottleneck else x.shape[-1])
            x = np.concatenate([x, norm_conv(new, f"stage{stage}/layer{layer}/conv2")], -1)
        if stage == 1:
            expected["stage1"] = x
            x = pool(norm_conv(x, "transition1"), 2, 2, np.nanmean)
            assert x.shape == (2, 4, 6, int(0.7 * (5 + 2 * 4)))
    expected["stage2"] = x = relu(normalise(x, *part(exact, "norm"), 1e-5))
    assert_same(run(network, variables, images), expected, connect(x.mean((1, 2)), exact["params"]["head"]))


def test_width_multiplies_growth_rate_and_stem():
    assert features(16, width=0.5, growth_rate=32) == {
        "stem": (16, 16, 32),
        "stage1": (16, 16, 32 + 2 * 16),
        "stage2": (8, 8, 32 + 3 * 16),
    }


def test_the_stem_has_twice_the_growth_rate_unless_told_otherwise():
    assert features(8)["stem"] == (8, 8, 8)
    assert features(8, stem_width=5)["stem"] == (8, 8, 5)
    assert features(8, stem="imagenet") == {"stem": (4, 4, 8), "stage1": (2, 2, 16), "stage2": (1, 1, 20)}


def test_depth_multiplies_the_layers_of_each_stage():
    assert features(8, depth=1.5) == {"stem": (8, 8, 8), "stage1": (8, 8, 8 + 3 * 4), "stage2": (4, 4, 10 + 5 * 4)}


@pytest.mark.parametrize(("compression", "channels"), [(1.0, 16), (0.5, 8), (0.3, 4), (0.01, 1)])
def test_compression_is_the_share_of_channels_passed_on(compression, channels):
    assert leaf_shapes(compression=compression)["transition1/conv/kernel"] == (1, 1, 16, channels)


@pytest.mark.parametrize("value", [0.0, 1.1])
def test_compression_is_a_share(value):
    with pytest.raises(ConfigError, match="compression"):
        tiny(compression=value)


def test_dropout_follows_each_convolution_but_the_first():
    network = tiny(dropout=0.5)
    variables = shapes(network, (8, 8, 3))[0]
    convolutions = sum(leaf.ndim == 4 for leaf in jax.tree.leaves(variables["params"]))
    assert convolutions == 1 + 2 * 5 + 1
    assert count_draws(network, variables, (8, 8, 3), train=True) == convolutions - 1
    assert count_draws(network, variables, (8, 8, 3), train=False) == 0


def test_without_normalisation_convolutions_have_biases():
    leaves = leaf_shapes(norm="none")
    assert {path.rpartition("/")[2] for path in leaves} == {"kernel", "bias"}
    assert not any("norm" in path for path in leaves)
    assert leaves["stem/bias"] == (8,)
    assert leaves["stage1/layer1/conv1/conv/bias"] == (16,)
    assert leaves["transition1/conv/bias"] == (8,)


def kept_for_the_backward_pass(layers, remat):
    """Numbers kept between the passes of one stage of so many layers."""
    network, images = tiny(stage_sizes=(layers,), growth_rate=8, remat=remat), jnp.zeros((2, 16, 16, 3))
    variables = shapes(network, images.shape[1:])[0]
    found = []

    def differentiate(params, statistics):
        def loss(params):
            variables = {"params": params, "batch_stats": statistics}
            return network.apply(variables, images, train=True, mutable=["batch_stats"])[0].logits.sum()

        _, backward = jax.vjp(loss, params)
        found.append(sum(leaf.size for leaf in {id(leaf): leaf for leaf in jax.tree.leaves(backward)}.values()))

    jax.eval_shape(differentiate, variables["params"], variables["batch_stats"])
    return found[0]


def test_with_remat_memory_is_linear_in_the_layers():
    two, four, eight = (kept_for_the_backward_pass(layers, remat=True) for layers in (2, 4, 8))
    assert eight - four < 2.5 * (four - two)
    assert 5 * eight < kept_for_the_backward_pass(8, remat=False)


def test_remat_wraps_each_layer_and_transition():
    assert [count_rematerialised(tiny(remat=remat), (8, 8, 3)) for remat in (False, True)] == [0, 5 + 1]


@pytest.mark.parametrize(
    ("fields", "smallest"),
    [
        ({"stage_sizes": (1, 1, 1, 1)}, 8),
        ({"stage_sizes": (1, 1)}, 2),
        ({"stage_sizes": (1, 1, 1, 1), "stem": "imagenet"}, 29),
        ({"stage_sizes": (1, 1), "stem": "imagenet"}, 5),
    ],
)
def test_smallest_images(fields, smallest):
    assert features(smallest, **fields)[f"stage{len(fields['stage_sizes'])}"][:2] == (1, 1)
    with pytest.raises(ConfigError, match=f"at least {smallest}x{smallest}"):
        features(smallest - 1, **fields)
