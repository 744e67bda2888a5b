"""Feature maps come from shallow to deep, with the strides, sizes and receptive fields that they have."""

import dataclasses
import itertools

import jax
import pytest

from cnnjax.analysis import feature_pyramid, summarize
from cnnjax.errors import ConfigError
from cnnjax.models import FAMILIES, create_model, get_variant


def pyramid(name, shape=None, **fields):
    return feature_pyramid(create_model(name, **fields), shape or get_variant(name).input_shape)


def test_resnet50_for_an_uneven_image():
    found = pyramid("resnet50", (200, 320, 3))
    assert [(each.name, each.stride, each.channels, each.size) for each in found] == [
        ("stem", (2, 2), 64, (100, 160)),
        ("stage1", (4, 4), 256, (50, 80)),
        ("stage2", (8, 8), 512, (25, 40)),
        ("stage3", (16, 16), 1024, (13, 20)),
        ("stage4", (32, 32), 2048, (7, 10)),
    ]
    assert [each.receptive_field.size[0] for each in found] == [7, 35, 91, 267, 427]


@pytest.mark.parametrize("fields", [{}, {"upsampling": "nearest"}, {"upsampling": "bilinear", "skip": "add"}])
@pytest.mark.parametrize(("name", "shape"), [("unet", (572, 604, 1)), ("unet_same", (64, 96, 1))])
def test_a_decoders_strides_shrink_again(name, shape, fields):
    found = pyramid(name, shape, width=0.125, **fields)
    assert [each.name for each in found] == [
        *(f"stage{level}" for level in (1, 2, 3, 4, 5)),
        *(f"decoder{level}" for level in (4, 3, 2, 1)),
    ]
    assert [each.stride for each in found] == [(stride, stride) for stride in (1, 2, 4, 8, 16, 8, 4, 2, 1)]
    assert [each.receptive_field.size[0] for each in found[:5]] == [5, 14, 32, 68, 140]
    reach = [each.receptive_field.size[0] for each in found[4:]]
    assert reach == sorted(reach)


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_of_every_family_get_coarser_and_see_more(family):
    name = FAMILIES[family][0]
    fields = {field.name for field in dataclasses.fields(get_variant(name).network)}
    shallow = {"depth": 0.1} if "depth" in fields and family != "unet" else {}  # less to trace
    found = pyramid(name, **shallow)
    height, width, _ = get_variant(name).input_shape
    way_down = [each for each in found if not each.name.startswith("decoder")]
    for before, after in itertools.pairwise(way_down):
        assert before.stride <= after.stride
        assert before.receptive_field.size <= after.receptive_field.size
        assert before.size >= after.size
    for each in found:
        if min(each.size) > 1:  # padding, or its absence, makes a map some windows larger or smaller
            rows, columns = (size / stride for size, stride in zip((height, width), each.stride, strict=True))
            assert (each.size[0] - rows) == pytest.approx(each.size[1] - columns, abs=1)
            assert (each.size[0] - 1) * each.stride[0] <= height + each.receptive_field.size[0]


def test_it_is_what_the_summary_shows():
    network = create_model("resnet18", stage_sizes=(1, 1), stage_widths=(8, 16))
    assert feature_pyramid(network, (64, 96, 3)) == list(summarize(network, (64, 96, 3)).features)


def test_the_order_is_not_that_of_jaxs_trees():
    network = create_model("lenet5")
    images = jax.ShapeDtypeStruct((1, 32, 32, 1), "float32")
    outputs = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False)[0], images)
    in_order = [each.name for each in feature_pyramid(network, (32, 32, 1))]
    assert in_order == ["c1", "s2", "c3", "s4", "c5", "f6"]
    assert list(outputs.features) == sorted(in_order)


def test_images_that_do_not_fit_raise_the_networks_own_error():
    with pytest.raises(ConfigError, match="at least 16x16"):
        pyramid("lenet5", (8, 8, 1))
