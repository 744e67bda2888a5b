"""Inception v2 and SE-Inception: their computation from the definitions, and what each switch changes."""

import functools

import jax
import numpy as np
import pytest
from definitions import (
    as_float64,
    assert_same,
    built,
    connect,
    convolve,
    normalise,
    pool,
    random_images,
    random_variables,
    relu,
    sigmoid,
)

from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.weights.convert import flatten, shapes_of

SMALL = {"stem": "small", "width": 0.125, "num_classes": 5}
SHALLOW = {**SMALL, "depth": 0.1}


def leaf_shapes(shape=(32, 32, 3), name="inception_v2", **fields):
    """The shapes of the variables by path."""
    return built(name, shape, **fields)[1]


def outputs_of(shape=(32, 32, 3), name="inception_v2", **fields):
    """The shapes of the outputs for one image."""
    return built(name, shape, **fields)[0]


def modules_of(shapes):
    """The names of the inception modules."""
    return sorted({path.split("/")[0] for path in shapes if path.startswith("inception")})


def call(network, variables, images, *, train=False):
    """The outputs."""

    def apply(variables, images):
        return network.apply(variables, images, train=train, rngs={"dropout": jax.random.key(0)})

    return jax.jit(apply)(variables, images)


def by_definition(variables, x, network):
    """Logits and stage maps of an evaluated network, layer by layer."""
    slim = network.padding == "same"

    def conv(variables, x, stride=1):
        params = variables["params"]
        x = convolve(x, **params["conv"], stride=stride, padding="same" if slim else "symmetric")
        return relu(normalise(x, params["norm"], variables["batch_stats"]["norm"], network.norm_epsilon))

    def of(variables, *path):
        for key in path:
            variables = {collection: tree[key] for collection, tree in variables.items()}
        return variables

    def stem_pool(x):
        return x if network.stem == "small" else pool(x, 3, 2, padding="same" if slim else "ceil")

    def average(x):
        edges = 0.0 if network.count_padding else np.nan
        return pool(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=edges), 3, 1, np.nanmean)

    def module(name, x):
        branches = params[name]
        stride, maps = 1 if "branch1x1" in branches else 2, []
        for branch in ("branch1x1", "branch3x3", "branch_double3x3"):
            y, layers = x, sorted(branches.get(branch, {}))
            for layer in layers:
                y = conv(of(variables, name, branch, layer), y, stride if layer == layers[-1] else 1)
            maps += [y] if layers else []
        strongest = stride == 2 or name == "inception5b"
        y = pool(x, 3, stride, padding="same") if strongest else average(x)
        y = conv(of(variables, name, "branch_pool", "conv1"), y) if "branch_pool" in branches else y
        x = np.concatenate([*maps, y], -1)
        if network.se_ratio:
            squeeze = branches["squeeze_excite"]
            gate = connect(relu(connect(x.mean((1, 2)), squeeze["reduce"])), squeeze["expand"])
            x = x * sigmoid(gate)[:, None, None]
        return x

    params = variables["params"]
    if network.stem == "separable":
        # Each channel by itself, to eight.
        assert params["conv1_depthwise"]["kernel"].shape == (7, 7, 1, 24)
        first = convolve(x, **params["conv1_depthwise"], stride=2, padding="same")
        first = relu(convolve(first, **params["conv1_pointwise"]))
    else:
        first = conv(of(variables, "conv1"), x, 2 if network.stem == "imagenet" else 1)
    second = conv(of(variables, "conv2"), conv(of(variables, "conv2_reduce"), stem_pool(first)))
    features, x = {"stem": first, "stage1": second}, stem_pool(second)
    for name in sorted(key for key in params if key.startswith("inception")):
        if name in ("inception3c", "inception4e"):
            features["stage2" if name == "inception3c" else "stage3"] = x
        x = module(name, x)
    return connect(x.mean((1, 2)), params["head"]), {**features, "stage4": x}


@pytest.mark.parametrize(
    ("name", "fields", "shape"),
    [
        ("inception_v2_slim", {}, (67, 84, 3)),
        ("se_inception", {"depth": 0.5}, (75, 96, 3)),
        (
            "inception_v2",
            {
                "stem": "small",
                "depth": 0.1,
                "modules": "naive",
                "third_branch": "5x5",
                "conv_bias": True,
                "count_padding": False,
            },
            (18, 23, 2),
        ),
    ],
)
def test_the_network_is_the_published_one(name, fields, shape):
    network = create_model(name, num_classes=5, width=0.125, **fields)
    variables, images = random_variables(network, shape), random_images(2, *shape)
    outputs = call(network, variables, images)
    logits, features = by_definition(as_float64(variables), images, network)
    assert_same(outputs, features, logits)
    assert outputs.aux == {}


def test_stages_at_the_native_size():
    outputs = outputs_of((224, 224, 3))
    assert outputs.features == {
        "stem": (112, 112, 64),
        "stage1": (56, 56, 192),
        "stage2": (28, 28, 320),
        "stage3": (14, 14, 608),
        "stage4": (7, 7, 1024),
    }
    assert outputs.logits == (1000,)


def test_slim_projections_give_the_printed_widths():
    outputs, shapes = (function((224, 224, 3), "inception_v2_slim") for function in (outputs_of, leaf_shapes))
    assert outputs.features["stage3"] == (14, 14, 576)
    projections = {path[9:11]: shape[-1] for path, shape in shapes.items() if "branch_pool/conv1/conv/kernel" in path}
    assert projections == {"3a": 32, "3b": 64, "4a": 128, "4b": 128, "4c": 96, "4d": 96, "5a": 128, "5b": 128}
    assert not [path for path in shapes if path.endswith("norm/scale")]


def test_small_stem_keeps_the_size():
    sides = {stage: shape[:2] for stage, shape in outputs_of((32, 24, 1), **SHALLOW).features.items()}
    assert sides == {"stem": (32, 24), "stage1": (32, 24), "stage2": (32, 24), "stage3": (16, 12), "stage4": (8, 6)}


def test_separable_stem_is_not_normalised():
    usual, changed = (leaf_shapes(**{**SHALLOW, "stem": stem}) for stem in ("imagenet", "separable"))
    assert {path: shape for path, shape in changed.items() if path not in usual} == {
        "conv1_depthwise/kernel": (7, 7, 1, 24),
        "conv1_pointwise/kernel": (1, 1, 24, 8),
        "conv1_pointwise/bias": (8,),
    }
    assert {path.split("/")[0] for path in usual if path not in changed} == {"conv1"}


@pytest.mark.parametrize(("padding", "sides"), [("caffe", (15, 7)), ("same", (15, 8))])
def test_paddings_differ_in_the_stems_pools(padding, sides):
    shapes = outputs_of((29, 29, 3), **{**SHALLOW, "stem": "imagenet", "padding": padding}).features
    assert (shapes["stem"][0], shapes["stage1"][0]) == sides


def test_naive_modules_have_no_reductions_and_pass_their_input_on():
    shapes = leaf_shapes(modules="naive", stem="small", depth=0.1)
    assert {path: shape for path, shape in shapes.items() if "inception3b" in path and "kernel" in path} == {
        "inception3b/branch1x1/conv1/conv/kernel": (1, 1, 192, 64),
        "inception3b/branch3x3/conv1/conv/kernel": (3, 3, 192, 96),
        "inception3b/branch_double3x3/conv1/conv/kernel": (3, 3, 192, 96),
        "inception3b/branch_double3x3/conv2/conv/kernel": (3, 3, 96, 96),
    }
    assert shapes["inception3c/branch3x3/conv1/conv/kernel"] == (3, 3, 64 + 96 + 96 + 192, 160)


def test_third_branch_is_two_3x3_or_one_5x5():
    usual, changed = leaf_shapes(**SHALLOW), leaf_shapes(third_branch="5x5", **SHALLOW)
    names = modules_of(usual)
    gone = {path.rsplit("/", 2)[0] for path in usual if path not in changed}
    assert gone == {f"{name}/branch_double3x3/conv3" for name in names}
    different = {path: (usual[path][:2], changed[path][:2]) for path in changed if usual[path] != changed[path]}
    assert different == {f"{name}/branch_double3x3/conv2/conv/kernel": ((3, 3), (5, 5)) for name in names}


def test_squeeze_and_excitation_after_every_module():
    usual, changed = leaf_shapes(**SHALLOW), leaf_shapes(name="se_inception", **SHALLOW)
    extra = {path: shape for path, shape in changed.items() if path not in usual}
    assert {path.rpartition("/")[0] for path in extra} == {
        f"inception{name}/squeeze_excite/{layer}"
        for name in ("3b", "3c", "4d", "4e", "5b")
        for layer in ("reduce", "expand")
    }
    assert extra["inception5b/squeeze_excite/reduce/kernel"] == (48 + 40 + 32 + 16, 8)


@pytest.mark.parametrize(
    ("fields", "leaves"),
    [
        ({}, {"norm/scale", "norm/bias", "norm/mean", "norm/var"}),
        ({"norm_scale": False}, {"norm/bias", "norm/mean", "norm/var"}),
        ({"conv_bias": True}, {"conv/bias", "norm/scale", "norm/bias", "norm/mean", "norm/var"}),
        ({"norm": "none"}, {"conv/bias"}),
        ({"norm": "group"}, {"norm/scale", "norm/bias"}),
    ],
)
def test_biases_and_normalisations(fields, leaves):
    shapes = leaf_shapes(**SHALLOW, **fields)
    for name in ("conv1", "conv2", "inception4e/branch3x3/conv2", "inception5b/branch_pool/conv1"):
        found = {path.removeprefix(f"{name}/") for path in shapes if path.startswith(f"{name}/")}
        assert found == {"conv/kernel", *leaves}


@pytest.mark.parametrize(
    ("depth", "names"),
    [
        (0.1, ["3b", "3c", "4d", "4e", "5b"]),
        (0.5, ["3b", "3c", "4b", "4d", "4e", "5b"]),
        (1.25, ["3a", "3b", "3b_2", "3c", "4a", "4b", "4c", "4d", "4d_2", "4e", "5a", "5b", "5b_2"]),
    ],
)
def test_depth_repeats_or_leaves_out_modules_of_stride_1(depth, names):
    fields = {**SMALL, "depth": depth}
    assert modules_of(leaf_shapes(**fields)) == [f"inception{name}" for name in names]
    channels = {stage: shape[-1] for stage, shape in outputs_of(**fields).features.items()}
    assert channels == {"stem": 8, "stage1": 24, "stage2": 48, "stage3": 80, "stage4": 136}


def test_width_scales_every_layer():
    fields = {"stem": "small", "depth": 0.1, "num_classes": 5}
    usual, twice = (leaf_shapes(**fields, width=width) for width in (1.0, 2.0))
    doubled = {path: (2 * shape[0],) for path, shape in usual.items() if path.endswith("norm/mean")}
    assert {path: shape for path, shape in twice.items() if path.endswith("norm/mean")} == doubled
    assert twice["head/kernel"] == (2048, 5)


def test_remat_recomputes_each_module():
    network = create_model("inception_v2", remat=True, **SHALLOW)
    initialise = jax.make_jaxpr(functools.partial(network.init, train=False), return_shape=True)
    graph, variables = initialise(jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
    assert str(graph).count("prevent_cse") == 5
    assert {path: leaf.shape for path, leaf in flatten(variables).items()} == leaf_shapes(**SHALLOW)


def test_dropout_is_before_the_head_in_training_alone():
    network = create_model("inception_v2", dropout=0.5, modules="naive", **{**SHALLOW, "norm": "none"})
    images, variables = random_images(4, 8, 8, 3), random_variables(network, (8, 8, 3))
    dropped, evaluated = (call(network, variables, images, train=train) for train in (True, False))
    np.testing.assert_allclose(dropped.features["stage4"], evaluated.features["stage4"], rtol=1e-5, atol=1e-5)
    expected = connect(np.asarray(evaluated.features["stage4"]).mean((1, 2)), variables["params"]["head"])
    np.testing.assert_allclose(evaluated.logits, expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(dropped.logits, expected, atol=1e-2)
    assert create_model("inception_v2").dropout == 0
    assert create_model("inception_v2_slim").dropout == 0.2


@pytest.mark.parametrize(
    ("name", "height", "sides"),
    [("inception_v2", 1, (1, 2)), ("inception_v2", 7, (1, 2)), ("inception_v2_slim", 1, (1, 3))],
)
def test_smallest_images(name, height, sides):
    fields = {"width": 0.125, "depth": 0.1}
    assert outputs_of((height, 65, 1), name, **fields).features["stage4"][:2] == sides
    with pytest.raises(ConfigError, match="of at least 1x1; got"):
        shapes_of(create_model(name, **fields), (0, 37, 1))
