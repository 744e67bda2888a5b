"""Xception: an independent computation, and what each switch changes."""

import functools
import math

import jax
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
    elu,
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
from cnnjax.models.xception import XceptionBlock
from cnnjax.nn.layers import ConvNorm, Layers

TINY = {"width": 0.01, "middle_blocks": 2, "stem": "small", "num_classes": 5}
BLOCKS = ("stage1/block1", "stage2/block1", *(f"stage3/block{block}" for block in (1, 2, 3)), "stage4/block1")


def tiny(**fields):
    return create_model("xception", **{**TINY, **fields})


def leaf_shapes(side=16, **fields):
    """The shapes of the variables by path."""
    return built("xception", (side, side, 3), **{**TINY, **fields})[1]


def modules(**fields):
    return {path.rpartition("/")[0] for path in leaf_shapes(**fields)}


def features(side, **fields):
    return sizes(shapes(tiny(**fields), (side, side, 3))[1].features)


def in_numpy(variables, images, *, network, intermediate):
    """Figure 5, block by block: the maps and the logits."""

    def norm(x, path):
        params, statistics = part(variables, path)
        return normalise(x, params["norm"], statistics["norm"], 1e-3)

    def conv(x, path):
        params, _ = part(variables, path)
        if network.convolution == "full":
            return norm(convolve(x, **params["conv"], padding="same"), path)
        x = intermediate(convolve(x, **params["depthwise"], padding="same"))
        return norm(convolve(x, **params["pointwise"]), path)

    def block(x, path, convolutions, down=True, activate_first=True):
        branch = conv(relu(x) if activate_first else x, f"{path}/conv1")
        for number in range(2, convolutions + 1):
            branch = conv(relu(branch), f"{path}/conv{number}")
        if down:
            branch = pool(branch, 3, 2, padding=network.pool_padding)
        if network.shortcut == "none":
            return branch
        if down:
            x = norm(convolve(x, **part(variables, f"{path}/projection/conv")[0], stride=2), f"{path}/projection")
        return branch + x

    x = images
    for number in (1, 2):
        stride, padding = (1, "same") if network.stem == "small" else (3 - number, "valid")
        x = convolve(x, **part(variables, f"stem{number}/conv")[0], stride=stride, padding=padding)
        x = relu(norm(x, f"stem{number}"))
    maps = {"stem": x}
    maps["stage1"] = x = block(x, "stage1/block1", 2, activate_first=False)
    maps["stage2"] = x = block(x, "stage2/block1", 2)
    x = block(x, "stage3/block1", 2)
    maps["stage3"] = x = block(x, "stage3/block2", 3, down=False)
    x = block(x, "stage4/block1", 2)
    for number in (1, 2):
        x = relu(conv(x, f"exit/block1/conv{number}"))
    maps["stage4"] = x
    return maps, connect(x.mean((1, 2)), variables["params"]["head"])


@pytest.mark.parametrize(
    ("fields", "intermediate"),
    [
        ({"stem": "imagenet"}, lambda x: x),
        ({"intermediate_activation": "elu", "pool_padding": "symmetric"}, elu),
        ({"convolution": "full", "shortcut": "none"}, lambda x: x),
    ],
    ids=["default", "elu", "full"],
)
def test_against_an_independent_computation(fields, intermediate):
    network, images = tiny(middle_blocks=1, **fields), random_images(2, 21, 24, 3)
    variables = random_variables(network, images.shape[1:])
    maps, logits = in_numpy(as_float64(variables), images, network=network, intermediate=intermediate)
    assert_same(run(network, variables, images), maps, logits)


def test_the_papers_number_of_parameters():
    params = jax.tree.leaves(shapes(create_model("xception"), (299, 299, 3))[0]["params"])
    assert sum(math.prod(leaf.shape) for leaf in params) == 22_855_952


def test_depth_repeats_the_middle_flow_alone():
    assert modules(depth=2.0) - modules() == {
        f"stage3/block{block}/conv{conv}/{part}"
        for block in (4, 5)
        for conv in (1, 2, 3)
        for part in ("depthwise", "pointwise", "norm")
    }
    assert modules(middle_blocks=4) == modules(depth=2.0)
    assert not any("stage3/block2" in name for name in modules(middle_blocks=0))


def test_without_shortcut_nothing_projects():
    assert modules(shortcut="none") < modules()
    assert modules() - modules(shortcut="none") == {
        f"stage{stage}/block1/projection/{part}" for stage in (1, 2, 3, 4) for part in ("conv", "norm")
    }


def test_parameters_do_not_depend_on_the_size_of_the_images():
    assert leaf_shapes(side=1) == leaf_shapes()


def test_intermediate_activation_changes_no_parameter():
    assert leaf_shapes(intermediate_activation="relu") == leaf_shapes()


def test_dense_layers_come_before_the_head():
    leaves = leaf_shapes(width=0.125, dense_widths=(320, 192))
    dense = {path: shape for path, shape in leaves.items() if path.partition("/")[0] in ("dense1", "dense2", "head")}
    assert dense == {
        "dense1/kernel": (256, 40),
        "dense1/bias": (40,),
        "dense2/kernel": (40, 24),
        "dense2/bias": (24,),
        "head/kernel": (24, 5),
        "head/bias": (5,),
    }


def test_squeeze_and_excitation_in_each_block():
    assert modules(se_ratio=4) - modules() == {
        f"{block}/squeeze_excite/{part}" for block in (*BLOCKS, "exit/block1") for part in ("reduce", "expand")
    }
    assert leaf_shapes(se_ratio=4)["stage1/block1/squeeze_excite/reduce/kernel"] == (8, 2)


def test_without_normalisation_convolutions_have_biases():
    leaves = leaf_shapes(norm="none")
    assert {path.rpartition("/")[2] for path in leaves} == {"kernel", "bias"}
    assert leaves["stage1/block1/conv1/pointwise/bias"] == leaves["stage1/block1/projection/conv/bias"] == (8,)


@pytest.mark.parametrize(
    ("stem", "side", "sides"), [("imagenet", 71, (33, 17, 9, 5, 3)), ("small", 32, (32, 16, 8, 4, 2))]
)
def test_features_are_the_last_maps_of_each_resolution(stem, side, sides):
    widths = {"stem": 16, "stage1": 32, "stage2": 64, "stage3": 184, "stage4": 512}
    assert features(side, width=0.25, stem=stem) == {
        name: (size, size, width) for (name, width), size in zip(widths.items(), sides, strict=True)
    }


def test_dropout_before_the_head_in_training():
    assert (create_model("xception").dropout, create_model("keras/Xception").dropout) == (0.5, 0.0)
    network = tiny()
    variables = shapes(network, (16, 16, 3))[0]
    assert [count_draws(network, variables, (16, 16, 3), train=train) for train in (True, False)] == [1, 0]


def test_stochastic_depth_may_drop_each_residual_branch():
    network = tiny(stochastic_depth=0.5, dropout=0.0)
    variables = shapes(network, (16, 16, 3))[0]
    assert [count_draws(network, variables, (16, 16, 3), train=train) for train in (True, False)] == [len(BLOCKS), 0]


def test_a_dropped_branch_leaves_the_input():
    layers = Layers(train=True, norm="none")
    block = XceptionBlock(layers, functools.partial(ConvNorm, layers, kernel_size=3), (4, 4))
    x = random_images(2, 5, 5, 4)

    @jax.jit
    def call(rate):
        variables = block.init(jax.random.key(0), x, None)
        dropped = block.apply(variables, x, rate, rngs={"dropout": jax.random.key(1)})
        return dropped, block.apply(variables, x, None)

    dropped, whole = call(1 - 1e-7)
    np.testing.assert_array_equal(dropped, x)
    assert np.abs(whole - x).max() > 0.1


def test_scan_stacks_the_middle_flow():
    scanned = modules(middle_blocks=3, scan=True)
    assert {name.partition("/conv")[0] for name in scanned if name.startswith("stage3/") and "/conv1" in name} == {
        "stage3/block1",
        "stage3/block2to4",
    }
    assert leaf_shapes(middle_blocks=3, scan=True)["stage3/block2to4/conv1/pointwise/kernel"] == (3, 1, 1, 8, 8)


def test_remat_wraps_each_block():
    assert [count_rematerialised(tiny(remat=remat), (16, 16, 3)) for remat in (False, True)] == [0, len(BLOCKS) + 1]


@pytest.mark.parametrize(("stem", "smallest"), [("imagenet", 7), ("small", 1)])
def test_smallest_images(stem, smallest):
    assert features(smallest, stem=stem)["stage4"][:2] == (1, 1)
    with pytest.raises(ConfigError, match=f"at least {smallest}x{smallest}"):
        features(smallest - 1, stem=stem)


def test_contradictory_fields():
    with pytest.raises(ConfigError, match="intermediate_activation 'elu'"):
        tiny(convolution="full", intermediate_activation="elu")
    with pytest.raises(ConfigError, match="stochastic_depth"):
        tiny(shortcut="none", stochastic_depth=0.1)
