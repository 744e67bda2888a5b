"""Inception v4: what each switch changes."""

import functools

import jax
import numpy as np
import pytest
from definitions import (
    blocks_of,
    built,
    count_rematerialised,
    dropped_shapes,
    kernel_sizes,
    random_images,
)

from cnnjax.models import create_model
from cnnjax.nn.branches import Branches, Conv
from cnnjax.nn.layers import Layers
from cnnjax.nn.stage import Stage, stack_blocks

SHALLOW = {"stem": "small", "width": 0.125, "stage_sizes": (1, 1, 1), "num_classes": 5}


def leaf_shapes(shape=(16, 16, 3), **fields):
    return built("inception_v4", shape, train=True, **fields)[1]


def outputs_of(shape=(16, 16, 3), **fields):
    return built("inception_v4", shape, train=True, **fields)[0]


def test_stages_at_the_native_size():
    outputs = outputs_of((299, 299, 3), stage_sizes=(1, 1, 1))
    assert outputs.features == {
        "stem": (147, 147, 64),
        "stage1": (71, 71, 192),
        "stage2": (35, 35, 384),
        "stage3": (17, 17, 1024),
        "stage4": (8, 8, 1536),
    }
    assert outputs.logits == (1000,)


def test_order_of_the_factors():
    release, drawn = leaf_shapes(**SHALLOW), leaf_shapes(factor_order="drawn", **SHALLOW)
    row, column = (1, 7), (7, 1)
    for leaves, stem, double in (
        (release, [row, column], [column, row]),
        (drawn, [column, row], [row, column]),
    ):
        assert kernel_sizes(leaves, "stage1/block2/branch7x7") == [(1, 1), *stem, (3, 3)]
        assert kernel_sizes(leaves, "stage3/block2/branch7x7") == [(1, 1), row, column]
        assert kernel_sizes(leaves, "stage3/block2/branch_double7x7") == [(1, 1), *double, *double]
        assert kernel_sizes(leaves, "stage4/block1/branch7x7") == [(1, 1), row, column, (3, 3)]
    assert kernel_sizes(release, "stage4/block2/branch_double3x3")[:3] == [(1, 1), (3, 1), (1, 3)]
    assert kernel_sizes(drawn, "stage4/block2/branch_double3x3")[:3] == [(1, 1), (1, 3), (3, 1)]
    count = functools.partial(map, np.prod)
    assert sorted(count(release.values())) == sorted(count(drawn.values()))


@pytest.mark.parametrize(("depth", "last_blocks"), [(0.1, (2, 2, 2)), (0.5, (3, 5, 3)), (2.0, (9, 15, 7))])
def test_depth_multiplies_the_modules(depth, last_blocks):
    fields = {"stem": "small", "width": 0.125, "depth": depth}
    expected = ["stage1/block1", "stage1/block2"]
    for stage, last in enumerate(last_blocks, 2):
        expected += [f"stage{stage}/block{number}" for number in range(1, last + 1)]
    assert blocks_of(leaf_shapes(**fields)) == sorted(expected)


@pytest.mark.parametrize("width", [0.125, 0.3])
def test_scan_stacks_equal_modules_but_the_first(width):
    fields = {**SHALLOW, "width": width, "stage_sizes": (3, 1, 2)}
    usual, scanned = leaf_shapes(**fields), leaf_shapes(scan=True, **fields)
    names = [f"stage2/block{name}" for name in ("1", "2", "3to4")] + ["stage4/block1", "stage4/block2", "stage4/block3"]
    assert [name for name in blocks_of(scanned) if name[:6] in ("stage2", "stage4")] == names
    layer = "branch1x1/conv1/conv/kernel"
    assert scanned[f"stage2/block3to4/{layer}"] == (2, *usual[f"stage2/block4/{layer}"])
    assert outputs_of(scan=True, **fields) == outputs_of(**fields)


def test_a_scanned_stage_computes_the_same_where_the_first_module_changes_the_channels():
    layers = Layers(train=False)
    first = functools.partial(Branches, layers=layers, branches=(("halve", (Conv(3, 3, 2),)),))
    module = functools.partial(Branches, layers=layers, branches=(("left", (Conv(4, 3),)), ("right", (Conv(2),))))
    usual, scanned = (
        Stage((first, *(module,) * 4), scan=scan, keeps_channels=False, name="stage") for scan in (False, True)
    )
    x = random_images(2, 6, 8, 3)
    variables = jax.jit(usual.init)(jax.random.key(0), x)
    like = jax.eval_shape(scanned.init, jax.random.key(0), x)
    assert set(like["params"]) == {"block1", "block2", "block3to5"}
    stacked = {collection: stack_blocks(tree, like[collection]) for collection, tree in variables.items()}
    found, expected = scanned.apply(stacked, x), usual.apply(variables, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_squeeze_and_excitation_of_every_module():
    usual, changed = leaf_shapes(**SHALLOW), leaf_shapes(se_ratio=4, **SHALLOW)
    extra = {path: shape for path, shape in changed.items() if path not in usual}
    modules = ["stage2/block2", "stage3/block1", "stage3/block2", "stage4/block1", "stage4/block2"]
    assert sorted({path.split("/squeeze_excite")[0] for path in extra}) == modules
    assert extra["stage4/block2/squeeze_excite/reduce/kernel"] == (192, 48)


@pytest.mark.parametrize(
    ("fields", "leaves"),
    [
        ({"norm_scale": False}, {"norm/bias", "norm/mean", "norm/var"}),
        ({"norm": "none"}, {"conv/bias"}),
        ({"norm": "layer"}, {"norm/scale", "norm/bias"}),
    ],
)
def test_biases_and_normalisations(fields, leaves):
    found = leaf_shapes(**SHALLOW, **fields)
    for name in ("stem/conv1", "stage1/block2/branch7x7/conv3", "stage4/block2/branch_double3x3/conv4_arm1"):
        assert {path.removeprefix(f"{name}/") for path in found if path.startswith(f"{name}/")} == {
            "conv/kernel",
            *leaves,
        }


def test_width_scales_every_layer():
    fields = {"stem": "small", "stage_sizes": (1, 1, 1), "num_classes": 5}
    usual, twice = (leaf_shapes(**fields, width=width) for width in (1.0, 2.0))
    doubled = {path: (2 * shape[0],) for path, shape in usual.items() if path.endswith("norm/mean")}
    assert {path: shape for path, shape in twice.items() if path.endswith("norm/mean")} == doubled
    assert twice["head/kernel"] == (3072, 5)


def test_remat_recomputes_each_block():
    usual, again = (create_model("inception_v4", remat=remat, **SHALLOW) for remat in (False, True))
    assert count_rematerialised(usual, (16, 16, 3)) == 0
    assert count_rematerialised(again, (16, 16, 3)) == 2 + 2 + 2 + 2


def test_dropout_is_before_the_head_in_training_alone():
    network = create_model("inception_v4", **SHALLOW)
    assert dropped_shapes(network, (16, 16, 3)) == [((192,), 0.2)]
    assert dropped_shapes(network, (16, 16, 3), train=False) == []
