"""Inception v3: what each switch changes, and its auxiliary classifier from the definition."""

import jax
import numpy as np
import pytest
from definitions import (
    as_float64,
    blocks_of,
    built,
    connect,
    convolve,
    count_rematerialised,
    dropped_shapes,
    kernel_sizes,
    normalise,
    pool,
    random_images,
    random_variables,
    relu,
    run,
    shapes,
)
from flax import linen as nn

from cnnjax.models import create_model
from cnnjax.nn.inception import AuxiliaryClassifier
from cnnjax.nn.layers import Layers
from cnnjax.weights.convert import flatten

SHALLOW = {"stem": "small", "width": 0.125, "depth": 0.1, "num_classes": 5}


def leaf_shapes(shape=(16, 16, 3), **fields):
    return built("inception_v3", shape, train=True, **fields)[1]


def outputs_of(shape=(16, 16, 3), **fields):
    return built("inception_v3", shape, train=True, **fields)[0]


def test_stages_at_the_native_size():
    outputs = outputs_of((299, 299, 3))
    assert outputs.features == {
        "stem": (147, 147, 64),
        "stage1": (71, 71, 192),
        "stage2": (35, 35, 288),
        "stage3": (17, 17, 768),
        "stage4": (8, 8, 2048),
    }
    assert outputs.logits == (1000,)
    assert outputs.aux == {}


def test_factorization():
    usual, full = leaf_shapes(**SHALLOW), leaf_shapes(factorization="full", **SHALLOW)
    assert kernel_sizes(usual, "stage3/block2/branch7x7") == [(1, 1), (1, 7), (7, 1)]
    assert kernel_sizes(usual, "stage3/block2/branch_double7x7") == [(1, 1), (7, 1), (1, 7), (7, 1), (1, 7)]
    assert kernel_sizes(usual, "stage4/block1/branch7x7") == [(1, 1), (1, 7), (7, 1), (3, 3)]
    assert kernel_sizes(full, "stage3/block2/branch7x7") == [(1, 1), (7, 7)]
    assert kernel_sizes(full, "stage3/block2/branch_double7x7") == [(1, 1), (7, 7), (7, 7)]
    assert kernel_sizes(full, "stage4/block1/branch7x7") == [(1, 1), (7, 7), (3, 3)]
    same = [path for path in usual if "7x7" not in path]
    assert {path: usual[path] for path in same} == {path: full[path] for path in full if "7x7" not in path}
    assert outputs_of(factorization="full", **SHALLOW) == outputs_of(**SHALLOW)


def test_the_auxiliary_classifier_is_of_training_alone():
    usual, more = leaf_shapes(**SHALLOW), leaf_shapes(auxiliary_classifiers=1, **SHALLOW)
    assert {path.split("/")[0] for path in more if path not in usual} == {"auxiliary"}
    assert (more["auxiliary/conv1/conv/kernel"], more["auxiliary/conv2/conv/kernel"]) == (
        (1, 1, 96, 16),
        (5, 5, 16, 96),
    )
    network = create_model("inception_v3", auxiliary_classifiers=1, **SHALLOW)
    variables, evaluated = shapes(network, (16, 16, 3))
    assert {path: leaf.shape for path, leaf in flatten(variables).items()} == more
    assert evaluated.aux == {}
    assert outputs_of(auxiliary_classifiers=1, **SHALLOW).aux == {"auxiliary": (5,)}


@pytest.mark.parametrize(("height", "width"), [(17, 21), (13, 19), (4, 3)])
def test_the_auxiliary_classifier_pads_only_what_does_not_fit(height, width):
    layers = Layers(train=False, norm_epsilon=1e-3)
    classifier = AuxiliaryClassifier(layers, 5, (4, 6), 0.0)
    x = random_images(2, height, width, 3)
    shaped = jax.eval_shape(classifier.init, jax.random.key(0), x)
    random = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: random.uniform(0.1, 1, leaf.shape).astype(np.float32), shaped)
    found = jax.jit(classifier.apply)(variables, x)

    params, statistics = as_float64(variables["params"]), as_float64(variables["batch_stats"])
    fits = min(height, width) >= 5
    edges = ((0, 0), (0, 0))
    if not fits:
        # TensorFlow's SAME: two windows along 4 pixels, one along 3.
        assert (height, width) == (4, 3)
        edges = ((2, 2), (1, 1))
    padded = np.pad(x, ((0, 0), *edges, (0, 0)), constant_values=np.nan)
    y = pool(padded, 5, 3, np.nanmean)
    for name in ("conv1", "conv2"):
        y = convolve(y, **params[name]["conv"], padding="valid" if min(y.shape[1:3]) >= 5 else "symmetric")
        y = relu(normalise(y, params[name]["norm"], statistics[name]["norm"], 1e-3))
    np.testing.assert_allclose(found, connect(y.mean((1, 2)), params["head"]), rtol=1e-5)


def test_average_pools_that_count_the_padding_differ_at_the_edges():
    ignored, counted = (
        create_model("inception_v3", count_padding=value, norm="none", **SHALLOW) for value in (False, True)
    )
    variables, images = random_variables(ignored, (9, 9, 3)), random_images(2, 9, 9, 3)
    without, having = (run(network, variables, images).features for network in (ignored, counted))
    np.testing.assert_array_equal(without["stage1"], having["stage1"])
    difference = np.abs(np.asarray(without["stage2"]) - having["stage2"]).max((0, 3))
    np.testing.assert_allclose(difference[1:-1, 1:-1], 0, atol=1e-6)
    assert difference[0].min() > 1e-3
    assert difference[:, 0].min() > 1e-3


def test_squeeze_and_excitation_of_every_module():
    usual, changed = leaf_shapes(**SHALLOW), leaf_shapes(se_ratio=4, **SHALLOW)
    extra = {path: shape for path, shape in changed.items() if path not in usual}
    modules = ["stage2/block2", "stage3/block1", "stage3/block2", "stage4/block1", "stage4/block2"]
    assert sorted({path.split("/squeeze_excite")[0] for path in extra}) == modules
    assert extra["stage4/block2/squeeze_excite/reduce/kernel"] == (256, 64)


@pytest.mark.parametrize(
    ("fields", "leaves"),
    [
        ({}, {"norm/scale", "norm/bias", "norm/mean", "norm/var"}),
        ({"norm_scale": False}, {"norm/bias", "norm/mean", "norm/var"}),
        ({"norm": "none"}, {"conv/bias"}),
        ({"norm": "group"}, {"norm/scale", "norm/bias"}),
    ],
)
def test_biases_and_normalisations(fields, leaves):
    found = leaf_shapes(**SHALLOW, **fields)
    for name in ("stem/conv1", "stage2/block2/branch_pool/conv1", "stage4/block2/branch3x3/conv2_arm2"):
        assert {path.removeprefix(f"{name}/") for path in found if path.startswith(f"{name}/")} == {
            "conv/kernel",
            *leaves,
        }


@pytest.mark.parametrize(
    ("depth", "last_blocks", "factors"),
    [(0.1, (2, 2, 2), [192]), (0.5, (3, 3, 2), [160, 192]), (1.5, (6, 7, 4), [128, 160, 160, 160, 192, 192])],
)
def test_depth_repeats_or_leaves_out_modules_that_keep_the_size(depth, last_blocks, factors):
    leaves = leaf_shapes(stem="small", num_classes=5, depth=depth)
    expected = ["stage1/block1", *(f"stage2/block{number}" for number in range(2, last_blocks[0] + 1))]
    for stage, last in zip((3, 4), last_blocks[1:], strict=True):
        expected += [f"stage{stage}/block{number}" for number in range(1, last + 1)]
    assert blocks_of(leaves) == expected
    found = [leaves[f"stage3/block{number}/branch7x7/conv2/conv/kernel"][3] for number in range(2, last_blocks[1] + 1)]
    assert found == factors


def test_width_scales_every_layer():
    fields = {"stem": "small", "depth": 0.1, "num_classes": 5, "auxiliary_classifiers": 1}
    usual, twice = (leaf_shapes(**fields, width=width) for width in (1.0, 2.0))
    doubled = {path: (2 * shape[0],) for path, shape in usual.items() if path.endswith("norm/mean")}
    assert {path: shape for path, shape in twice.items() if path.endswith("norm/mean")} == doubled
    assert twice["head/kernel"] == (4096, 5)


def test_remat_recomputes_each_block():
    usual, again = (create_model("inception_v3", remat=remat, **SHALLOW) for remat in (False, True))
    assert count_rematerialised(usual, (16, 16, 3)) == 0
    assert count_rematerialised(again, (16, 16, 3)) == 1 + 2 + 2 + 2
    assert flatten(shapes(again, (16, 16, 3))[0]).keys() == leaf_shapes(**SHALLOW).keys()


def test_dropouts_are_before_the_heads_in_training_alone():
    rates = {"dropout": 0.5, "auxiliary_dropout": 0.3}
    network = create_model("inception_v3", auxiliary_classifiers=1, **rates, **SHALLOW)
    assert dropped_shapes(network, (16, 16, 3)) == [((96,), 0.3), ((256,), 0.5)]
    assert dropped_shapes(network, (16, 16, 3), train=False) == []
    usual = create_model("inception_v3", auxiliary_classifiers=1)
    assert (usual.dropout, usual.auxiliary_dropout) == (0.5, 0.0)


def test_normalisation_constants_are_inceptions():
    seen = set()

    def note(call, args, kwargs, context):
        if type(context.module).__name__ == "BatchNorm":
            seen.add((context.module.epsilon, context.module.momentum))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes(create_model("inception_v3", **SHALLOW), (16, 16, 3))
    assert seen == {(1e-3, 0.9)}
