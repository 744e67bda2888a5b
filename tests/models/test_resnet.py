"""ResNet, ResNeXt and SENet against a plain computation from the papers' definitions, and what each switch changes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definitions import as_float64, connect, convolve, normalise, part, pool, relu, sigmoid

from cnnjax.analysis.summary import summarize
from cnnjax.errors import ConfigError
from cnnjax.models import check_args, create_model
from cnnjax.nn.stage import stack_blocks, unstack_blocks

TINY = {"width": 0.125, "num_classes": 5}


def shapes_of(network, size=32):
    """Shapes of the parameters by path, from shapes alone."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda key, x: network.init(key, x, train=False), jax.random.key(0), images)
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    return {"/".join(entry.key for entry in path): leaf.shape for path, leaf in leaves}


def kernels(name, size=32, **fields):
    return {
        path.removesuffix("/conv/kernel"): shape
        for path, shape in shapes_of(create_model(name, **fields), size).items()
        if path.endswith("conv/kernel")
    }


def counts(name, size=64, **fields):
    summary = summarize(create_model(name, **fields), (size, size, 3))
    return summary.params, summary.macs


def features_of(name, size, **fields):
    """Height, width and channels of each stage, and the shape of the logits, from shapes alone."""
    network = create_model(name, **fields)
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    outputs, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), images)
    return {name: feature.shape[1:] for name, feature in outputs.features.items()}, outputs.logits.shape


@functools.cache
def random_variables(network, size):
    """Variables in which nothing is zero or one by chance: statistics and scales are random too."""
    variables = jax.eval_shape(
        lambda key, x: network.init(key, x, train=False), jax.random.key(0), jnp.zeros((1, *size, 3))
    )
    random = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return random.normal(size=leaf.shape) * math.sqrt(2 / math.prod(leaf.shape[:-1]))
        return random.uniform(0.5, 1.5, leaf.shape) if name in ("scale", "var") else random.normal(0, 0.3, leaf.shape)

    return jax.tree_util.tree_map_with_path(lambda path, leaf: draw(path, leaf).astype(np.float32), variables)


def by_hand(network, variables, x):
    """Logits and features in float64, straight from the papers."""

    def conv_norm(x, path, stride=1, groups=1, activate=True):
        params, statistics = part(variables, path)
        assert x.shape[-1] == groups * params["conv"]["kernel"].shape[2]
        x = normalise(convolve(x, **params["conv"], stride=stride), params["norm"], statistics["norm"], 1e-5)
        return relu(x) if activate else x

    def shortcut(x, block, y, stride):
        if "projection" in part(variables, block)[0]:
            return conv_norm(x, f"{block}/projection", stride, activate=False)
        if x.shape != y.shape:
            x = x[:, ::stride, ::stride]
            x = np.concatenate([x, np.zeros((*x.shape[:3], y.shape[3] - x.shape[3]))], 3)
        return x

    def gate(y, block):
        if network.se_ratio == 0:
            return y
        dense, _ = part(variables, f"{block}/squeeze_excite")
        hidden = relu(connect(y.mean((1, 2)), dense["reduce"]))
        return y * sigmoid(connect(hidden, dense["expand"]))[:, None, None]

    features = {}
    if network.stem == "deep":
        x = conv_norm(conv_norm(conv_norm(x, "stem1", 2), "stem2"), "stem3")
    else:
        x = conv_norm(x, "stem", 2 if network.stem == "imagenet" else 1)
    features["stem"] = x
    if network.stem != "small":
        x = pool(x, 3, 2, padding="ceil" if network.stem_pool == "ceil" else "symmetric")
    for stage in range(1, len(network.stage_sizes) + 1):
        for number in range(1, len(variables["params"][f"stage{stage}"]) + 1):
            block, stride = f"stage{stage}/block{number}", 2 if stage > 1 and number == 1 else 1
            on_first, on_second = (1, stride) if network.bottleneck and network.stride_on == "conv2" else (stride, 1)
            y = conv_norm(x, f"{block}/conv1", on_first)
            y = conv_norm(y, f"{block}/conv2", on_second, network.cardinality, activate=network.bottleneck)
            if network.bottleneck:
                y = conv_norm(y, f"{block}/conv3", activate=False)
            y = gate(relu(y) if network.activate_branch else y, block)
            x = relu(y if network.shortcut == "none" else y + shortcut(x, block, y, stride))
        features[f"stage{stage}"] = x
    return connect(x.mean((1, 2)), variables["params"]["head"]), features


CASES = {
    "plain18": {},
    "resnet18": {},
    "resnet18_a": {},
    "resnet50": {"shortcut": "projection_everywhere"},
    "resnet50_v1": {},
    "cifar_plain20": {},
    "cifar_resnet20": {},
    "cifar_resnet20_b": {},
    "resnext50_32x4d": {"cardinality": 4, "group_width": 16},
    "resnet34": {"cardinality": 4},
    "se_resnet18": {"activate_branch": True},
    "se_resnet50": {},
    "senet154": {"cardinality": 8, "group_width": 32},
}


@pytest.mark.parametrize("name", CASES)
def test_every_stage_is_what_the_definition_gives(name):
    network = create_model(name, **TINY, **CASES[name], stage_sizes=[2, 2], stage_widths=[64, 128])
    size = (13, 10) if network.stem == "small" else (37, 30)
    variables = random_variables(network, size)
    images = np.random.default_rng(1).normal(size=(1, *size, 3)).astype(np.float32)
    outputs = jax.jit(lambda variables, x: network.apply(variables, x, train=False))(variables, images)
    logits, features = by_hand(network, as_float64(variables), images)
    assert outputs.features.keys() == features.keys()
    for stage, expected in features.items():
        np.testing.assert_allclose(
            outputs.features[stage], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(), err_msg=stage
        )
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-5 * np.abs(logits).max())


# Sizes, names and counts, from shapes alone.


@pytest.mark.parametrize(
    ("name", "fields", "size", "expected"),
    [
        ("resnet50", {"depth": 0.3}, 224, [(112, 64), (56, 256), (28, 512), (14, 1024), (7, 2048)]),
        ("resnet18", {"stem": "small"}, 32, [(32, 64), (32, 64), (16, 128), (8, 256), (4, 512)]),
        ("cifar_resnet20", {}, 32, [(32, 16), (32, 16), (16, 32), (8, 64)]),
        ("resnext50_32x4d", {"depth": 0.1}, 64, [(32, 64), (16, 256), (8, 512), (4, 1024), (2, 2048)]),
        ("senet154", {"depth": 0.02}, 64, [(32, 128), (16, 256), (8, 512), (4, 1024), (2, 2048)]),
        # 225 pixels: the map of 113 is pooled to 57 by a border around, to 56 by Caffe's rule.
        ("resnet18", {}, 225, [(113, 64), (57, 64), (29, 128), (15, 256), (8, 512)]),
        ("se_resnet18", {}, 225, [(113, 64), (56, 64), (28, 128), (14, 256), (7, 512)]),
    ],
)
def test_features(name, fields, size, expected):
    features, logits = features_of(name, (size, size), **fields)
    names = ["stem", *(f"stage{stage}" for stage in range(1, len(expected)))]
    assert features == {name: (side, side, channels) for name, (side, channels) in zip(names, expected, strict=True)}
    assert logits == (2, 10 if name.startswith("cifar") else 1000)


@pytest.mark.parametrize("name", ["resnet50", "se_resnet18", "senet154", "cifar_resnet20"])
def test_one_pixel_is_enough_and_none_is_not(name):
    assert features_of(name, (1, 1), **TINY, depth=0.02)[1] == (2, 5)
    with pytest.raises(ConfigError, match=r"^ResNet takes images .* of at least 1x1; got \(2, 0, 7, 3\)"):
        features_of(name, (0, 7), **TINY)


def test_shortcuts_have_the_papers_parameters():
    def projections(shortcut):
        found = kernels("resnet18", shortcut=shortcut)
        return [path for path in found if path.endswith("projection")]

    assert projections("none") == projections("identity") == []
    assert projections("projection") == [f"stage{stage}/block1/projection" for stage in (2, 3, 4)]
    assert len(projections("projection_everywhere")) == 8
    # Bottlenecks widen in the first stage as well.
    assert "stage1/block1/projection" in kernels("resnet50", depth=0.1)


def test_the_stride_moves_between_a_bottlenecks_convolutions():
    (params, macs), (params_v1, macs_v1) = counts("resnet50", depth=0.1), counts("resnet50_v1", depth=0.1)
    assert params == params_v1
    # The stage's 1x1 ahead of a stride on the 3x3 sees four times the pixels.
    saved = sum(3 * (64 // 4 // 2**stage) ** 2 * (4 * 64 * 2 ** (stage - 1)) * 64 * 2**stage for stage in (1, 2, 3))
    assert macs - macs_v1 == saved


def test_stems():
    shallow = functools.partial(kernels, "resnet18", depth=0.5)
    assert shallow()["stem"] == (7, 7, 3, 64)
    assert shallow(stem="small", stem_width=16)["stem"] == (3, 3, 3, 16)
    deep = shallow(stem="deep")
    assert [deep[f"stem{n}"] for n in (1, 2, 3)] == [(3, 3, 3, 64), (3, 3, 64, 64), (3, 3, 64, 128)]


@pytest.mark.parametrize(("cardinality", "group_width"), [(32, 4), (8, 16), (1, 64), (6, 5)])
@pytest.mark.parametrize("width", [1.0, 0.3, 1.7])
def test_cardinality_and_width_go_together(cardinality, group_width, width):
    found = kernels("resnext50_32x4d", cardinality=cardinality, group_width=group_width, width=width, depth=0.1)
    for stage in (1, 2, 3, 4):
        _, _, seen, inner = found[f"stage{stage}/block1/conv2"]
        assert inner == seen * cardinality
        assert found[f"stage{stage}/block1/conv1"][3] == inner
        exact = cardinality * group_width * 2 ** (stage - 1) * width
        assert abs(inner - exact) <= math.lcm(8, cardinality)
        assert inner >= 0.9 * exact
        assert width != 1 or inner == exact


def test_groups_without_a_width_cut_the_3x3_convolutions():
    whole, cut = kernels("resnet50", depth=0.1), kernels("resnet50", depth=0.1, cardinality=4)
    assert {path for path in whole if whole[path] != cut[path]} == {path for path in whole if path.endswith("conv2")}
    assert cut["stage2/block1/conv2"] == (3, 3, 32, 128)
    # Of a basic block the second alone, or the groups would never meet.
    whole, cut = kernels("resnet18", depth=0.5), kernels("resnet18", depth=0.5, cardinality=4)
    assert {path for path in whole if whole[path] != cut[path]} == {path for path in whole if path.endswith("conv2")}
    # A width that 32 groups could not cut is rounded to one that they can.
    assert kernels("resnet18", cardinality=32, width=0.25, depth=0.5)["stage1/block1/conv2"] == (3, 3, 1, 32)


def test_senet154_has_the_appendix_of_the_paper():
    found = kernels("senet154", depth=0.02)
    assert found["stem3"] == (3, 3, 64, 128)
    assert found["stage2/block1/conv1"] == (1, 1, 256, 256)
    assert found["stage2/block1/conv2"] == (3, 3, 4, 512)
    assert found["stage2/block1/conv3"] == (1, 1, 512, 512)
    # Only projections with a stride grow.
    assert found["stage1/block1/projection"] == (1, 1, 128, 256)
    assert found["stage2/block1/projection"] == (3, 3, 256, 512)
    assert create_model("senet154").dropout == 0.2


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 128), ("resnext50_32x4d", 512)])
def test_squeeze_and_excitation_adds_two_dense_layers_a_block(name, channels):
    plain, squeezed = (shapes_of(create_model(name, depth=0.5, **fields)) for fields in ({}, {"se_ratio": 16}))
    added = {path: squeezed[path] for path in squeezed.keys() - plain.keys()}
    assert plain.items() <= squeezed.items()
    blocks = {path.rpartition("/conv1/")[0] for path in plain if "/conv1/" in path}
    assert added.keys() == {
        f"{block}/squeeze_excite/{layer}/{leaf}"
        for block in blocks
        for layer in ("reduce", "expand")
        for leaf in ("kernel", "bias")
    }
    assert added["stage2/block1/squeeze_excite/reduce/kernel"] == (channels, channels // 16)
    assert added["stage2/block1/squeeze_excite/expand/kernel"] == (channels // 16, channels)


@pytest.mark.parametrize(("divisor", "hidden"), [(1, [4, 8, 16, 32]), (8, [8, 8, 16, 32]), (32, [32, 32, 32, 32])])
def test_the_hidden_width_is_rounded(divisor, hidden):
    found = shapes_of(create_model("se_resnet18", se_divisor=divisor, depth=0.5))
    assert [found[f"stage{s}/block1/squeeze_excite/reduce/bias"] for s in (1, 2, 3, 4)] == [(n,) for n in hidden]


def test_width_scales_every_layer():
    usual, half = kernels("resnet50", depth=0.1), kernels("resnet50", depth=0.1, width=0.5)
    for path, (height, width, inputs, outputs) in usual.items():
        seen = inputs if path == "stem" else inputs // 2
        assert half[path] == (height, width, seen, outputs // 2), path


@pytest.mark.parametrize(("depth", "sizes"), [(0.1, [1, 1, 1, 1]), (0.5, [2, 2, 3, 2])])
def test_depth_repeats_blocks(depth, sizes):
    found = kernels("resnet50", depth=depth)
    blocks = {path.rpartition("/")[0] for path in found if path.startswith("stage")}
    assert [sum(block.startswith(f"stage{stage}/") for block in blocks) for stage in (1, 2, 3, 4)] == sizes


def test_convolutions_have_biases_where_asked_or_not_normalised():
    usual, biased, bare = (
        shapes_of(create_model("resnet18", depth=0.5, **fields))
        for fields in ({}, {"conv_bias": True}, {"norm": "none"})
    )
    assert biased.keys() - usual.keys() == {
        path.replace("kernel", "bias") for path in usual if path.endswith("conv/kernel")
    }
    assert bare == {path: shape for path, shape in biased.items() if "/norm/" not in path}


# What takes place in training.


def forward(network, variables, images, key=0):
    """Outputs and changed statistics in training."""
    rngs = {"dropout": jax.random.key(key)}
    return network.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)


@pytest.mark.parametrize(("field", "rate"), [("dropout", 0.5), ("stochastic_depth", 0.9)])
def test_dropping_is_of_training_alone(field, rate):
    small = {"stem": "small", "stem_width": 8, "stage_sizes": (1, 1), "stage_widths": (8, 16), "num_classes": 5}
    usual, dropping = (create_model("resnet18", **small, **fields) for fields in ({}, {field: rate}))
    variables = random_variables(usual, (4, 4))
    images = np.random.default_rng(1).normal(size=(64, 4, 4, 3)).astype(np.float32)
    evaluated = (network.apply(variables, images, train=False).logits for network in (usual, dropping))
    np.testing.assert_array_equal(*evaluated)
    train = jax.jit(lambda key: forward(dropping, variables, images, key)[0])
    first, second, again = (train(key) for key in (0, 1, 0))
    np.testing.assert_array_equal(first.logits, again.logits)
    assert not np.allclose(first.logits, second.logits)
    if field == "stochastic_depth":
        # The rate grows from 0 at the first block to its whole at the last, where what is left is the shortcut.
        expected = forward(usual, variables, images)[0].features
        np.testing.assert_allclose(first.features["stage1"], expected["stage1"], rtol=1e-4, atol=1e-4)
        alone = forward(create_model("resnet18", **small, stochastic_depth=0.999), variables, images)[0].features
        bare = np.isclose(first.features["stage2"], alone["stage2"], rtol=1e-3, atol=1e-4).all((1, 2, 3))
        assert bare.mean() == pytest.approx(rate, abs=0.12)


@functools.cache
def gradient(**fields):
    """Gradient, statistics after the step, and logits, without `scan`'s stacking whatever the fields."""
    small = {"stem": "small", "stem_width": 8, "stage_sizes": (3,), "stage_widths": (8,), "num_classes": 5}
    plain, network = (create_model("se_resnet18", **small, **switches) for switches in ({}, fields))
    variables = random_variables(plain, (8, 8))
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)
    if fields.get("scan"):
        like = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
        variables = stack_blocks(variables, like)
        assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, like)

    def loss(params):
        outputs, changed = forward(network, {**variables, "params": params}, images)
        return jnp.square(outputs.logits).sum(), (changed["batch_stats"], outputs.logits)

    found, (stats, logits) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    names = set(found["stage1"]), set(stats["stage1"])
    return unstack_blocks(found), unstack_blocks(stats), logits, names


@pytest.mark.parametrize("fields", [{"scan": True}, {"remat": True}, {"scan": True, "remat": True}])
def test_how_it_is_computed_changes_nothing(fields):
    expected, found = gradient(), gradient(**fields)
    if fields.get("scan"):
        assert found[3] == ({"block1", "block2to3"},) * 2
    for ours, usual in zip(found[:3], expected[:3], strict=True):
        assert jax.tree.structure(ours) == jax.tree.structure(usual)
        for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(usual), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-4 * np.abs(other).max(), err_msg=path)


# Fields that contradict each other.


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        (
            "resnet50",
            {"stage_sizes": [3, 4, 6]},
            "expected as many stage_sizes as stage_widths, got (3, 4, 6) and (64, ",
        ),
        ("resnet50", {"stage_sizes": [], "stage_widths": []}, "expected as many stage_sizes as stage_widths, got ()"),
        ("resnext50_32x4d", {"bottleneck": False}, "group_width and reduced: half are of bottlenecks; set bottleneck"),
        ("resnet18", {"reduced": "half"}, "group_width and reduced: half are of bottlenecks; set bottleneck"),
        ("resnet50", {"cardinality": 3}, "cardinality 3 does not divide the 64 channels of a stage's 3x3"),
        ("senet154", {"group_width": 3}, "cardinality 64 does not divide half the 192 channels of a stage's 3x3"),
    ],
)
def test_contradictions_are_one_clear_sentence(name, args, sentence):
    with pytest.raises(ConfigError) as raised:
        check_args(name, args)
    assert str(raised.value).startswith(f"model.args: {sentence}")
    assert "\n" not in str(raised.value)


def test_what_would_contradict_can_be_set_together():
    check_args("resnext50_32x4d", {"bottleneck": False, "group_width": None})
    check_args("resnet18", {"bottleneck": True, "cardinality": 32, "group_width": 4})
