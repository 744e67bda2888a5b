"""GoogLeNet: its computation from the paper's definitions, and what each switch changes."""

import functools
import math

import jax
import numpy as np
import pytest
from definitions import (
    as_float64,
    assert_same,
    average_to,
    built,
    connect,
    convolve,
    pool,
    random_images,
    random_variables,
    relu,
    respond,
    shapes,
)

from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.weights.convert import flatten

SMALL = {"stem": "small", "width": 0.125, "num_classes": 5}
SHALLOW = {**SMALL, "depth": 0.1}
# The least to compile.
LIGHT = {**SHALLOW, "modules": "naive", "lrn": "off", "auxiliary_pool": "adaptive"}
QUIET = {"dropout": 0.0, "auxiliary_dropout": 0.0}


def leaf_shapes(shape=(32, 32, 3), **fields):
    """The shapes of the variables by path."""
    return built("googlenet", shape, **fields)[1]


def outputs_of(shape=(32, 32, 3), *, train=False, **fields):
    """The shapes of the outputs for one image."""
    return built("googlenet", shape, train=train, **fields)[0]


def modules_of(**fields):
    """The names of the inception modules."""
    return sorted({path.split("/")[0] for path in leaf_shapes(**fields) if path.startswith("inception")})


def call(network, variables, images, *, train=True):
    """The outputs."""

    def apply(variables, images):
        return network.apply(variables, images, train=train, rngs={"dropout": jax.random.key(0)})

    return jax.jit(apply)(variables, images)


def by_definition(params, x, network):
    """Logits, auxiliary logits and stage maps of a network without normalisation, as the paper describes them."""

    def conv(params, x, stride=1):
        return relu(convolve(x, **params["conv"], stride=stride))

    def branch(params, x):
        for layer in sorted(params):
            x = conv(params[layer], x)
        return x

    def module(params, x):
        maps = [branch(params[name], x) for name in ("branch1x1", "branch3x3", "branch5x5")]
        return np.concatenate([*maps, branch(params.get("branch_pool", {}), pool(x, 3, 1, padding="symmetric"))], -1)

    def auxiliary(params, x):
        x = pool(x, 5, 3, np.nanmean) if network.auxiliary_pool == "window" else average_to(x, 4)
        x = conv(params["conv"], x)
        return connect(relu(connect(x.reshape(len(x), -1), params["dense"])), params["head"])

    early, lrn = network.stem == "imagenet", (network.lrn_size, network.lrn_k, network.lrn_alpha, network.lrn_beta)
    features, aux = {"stem": conv(params["conv1"], x, 2 if early else 1)}, {}
    x = pool(features["stem"], 3, 2, padding="ceil") if early else features["stem"]
    features["stage1"] = conv(params["conv2"], conv(params["conv2_reduce"], respond(x, *lrn)))
    x = respond(features["stage1"], *lrn)
    x = pool(x, 3, 2, padding="ceil") if early else x
    for stage, name in (("stage2", "inception3"), ("stage3", "inception4"), ("stage4", "inception5")):
        modules = sorted(key for key in params if key.startswith(name))
        for key in modules:
            x = module(params[key], x)
            if stage == "stage3" and key == modules[0]:
                aux["auxiliary1"] = auxiliary(params["auxiliary1"], x)
            if stage == "stage3" and key == modules[-2]:
                aux["auxiliary2"] = auxiliary(params["auxiliary2"], x)
        features[stage] = x
        if stage != "stage4":
            x = pool(x, network.fourth_pool if stage == "stage3" else 3, 2, padding="ceil")
    return connect(x.mean((1, 2)), params["head"]), aux, features


@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        ((79, 97, 3), {}),
        (
            (32, 38, 2),
            {
                "stem": "small",
                "depth": 0.5,
                "modules": "naive",
                "third_kernel": 3,
                "fourth_pool": 2,
                "lrn_size": 3,
                "lrn_k": 0.5,
                "lrn_alpha": 0.3,
                "lrn_beta": 1.25,
                "auxiliary_pool": "adaptive",
            },
        ),
    ],
)
def test_the_network_is_the_papers(shape, fields):
    network = create_model("googlenet", num_classes=5, width=0.125, **QUIET, **fields)
    variables, images = random_variables(network, shape), random_images(2, *shape)
    outputs = call(network, variables, images)
    logits, aux, features = by_definition(as_float64(variables["params"]), images, network)
    assert_same(outputs, features, logits)
    assert set(outputs.aux) == set(aux)
    for name, expected in aux.items():
        np.testing.assert_allclose(outputs.aux[name], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_stages_at_the_native_size():
    outputs = outputs_of((224, 224, 3))
    assert outputs.features == {
        "stem": (112, 112, 64),
        "stage1": (56, 56, 192),
        "stage2": (28, 28, 480),
        "stage3": (14, 14, 832),
        "stage4": (7, 7, 1024),
    }
    assert outputs.logits == (1000,)
    assert outputs.aux == {}


def test_small_stem_keeps_the_size():
    sides = {stage: shape[:2] for stage, shape in outputs_of((32, 24, 1), **SHALLOW).features.items()}
    assert sides == {"stem": (32, 24), "stage1": (32, 24), "stage2": (32, 24), "stage3": (16, 12), "stage4": (8, 6)}


@pytest.mark.parametrize(("count", "names"), [(0, []), (1, ["auxiliary2"]), (2, ["auxiliary1", "auxiliary2"])])
def test_auxiliary_classifiers_have_names(count, names):
    fields = {**SHALLOW, "auxiliary_classifiers": count}
    assert outputs_of(train=True, **fields).aux == dict.fromkeys(names, (5,))
    assert sorted({path.split("/")[0] for path in leaf_shapes(**fields) if path.startswith("auxiliary")}) == names


def test_auxiliary_classifiers_see_4a_and_4d():
    found = leaf_shapes((224, 224, 3))
    params = dict.fromkeys(("auxiliary1", "auxiliary2"), 0)
    for path, shape in found.items():
        if path.split("/")[0] in params:
            params[path.split("/")[0]] += math.prod(shape)
    assert params == {"auxiliary1": 3_188_840, "auxiliary2": 3_190_888}
    assert found["auxiliary1/conv/conv/kernel"] == (1, 1, 512, 128)
    assert found["auxiliary2/conv/conv/kernel"] == (1, 1, 528, 128)
    assert found["auxiliary1/dense/kernel"] == (4 * 4 * 128, 1024)


def test_auxiliary_pool_is_of_the_image_or_of_one_size():
    by_pool = {
        pool: [leaf_shapes(size, auxiliary_pool=pool, **SHALLOW)["auxiliary1/dense/kernel"][0] for size in sizes]
        for pool, sizes in {
            "window": [(64, 32, 3)],
            "adaptive": [(64, 32, 3), (8, 8, 3)],
        }.items()
    }
    assert by_pool == {"window": [10 * 4 * 16], "adaptive": [4 * 4 * 16] * 2}


@pytest.fixture(scope="module")
def calm():
    """Images, variables, and the outputs in training without any dropout."""
    network, images = create_model("googlenet", **LIGHT, **QUIET), random_images(4, 16, 16, 3)
    variables = random_variables(network, (16, 16, 3))
    return images, variables, call(network, variables, images)


@pytest.mark.parametrize(("field", "changed"), [("dropout", "logits"), ("auxiliary_dropout", "aux")])
def test_dropouts_touch_their_own_classifier(calm, field, changed):
    images, variables, usual = calm
    dropped = call(create_model("googlenet", **LIGHT, **{**QUIET, field: 0.5}), variables, images)
    differs = {"logits": not np.allclose(dropped.logits, usual.logits, atol=1e-3)}
    differs["aux"] = all(not np.allclose(dropped.aux[name], usual.aux[name], atol=1e-3) for name in usual.aux)
    assert differs == {"logits": changed == "logits", "aux": changed == "aux"}


def test_evaluation_drops_nothing_and_has_no_auxiliary_logits(calm):
    images, variables, usual = calm
    evaluated = call(create_model("googlenet", **LIGHT), variables, images, train=False)
    np.testing.assert_allclose(evaluated.logits, usual.logits, rtol=1e-5, atol=1e-5)
    assert evaluated.aux == {}


def test_published_dropout_rates():
    network = create_model("googlenet")
    assert (network.dropout, network.auxiliary_dropout) == (0.4, 0.7)
    assert create_model("googlenet_bn").dropout == 0.2


def test_naive_modules_have_no_reductions_and_pass_their_input_on():
    found = leaf_shapes(stem="small", depth=0.1, modules="naive")
    assert {path: shape for path, shape in found.items() if "inception3b" in path and "kernel" in path} == {
        f"inception3b/{branch}/conv1/conv/kernel": (kernel, kernel, 192, width)
        for branch, kernel, width in (("branch1x1", 1, 128), ("branch3x3", 3, 192), ("branch5x5", 5, 96))
    }
    assert outputs_of(modules="naive", **SHALLOW).features["stage2"][-1] == 16 + 24 + 16 + 24


def test_third_kernel_is_that_of_one_branch():
    usual, changed = leaf_shapes(**SHALLOW), leaf_shapes(third_kernel=3, **SHALLOW)
    different = {path for path in usual if usual[path] != changed[path]}
    assert different == {f"{name}/branch5x5/conv2/conv/kernel" for name in modules_of(**SHALLOW)}
    assert {changed[path][:2] for path in different} == {(3, 3)}


@pytest.mark.parametrize(("window", "side"), [(3, 8), (2, 9)])
def test_fourth_pool_is_the_one_before_5a(window, side):
    found = outputs_of((34, 34, 3), fourth_pool=window, **SHALLOW).features
    assert (found["stage3"][0], found["stage4"][0]) == (17, side)


def test_lrn_may_be_off_or_batch_normalisation():
    on, off, batch = (leaf_shapes(lrn=lrn, **SHALLOW) for lrn in ("on", "off", "batch_norm"))
    assert on == off
    extra = {path: shape for path, shape in batch.items() if path not in on}
    assert {path.split("/")[0] for path in extra} == {"response_norm1", "response_norm2"}
    assert {path.split("/")[1] for path in extra} == {"scale", "bias", "mean", "var"}


def test_squeeze_and_excitation_after_every_module():
    usual, changed = leaf_shapes(**SHALLOW), leaf_shapes(se_ratio=4, **SHALLOW)
    extra = {path: shape for path, shape in changed.items() if path not in usual}
    names = modules_of(**SHALLOW)
    assert {path.rpartition("/")[0] for path in extra} == {
        f"{name}/squeeze_excite/{layer}" for name in names for layer in ("reduce", "expand")
    }
    assert extra["inception3b/squeeze_excite/reduce/kernel"] == (16 + 24 + 16 + 8, 16)
    assert {path: shape for path, shape in changed.items() if path not in extra} == usual


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_normalisation_takes_the_place_of_biases(norm):
    plain_shapes, normalised = leaf_shapes(**SHALLOW), leaf_shapes(norm=norm, **SHALLOW)
    biases = {path for path in plain_shapes if path.endswith("conv/bias")}
    assert plain_shapes.keys() - normalised.keys() == biases
    layers = {path.removesuffix("conv/bias") for path in biases}
    leaves = ("scale", "bias", "mean", "var") if norm == "batch" else ("scale", "bias")
    assert normalised.keys() - plain_shapes.keys() == {f"{layer}norm/{leaf}" for layer in layers for leaf in leaves}


@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 44, 3)])
def test_dense_head_has_one_size(shape):
    usual, changed = leaf_shapes(**SHALLOW), leaf_shapes(shape, head="dense", auxiliary_classifiers=0, **SHALLOW)
    assert changed["dense1/kernel"] == (7 * 7 * usual["head/kernel"][0], 128)
    assert changed["head/kernel"] == (128, 5)


@pytest.mark.parametrize(
    ("depth", "names"),
    [
        (0.1, ["3b", "4e", "5b"]),
        (0.5, ["3b", "4b", "4d", "4e", "5b"]),
        (1.5, ["3a", "3b", "3b_2", "4a", "4b", "4b_2", "4c", "4d", "4d_2", "4e", "4e_2", "5a", "5b", "5b_2"]),
    ],
)
def test_depth_repeats_or_leaves_out_modules(depth, names):
    fields = {**SMALL, "depth": depth}
    assert modules_of(**fields) == [f"inception{name}" for name in names]
    channels = [shape[-1] for shape in outputs_of(**fields).features.values()]
    assert channels == [shape[-1] for shape in outputs_of(**SMALL).features.values()]
    # One auxiliary classifier on the first module of the stage, one on the last but one.
    stage = [f"inception{name}" for name in names if name.startswith("4")]
    found = leaf_shapes(**fields)
    for name, module in (("auxiliary1", stage[0]), ("auxiliary2", stage[max(len(stage) - 2, 0)])):
        branches = {path: shape for path, shape in found.items() if path.startswith(f"{module}/")}
        last = {path.split("/")[1]: shape[-1] for path, shape in sorted(branches.items())}
        assert found[f"{name}/conv/conv/kernel"][2] == sum(last.values())


def test_width_scales_every_layer():
    usual, twice = (leaf_shapes(stem="small", depth=0.1, num_classes=5, width=width) for width in (1.0, 2.0))
    heads = {"head/bias": (5,), "auxiliary1/head/bias": (5,), "auxiliary2/head/bias": (5,)}
    doubled = {path: (2 * shape[0],) for path, shape in usual.items() if path.endswith("bias")}
    assert {path: shape for path, shape in twice.items() if path.endswith("bias")} == {**doubled, **heads}


def test_remat_recomputes_each_module():
    network = create_model("googlenet", remat=True, **SHALLOW)
    initialise = jax.make_jaxpr(functools.partial(network.init, train=False), return_shape=True)
    graph, variables = initialise(jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
    assert str(graph).count("prevent_cse") == 3
    assert {path: leaf.shape for path, leaf in flatten(variables).items()} == leaf_shapes(**SHALLOW)


@pytest.mark.parametrize(
    ("fields", "smallest"),
    [
        ({}, 79),
        ({"stem": "small"}, 10),
        ({"auxiliary_classifiers": 1}, 79),
        ({"auxiliary_classifiers": 0}, 1),
        ({"auxiliary_pool": "adaptive"}, 1),
    ],
)
def test_smallest_images(fields, smallest):
    fields = {"width": 0.125, "depth": 0.1, **fields}
    side = outputs_of((smallest, smallest + 30, 1), train=True, **fields).features["stage3"][0]
    assert side == (5 if smallest > 1 else 1)
    with pytest.raises(ConfigError, match=f"of at least {smallest}x{smallest}; got"):
        outputs_of((smallest + 30, smallest - 1, 1), train=True, **fields)


def test_evaluation_takes_any_size():
    network = create_model("googlenet", width=0.125, depth=0.1, num_classes=5)
    variables, _ = shapes(network, (96, 96, 3))
    images = jax.ShapeDtypeStruct((1, 1, 7, 3), np.float32)
    assert jax.eval_shape(functools.partial(network.apply, train=False), variables, images).logits.shape == (1, 5)
    with pytest.raises(ConfigError, match="at least 79x79"):
        jax.eval_shape(functools.partial(network.apply, train=True), variables, images)
