"""MobileNet v1: the paper's comparisons, an independent computation, and what each switch changes."""

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
    normalise,
    part,
    random_images,
    random_variables,
    run,
    shapes,
    sizes,
)

from cnnjax.analysis.summary import summarize
from cnnjax.errors import ConfigError
from cnnjax.models import create_model, get_variant, list_peers
from cnnjax.nn.stage import stack_blocks

TINY = {"width": 0.125, "stage_sizes": (1, 2), "stage_widths": (64, 128), "num_classes": 5}
PUBLISHED_WIDTHS = {"stem": 32, "stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512, "stage5": 1024}


def tiny(**fields):
    return create_model("mobilenet_v1", **{**TINY, **fields})


def leaf_shapes(**fields):
    """The shapes of the variables by path."""
    return built("mobilenet_v1", (16, 16, 3), **{**TINY, **fields})[1]


def features(shape, **fields):
    return sizes(shapes(create_model("mobilenet_v1", num_classes=3, **fields), shape)[1].features)


@pytest.mark.parametrize(
    ("fields", "macs", "params"),
    [({}, 569, 4.2), ({"convolution": "full"}, 4866, 29.3), ({"stage_sizes": (1, 2, 2, 1, 2)}, 307, 2.9)],
    ids=["separable", "full", "shallow"],
)
def test_costs_of_tables_4_and_5(fields, macs, params):
    summary = summarize(create_model("mobilenet_v1", **fields), (224, 224, 3))
    assert summary.macs / 1e6 == pytest.approx(macs, rel=1.1e-3)
    assert round(summary.params / 1e6, 1) == params


def test_full_convolutions_take_the_place_of_both_parts():
    separable, full = leaf_shapes(norm="none"), leaf_shapes(norm="none", convolution="full")
    assert {path for path in full if path not in separable} == {
        f"{block}/conv/conv/{leaf}"
        for block in ("stage1/block1", "stage2/block1", "stage2/block2")
        for leaf in ("kernel", "bias")
    }
    assert full["stage2/block1/conv/conv/kernel"] == (3, 3, 8, 16)
    assert not any("wise" in path for path in full)


@pytest.mark.parametrize("alpha", [0.25, 0.33, 0.75, 1.5])
def test_width_rounds_down_as_the_release_does(alpha):
    found = features((32, 32, 3), width=alpha)
    assert {name: size[-1] for name, size in found.items()} == {
        name: int(width * alpha) for name, width in PUBLISHED_WIDTHS.items()
    }


def test_width_leaves_a_channel_at_least():
    assert tiny(width=0.001).channels(64) == 1


def test_peers_for_smaller_images_are_the_same_network():
    assert get_variant("keras/MobileNet+alpha0.5_r160").input_shape == (160, 160, 3)
    assert get_variant("keras/MobileNet").input_shape == (224, 224, 3)
    assert create_model("keras/MobileNet+alpha0.5_r160") == create_model("mobilenet_v1_050")
    assert len(list_peers("keras/MobileNet*")) == 16


@pytest.mark.parametrize(("stem", "sides"), [("imagenet", (16, 16, 8, 4, 2, 1)), ("small", (32, 32, 16, 8, 4, 2))])
def test_features_are_the_last_maps_of_each_resolution(stem, sides):
    assert features((32, 32, 3), stem=stem) == {
        name: (side, side, width) for (name, width), side in zip(PUBLISHED_WIDTHS.items(), sides, strict=True)
    }


@pytest.mark.parametrize("convolution", ["separable", "full"])
def test_against_an_independent_computation(convolution):
    network, images = tiny(convolution=convolution), random_images(2, 16, 19, 3, scale=3.0)
    variables = random_variables(network, images.shape[1:])
    exact = as_float64(variables)

    def conv_norm(x, path, stride=1):
        params, statistics = part(exact, path)
        x = convolve(x, **params["conv"], stride=stride, padding="same")
        return np.clip(normalise(x, params["norm"], statistics["norm"], 1e-3), 0, 6)

    x = conv_norm(images, "stem", 2)
    expected = {"stem": x}
    for block, stride in (("stage1/block1", 1), ("stage2/block1", 2), ("stage2/block2", 1)):
        if convolution == "full":
            x = conv_norm(x, f"{block}/conv", stride)
        else:
            x = conv_norm(conv_norm(x, f"{block}/depthwise", stride), f"{block}/pointwise")
        expected[block.partition("/")[0]] = x
    assert expected["stem"].max() == 6
    assert_same(run(network, variables, images), expected, connect(x.mean((1, 2)), exact["params"]["head"]))


def test_padding_changes_what_strided_convolutions_see():
    networks = [tiny(padding=padding) for padding in ("same", "symmetric")]
    even, odd = random_images(1, 16, 16, 3), random_images(1, 15, 15, 3)
    variables = random_variables(networks[0], (16, 16, 3))
    same, symmetric = (run(network, variables, even).features["stem"] for network in networks)
    assert np.abs(same - symmetric).max() > 1e-2
    # With an odd size both begin one row before the image.
    same, symmetric = (run(network, variables, odd).features["stem"] for network in networks)
    np.testing.assert_array_equal(same, symmetric)


def test_squeeze_and_excitation_follows_each_block():
    squeezed = leaf_shapes(se_ratio=4)
    added = {path: shape for path, shape in squeezed.items() if path not in leaf_shapes() and path.endswith("kernel")}
    assert added == {
        "stage1/block1/squeeze_excite/reduce/kernel": (8, 2),
        "stage1/block1/squeeze_excite/expand/kernel": (2, 8),
        "stage2/block1/squeeze_excite/reduce/kernel": (16, 4),
        "stage2/block1/squeeze_excite/expand/kernel": (4, 16),
        "stage2/block2/squeeze_excite/reduce/kernel": (16, 4),
        "stage2/block2/squeeze_excite/expand/kernel": (4, 16),
    }
    assert leaf_shapes(se_ratio=100)["stage1/block1/squeeze_excite/reduce/kernel"] == (8, 1)


def test_depth_multiplies_the_blocks_of_each_stage():
    blocks = {path.partition("/depthwise")[0] for path in leaf_shapes(depth=1.5) if "depthwise" in path}
    assert blocks == {"stage1/block1", "stage1/block2", "stage2/block1", "stage2/block2", "stage2/block3"}


def test_without_normalisation_convolutions_have_biases():
    leaves = leaf_shapes(norm="none")
    assert {path.rpartition("/")[2] for path in leaves} == {"kernel", "bias"}
    assert leaves["stage1/block1/depthwise/conv/bias"] == (4,)
    assert leaves["stage1/block1/pointwise/conv/bias"] == (8,)


def test_dropout_before_the_head_in_training():
    assert create_model("mobilenet_v1").dropout == 0.001
    variables = shapes(tiny(), (16, 16, 3))[0]
    draws = [count_draws(tiny(), variables, (16, 16, 3), train=train) for train in (True, False)]
    assert draws == [1, 0]


def test_scan_computes_the_same():
    images = random_images(2, 16, 16, 3)
    usual, scanned = (tiny(stage_sizes=(1, 4), scan=scan) for scan in (False, True))
    variables = random_variables(usual, images.shape[1:])
    like = shapes(scanned, images.shape[1:])[0]
    assert set(like["params"]["stage2"]) == {"block1", "block2to4"}
    stacked = {collection: stack_blocks(variables[collection], tree) for collection, tree in like.items()}
    expected, found = run(usual, variables, images), run(scanned, stacked, images)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-5)


def test_remat_wraps_each_block():
    assert [count_rematerialised(tiny(remat=remat), (16, 16, 3)) for remat in (False, True)] == [0, 3]


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_takes_images_of_one_pixel(stem):
    assert sizes(shapes(tiny(stem=stem), (1, 1, 3))[1].features)["stage2"] == (1, 1, 16)
    with pytest.raises(ConfigError, match="at least 1x1"):
        tiny(stem=stem).init(jax.random.key(0), np.zeros((1, 0, 4, 3), np.float32), train=False)


def test_sizes_and_widths_must_name_the_same_stages():
    with pytest.raises(ConfigError, match="5 sizes and 2 widths"):
        create_model("mobilenet_v1", stage_widths=(8, 16))
