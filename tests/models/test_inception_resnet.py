"""Inception-ResNet: the paper's networks from their definitions, and what each switch changes."""

import functools

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
    count_rematerialised,
    dropped_shapes,
    normalise,
    pool,
    random_images,
    random_variables,
    relu,
    run,
    shapes,
)
from flax import linen as nn

from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.models.inception_resnet import InceptionResidual
from cnnjax.nn.branches import Conv
from cnnjax.nn.layers import Layers
from cnnjax.nn.stage import Stage

SHALLOW = {"stem": "small", "width": 0.125, "stage_sizes": (1, 1, 1), "num_classes": 5}


def leaf_shapes(shape=(16, 16, 3), name="inception_resnet_v2", **fields):
    return built(name, shape, train=True, **fields)[1]


def outputs_of(shape=(16, 16, 3), name="inception_resnet_v2", **fields):
    return built(name, shape, train=True, **fields)[0]


def blocks_of(leaves, stage):
    """The names of a stage's blocks that have parameters."""
    return sorted({path.split("/")[1] for path in leaves if path.startswith(f"{stage}/")})


def of(variables, path):
    """The variables of the module at a path."""
    for key in path.split("/"):
        variables = {collection: tree[key] for collection, tree in variables.items() if key in tree}
    return variables


def by_definition(variables, x, drawn_stem, scales=(0.17, 0.10, 0.20)):
    """Logits and stage maps of an evaluated network as the paper draws them; V is unpadded."""

    def conv(path, x, stride=1, *, v=False):
        tree = of(variables, path)
        maps = convolve(x, **tree["params"]["conv"], stride=stride, padding="valid" if v else "symmetric")
        return relu(normalise(maps, tree["params"]["norm"], tree["batch_stats"]["norm"], 1e-3))

    def chain(path, x, stride=1):
        """All convolutions of a branch; the last one with that stride, and then unpadded."""
        layers = sorted(of(variables, path)["params"])
        for layer in layers[:-1]:
            x = conv(f"{path}/{layer}", x)
        return conv(f"{path}/{layers[-1]}", x, stride, v=stride == 2)

    def module(path, x, names, scale):
        branches = [chain(f"{path}/branches/{name}", x) for name in names]
        expand = of(variables, f"{path}/expand")["params"]
        return relu(x + scale * convolve(np.concatenate(branches, -1), **expand))

    def reduction(path, x, names):
        return np.concatenate([*(chain(f"{path}/{name}", x, 2) for name in names), pool(x, 3, 2)], -1)

    def repeat(stage, x, names, scale):
        blocks = len(of(variables, stage)["params"])
        for number in range(2, blocks + 1):
            x = module(f"{stage}/block{number}", x, names, scale)
        return x

    x = conv("stem/conv2", conv("stem/conv1", x, 2, v=True), v=True)
    features = {"stem": conv("stem/conv3", x)}
    x = features["stem"]
    if drawn_stem:
        x = np.concatenate([pool(x, 3, 2), conv("stage1/block1/branch3x3/conv1", x, 2, v=True)], -1)
        short = conv("stage1/block2/branch3x3/conv1", x)
        long = x
        for layer, size in zip(("conv1", "conv2", "conv3"), ((1, 1), (7, 1), (1, 7)), strict=True):
            path = f"stage1/block2/branch7x7/{layer}"
            assert of(variables, path)["params"]["conv"]["kernel"].shape[:2] == size
            long = conv(path, long)
        ends = (("branch3x3/conv2", short), ("branch7x7/conv4", long))
        x = np.concatenate([conv(f"stage1/block2/{path}", maps, v=True) for path, maps in ends], -1)
        features["stage1"] = x
        x = np.concatenate([conv("stage2/block1/branch3x3/conv1", x, 2, v=True), pool(x, 3, 2)], -1)
    else:
        x = conv("stage1/block1/branch3x3/conv1", pool(x, 3, 2))
        features["stage1"] = conv("stage1/block1/branch3x3/conv2", x, v=True)
        x = conv("stage2/block1/branch3x3/conv1", features["stage1"], 2, v=True)
    x = repeat("stage2", x, ("branch1x1", "branch3x3", "branch_double3x3"), scales[0])
    features["stage2"] = x
    x = reduction("stage3/block1", x, ("branch3x3", "branch_double3x3"))
    features["stage3"] = x = repeat("stage3", x, ("branch1x1", "branch7x7"), scales[1])
    x = reduction("stage4/block1", x, ("branch3x3", "branch3x3_second", "branch_double3x3"))
    features["stage4"] = x = repeat("stage4", x, ("branch1x1", "branch3x3"), scales[2])
    return connect(x.mean((1, 2)), variables["params"]["head"]), features


@pytest.mark.parametrize(("name", "drawn_stem"), [("inception_resnet_v1", False), ("inception_resnet_v2_paper", True)])
def test_the_network_is_the_papers(name, drawn_stem):
    shape = (79, 96, 3)
    network = create_model(name, num_classes=5, width=0.125, depth=0.2)
    variables, images = random_variables(network, shape), random_images(2, *shape)
    logits, features = by_definition(as_float64(variables), images, drawn_stem)
    assert_same(run(network, variables, images), features, logits)


@pytest.mark.parametrize(
    ("name", "sizes", "channels"),
    [
        ("inception_resnet_v1", (5, 10, 5), (64, 192, 256, 896, 1792)),
        ("inception_resnet_v2", (10, 20, 10), (64, 192, 320, 1088, 1536)),
        ("inception_resnet_v2_paper", (5, 10, 5), (64, 192, 384, 1152, 2144)),
    ],
)
def test_stages_at_the_native_size(name, sizes, channels):
    features = outputs_of((299, 299, 3), name, stage_sizes=(1, 1, 1)).features
    assert features == {
        stage: (side, side, width)
        for stage, side, width in zip(
            ("stem", "stage1", "stage2", "stage3", "stage4"), (147, 71, 35, 17, 8), channels, strict=True
        )
    }
    network = create_model(name)
    assert (network.stage_sizes, network.residual_scales, network.dropout) == (sizes, (0.17, 0.10, 0.20), 0.2)


@pytest.mark.parametrize("name", ["inception_resnet_v1", "inception_resnet_v2", "inception_resnet_v2_paper"])
def test_the_small_stem_has_the_same_convolutions_at_full_size(name):
    imagenet, small = ({**SHALLOW, "stem": stem} for stem in ("imagenet", "small"))
    assert leaf_shapes((75, 75, 3), name, **imagenet) == leaf_shapes(name=name, **small)
    sides = {stage: shape[:2] for stage, shape in outputs_of((32, 24, 1), name, **small).features.items()}
    assert sides == {"stem": (32, 24), "stage1": (32, 24), "stage2": (32, 24), "stage3": (15, 11), "stage4": (7, 5)}


@pytest.mark.parametrize("name", ["inception_resnet_v1", "inception_resnet_v2", "inception_resnet_v2_paper"])
@pytest.mark.parametrize(("stem", "smallest"), [("imagenet", 75), ("small", 7)])
def test_smallest_images(name, stem, smallest):
    fields = {**SHALLOW, "stem": stem}
    assert outputs_of((smallest, smallest + 20, 1), name, **fields).features["stage4"][0] == 1
    with pytest.raises(ConfigError, match=f"of at least {smallest}x{smallest}; got"):
        outputs_of((smallest + 20, smallest - 1, 1), name, **fields)


@pytest.mark.parametrize(
    ("fields", "scale"),
    [({}, 0.5), ({"activate": False}, 0.5), ({"shortcut": "none"}, 1.0), ({"scale": 0.0}, 0.0)],
)
def test_a_residual_is_scaled_added_and_activated(fields, scale):
    x = random_images(2, 5, 4, 3)
    block = InceptionResidual(
        **{"layers": Layers(train=False, norm="none"), "branches": (("branch", (Conv(4, 3),)),), "scale": 0.5, **fields}
    )
    variables = block.init(jax.random.key(0), x, None)
    params = as_float64(variables["params"])
    conv, expand = params["branches"]["branch"]["conv1"]["conv"], params["expand"]
    inner = relu(convolve(x, **conv))
    expected = scale * convolve(inner, **expand)
    expected = expected if fields.get("shortcut") == "none" else x + expected
    expected = expected if fields.get("activate") is False else relu(expected)
    np.testing.assert_allclose(block.apply(variables, x, None), expected, rtol=1e-5, atol=1e-6)


def test_a_dropped_residual_leaves_the_input():
    x = random_images(64, 3, 3, 3)
    block = InceptionResidual(Layers(train=True, norm="none"), (("branch", (Conv(4, 3),)),), scale=0.5, activate=False)
    variables = block.init(jax.random.key(0), x, None)
    whole = np.asarray(block.apply(variables, x, None)) - x
    dropped = np.asarray(block.apply(variables, x, jnp.float32(0.5), rngs={"dropout": jax.random.key(1)})) - x
    kept = np.abs(dropped).max((1, 2, 3)) > 0
    assert 16 < kept.sum() < 48
    np.testing.assert_allclose(dropped[kept], 2 * whole[kept], rtol=1e-4, atol=1e-5)


def rates_of(network, *, train):
    """The stochastic depth that each stage is given."""
    found = {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, Stage) and context.method_name == "__call__":
            found[context.module.name] = context.module.drop_rates
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    variables, _ = shapes(network, (16, 16, 3))

    def apply(variables, x):
        key = jax.random.key(0)
        return network.apply(variables, x, train=train, mutable=["batch_stats"], rngs={"dropout": key})

    with nn.intercept_methods(note):
        jax.eval_shape(apply, variables, images)
    return found


def test_stochastic_depth_grows_over_the_residuals_of_all_stages():
    network = create_model("inception_resnet_v2", **{**SHALLOW, "stage_sizes": (2, 1, 2)}, stochastic_depth=0.4)
    rates = rates_of(network, train=True)
    assert rates["stage1"] == (0.0,)
    assert rates["stage2"] == pytest.approx((0, 0, 0, 0.1))
    assert rates["stage3"] == pytest.approx((0, 0.2))
    assert rates["stage4"] == pytest.approx((0, 0.3, 0.4, 0))
    assert set(rates_of(network, train=False).values()) == {None}
    with pytest.raises(ConfigError, match="shortcut 'none' leaves nothing else"):
        create_model("inception_resnet_v2", stochastic_depth=0.4, shortcut="none")


def residuals_of(**fields):
    """Scale, activation and shortcut of each residual module, by its path."""
    found = {}

    def note(call, args, kwargs, context):
        if isinstance(block := context.module, InceptionResidual):
            found["/".join(block.path)] = (block.scale, block.activate, block.shortcut)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes(create_model("inception_resnet_v2", **{**SHALLOW, **fields}), (16, 16, 3))
    return found


def test_residual_scales_and_the_last_module():
    a, b, c = (0.17, True, "identity"), (0.10, True, "identity"), (0.20, True, "identity")
    last = (1.0, False, "identity")
    blocks = ("stage2/block3", "stage3/block2", "stage4/block2", "stage4/block3")
    usual = residuals_of(stage_sizes=(1, 1, 2))
    assert usual == dict(zip(blocks, (a, b, c, last), strict=True))
    assert residuals_of(stage_sizes=(1, 1, 2), last_module="activated") == {**usual, "stage4/block3": c}
    scaled = residuals_of(residual_scales=(0.3, 0.2, 0.1), last_module="activated")
    assert [scale for scale, _, _ in scaled.values()] == [0.3, 0.2, 0.1]
    assert {shortcut for _, _, shortcut in residuals_of(shortcut="none").values()} == {"none"}
    assert leaf_shapes(shortcut="none", **SHALLOW) == leaf_shapes(**SHALLOW)


def test_entries_widths_and_ends():
    usual = leaf_shapes(**SHALLOW)
    assert blocks_of(usual, "stage2") == ["block2", "block3"]
    assert blocks_of(usual, "stage4") == ["block1", "block2", "block3"]
    assert blocks_of(leaf_shapes(entry="convolution", **SHALLOW), "stage2") == ["block1", "block2"]
    assert blocks_of(leaf_shapes(entry="split", **SHALLOW), "stage1") == ["block1", "block2"]
    assert blocks_of(leaf_shapes(last_features=0, **SHALLOW), "stage4") == ["block1", "block2"]
    widths = {
        version: leaf_shapes(stem="small", stage_sizes=(1, 1, 1), widths=version)[
            "stage3/block2/branches/branch7x7/conv2/conv/kernel"
        ]
        for version in ("v1", "v2")
    }
    assert widths == {"v1": (1, 7, 128, 128), "v2": (1, 7, 128, 160)}


@pytest.mark.parametrize(
    ("fields", "leaves"),
    [
        ({}, {"bottleneck/kernel", *(f"bottleneck_norm/{leaf}" for leaf in ("scale", "bias", "mean", "var"))}),
        ({"norm": "none"}, {"bottleneck/kernel", "bottleneck/bias"}),
    ],
)
def test_bottleneck_before_the_head(fields, leaves):
    usual, changed = leaf_shapes(**SHALLOW, **fields), leaf_shapes(bottleneck=64, **SHALLOW, **fields)
    assert {path for path in changed if path not in usual} == leaves
    assert (changed["bottleneck/kernel"], changed["head/kernel"]) == ((192, 8), (8, 5))
    assert usual["head/kernel"] == (192, 5)


def test_pytorchcvs_network_is_for_faces():
    network = create_model("pytorchcv/inceptionresnetv1")
    assert (network.stage_sizes, network.bottleneck, network.dropout) == ((5, 10, 6), 512, 0.6)
    assert (network.last_module, network.last_features, network.norm_epsilon) == ("linear", 0, 1e-3)


def test_squeeze_and_excitation_of_every_residual():
    usual, changed = leaf_shapes(**SHALLOW), leaf_shapes(se_ratio=4, **SHALLOW)
    extra = {path: shape for path, shape in changed.items() if path not in usual}
    assert sorted({path.split("/squeeze_excite")[0] for path in extra}) == [
        *("stage2/block3", "stage3/block2", "stage4/block2"),
    ]
    channels = changed["stage4/block2/expand/kernel"][-1]
    assert extra["stage4/block2/squeeze_excite/reduce/kernel"] == (channels, channels // 4)


@pytest.mark.parametrize(("depth", "blocks"), [(0.1, (1, 2, 1)), (0.25, (3, 5, 3)), (1.1, (11, 22, 11))])
def test_depth_multiplies_the_modules(depth, blocks):
    leaves = leaf_shapes(stem="small", width=0.125, depth=depth)
    extra = {"stage2": 1, "stage3": 1, "stage4": 2}
    assert [len(blocks_of(leaves, stage)) - others for stage, others in extra.items()] == list(blocks)


def test_scan_stacks_equal_modules():
    fields = {**SHALLOW, "stage_sizes": (2, 3, 3)}
    usual, scanned = leaf_shapes(**fields), leaf_shapes(scan=True, **fields)
    assert blocks_of(scanned, "stage2") == ["block2", "block3to4"]
    assert blocks_of(scanned, "stage3") == ["block1", "block2to4"]
    assert blocks_of(scanned, "stage4") == ["block1", "block2to3", "block4", "block5"]
    assert scanned["stage3/block2to4/expand/kernel"] == (3, *usual["stage3/block4/expand/kernel"])
    assert outputs_of(scan=True, **fields) == outputs_of(**fields)


def test_expansions_are_never_normalised_and_have_biases():
    for norm, leaves in (("batch", {"norm/scale", "norm/bias", "norm/mean", "norm/var"}), ("none", {"conv/bias"})):
        found = leaf_shapes(norm=norm, **SHALLOW)
        under = functools.partial(
            lambda found, name: {p.removeprefix(name) for p in found if p.startswith(name)}, found
        )
        assert under("stage3/block2/expand/") == {"kernel", "bias"}
        assert under("stage3/block2/branches/branch7x7/conv3/") == {"conv/kernel", *leaves}


def test_auxiliary_classifier_and_dropouts():
    network = create_model("inception_resnet_v2", auxiliary_classifiers=1, auxiliary_dropout=0.3, **SHALLOW)
    assert dropped_shapes(network, (16, 16, 3)) == [((96,), 0.3), ((192,), 0.2)]
    assert dropped_shapes(network, (16, 16, 3), train=False) == []
    assert outputs_of(auxiliary_classifiers=1, **SHALLOW).aux == {"auxiliary": (5,)}


def test_remat_recomputes_each_block():
    usual, again = (create_model("inception_resnet_v2", remat=remat, **SHALLOW) for remat in (False, True))
    assert count_rematerialised(usual, (16, 16, 3)) == 0
    assert count_rematerialised(again, (16, 16, 3)) == 1 + 3 + 2 + 3


def test_width_scales_every_layer():
    fields = {"stem": "small", "stage_sizes": (1, 1, 1), "num_classes": 5}
    usual, twice = (leaf_shapes(**fields, width=width) for width in (1.0, 2.0))
    doubled = {path: (2 * shape[0],) for path, shape in usual.items() if path.endswith(("norm/mean", "expand/bias"))}
    assert {path: shape for path, shape in twice.items() if path in doubled} == doubled
    assert twice["head/kernel"] == (3072, 5)
