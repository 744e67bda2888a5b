"""VGG: the paper's configurations against an independent computation, and what each switch changes."""

import functools

import jax
import numpy as np
import pytest
from definitions import (
    as_float64,
    assert_same,
    average_to,
    connect,
    convolve,
    count_rematerialised,
    dropped_shapes,
    initial_deviations,
    layers_with_parameters,
    pool,
    random_images,
    random_variables,
    relu,
    respond,
    run,
    shapes,
    sizes,
)
from flax import traverse_util

from cnnjax.errors import ConfigError
from cnnjax.models import create_model, get_variant

NARROW = {"width": 0.125, "num_classes": 10}
"""Stages 8, 16, 32, 64 and 64 channels wide, and 512 units."""

# Table 1: the kernel sizes of each stage's convolutions.
TABLE_1 = {
    "vgg_a": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "vgg_a_lrn": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "vgg_b": ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    "vgg_c": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "vgg_d": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "vgg_e": ((3, 3), (3, 3), (3,) * 4, (3,) * 4, (3,) * 4),
}


layers_of = functools.partial(layers_with_parameters, "vgg16", (224, 224, 3))


def kernels(name, **fields):
    """The kernel size of each convolution."""
    leaves = traverse_util.flatten_dict(shapes(create_model(name, **fields), (32, 32, 3))[0]["params"], sep="/")
    return {
        path.removesuffix("/kernel"): leaf.shape[0]
        for path, leaf in leaves.items()
        if path.startswith("stage") and path.endswith("/kernel")
    }


def published(name, params, x):
    """A configuration of Table 1 at any width in float64."""
    p = as_float64(params)
    features = {}
    for stage, sizes_of_kernels in enumerate(TABLE_1[name], 1):
        for conv, _ in enumerate(sizes_of_kernels, 1):
            x = relu(convolve(x, **p[f"stage{stage}"][f"conv{conv}"]["conv"]))
            if name == "vgg_a_lrn" and (stage, conv) == (1, 1):
                x = respond(x)
        features[f"stage{stage}"] = x
        x = pool(x, 2, 2)
    features["pool"] = x
    x = average_to(x, 7).reshape(len(x), -1)
    x = relu(connect(x, p["dense1"]))
    x = relu(connect(x, p["dense2"]))
    return features, connect(x, p["head"])


@pytest.mark.parametrize("name", ["vgg_a_lrn", "vgg_c"])
def test_every_layer_equals_an_independent_computation(name):
    network = create_model(name, **NARROW)
    # Large enough for the response normalisation to matter; one map is odd where it is pooled.
    x = random_images(1, 64, 104, 3, scale=100)
    variables = random_variables(network, x.shape[1:])
    assert_same(run(network, variables, x), *published(name, variables["params"], x.astype(np.float64)))


@pytest.mark.parametrize("name", TABLE_1)
def test_layers_are_those_of_table_1(name):
    expected = {
        f"stage{stage}/conv{conv}/conv": kernel
        for stage, row in enumerate(TABLE_1[name], 1)
        for conv, kernel in enumerate(row, 1)
    }
    assert kernels(name) == expected


@pytest.mark.parametrize(("alias", "name"), [("a", 11), ("b", 13), ("d", 16), ("e", 19)])
def test_aliases_are_the_same_network(alias, name):
    assert get_variant(f"vgg_{alias}") == get_variant(f"vgg{name}")


def test_features_have_the_papers_sizes():
    _, outputs = shapes(create_model("vgg16"), (224, 224, 3))
    assert sizes(outputs.features) == {
        "stage1": (224, 224, 64), "stage2": (112, 112, 128), "stage3": (56, 56, 256), "stage4": (28, 28, 512),
        "stage5": (14, 14, 512), "pool": (7, 7, 512),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vgg11", (3, 3, 5, 5, 5)), ("vgg13", (5,) * 5), ("vgg16", (5, 5, 7, 7, 7)), ("vgg_c", (5,) * 5),
     ("vgg19", (5, 5, 9, 9, 9))],
)  # fmt: skip
def test_one_kernel_in_place_of_a_stack_sees_as_far(name, expected):
    single = kernels(name, stacks="single")
    assert single == {f"stage{stage}/conv1/conv": kernel for stage, kernel in enumerate(expected, 1)}


def test_a_7x7_has_49_weights_where_three_3x3_have_27():
    single, stack = layers_of(stacks="single"), layers_of()
    for name in ("dense1", "dense2", "head"):
        assert single[name].params == stack[name].params
    assert single["stage5/conv1/conv"].output_shape == stack["stage5/conv3/conv"].output_shape
    in_stack = sum(stack[f"stage5/conv{conv}/conv"].macs for conv in (1, 2, 3))
    assert single["stage5/conv1/conv"].macs * 27 == in_stack * 49


def test_response_normalisation_follows_the_first_stage():
    x = random_images(1, 32, 32, 3, scale=100)
    off, on = create_model("vgg11", **NARROW), create_model("vgg_a_lrn", **NARROW)
    variables = random_variables(off, x.shape[1:])
    assert jax.tree.structure(variables) == jax.tree.structure(shapes(on, x.shape[1:])[0])
    without, normalised = (run(network, variables, x) for network in (off, on))
    np.testing.assert_allclose(
        normalised.features["stage1"], respond(np.asarray(without.features["stage1"], np.float64)), rtol=1e-5
    )
    assert not np.allclose(normalised.logits, without.logits, rtol=1e-2)


def test_batch_normalisation_keeps_the_biases_unless_told_otherwise():
    normalised, _ = shapes(create_model("vgg11_bn"), (224, 224, 3))
    plain, _ = shapes(create_model("vgg11"), (224, 224, 3))
    flat, expected = (set(traverse_util.flatten_dict(tree["params"], sep="/")) for tree in (normalised, plain))
    convolutions = {name.rpartition("/conv/")[0] for name in expected if name.startswith("stage")}
    assert len(convolutions) == 8
    assert flat == expected | {f"{name}/norm/{leaf}" for name in convolutions for leaf in ("scale", "bias")}
    bare, _ = shapes(create_model("vgg11_bn", conv_bias=False), (224, 224, 3))
    assert set(traverse_util.flatten_dict(bare["params"], sep="/")) == flat - {
        f"{name}/conv/bias" for name in convolutions
    }
    # Without normalisation there are biases whatever the field says.
    same, _ = shapes(create_model("vgg11", conv_bias=False), (224, 224, 3))
    assert same == plain


def test_a_global_average_head_has_no_hidden_layers():
    layers, dense = layers_of(head="global_average"), layers_of()
    assert layers["head"].params == 512 * 1000 + 1000
    assert set(dense) - set(layers) == {"dense1", "dense2"}
    assert all(layers[name].macs == dense[name].macs for name in layers if name != "head")
    network = create_model("vgg11", **NARROW, head="global_average")
    x = random_images(2, 64, 64, 3)
    variables = random_variables(network, x.shape[1:])
    outputs, head = run(network, variables, x), variables["params"]["head"]
    expected = outputs.features["pool"].mean((1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-4, atol=1e-5)


def test_the_dense_heads_map_and_width_are_fields():
    layers = layers_of(head_size=2, dense_width=100)
    assert layers["dense1"].params == 2 * 2 * 512 * 100 + 100
    assert layers["head"].params == 100 * 1000 + 1000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [((4096,), 0.5), ((4096,), 0.5)]),
        ({"head": "global_average", "dropout": 0.25}, [((512,), 0.25)]),
        ({"dropout": 0.0}, []),
    ],
)
def test_dropout_acts_in_training_alone_where_it_stands(fields, expected):
    network = create_model("vgg11", **fields)
    assert dropped_shapes(network, (224, 224, 3)) == expected
    assert dropped_shapes(network, (224, 224, 3), train=False) == []


@pytest.mark.parametrize(("depth", "expected"), [(0.5, (1, 1, 2, 2, 2)), (1 / 3, (1,) * 5), (2, (4, 4, 6, 6, 6))])
def test_depth_multiplies_each_stage(depth, expected):
    names = set(kernels("vgg16", depth=depth))
    assert names == {f"stage{stage}/conv{conv}/conv" for stage, n in enumerate(expected, 1) for conv in range(1, n + 1)}


def test_a_shallower_c_keeps_a_3x3_in_each_stage():
    half = kernels("vgg_c", depth=0.5)
    assert [half[f"stage3/conv{conv}/conv"] for conv in (1, 2)] == [3, 1]
    assert set(kernels("vgg_c", depth=1 / 3).values()) == {3}


def test_width_scales_every_layer():
    halved = layers_of(width=0.5)
    for name, layer in layers_of().items():
        assert halved[name].output_shape[-1] * (1 if name == "head" else 2) == layer.output_shape[-1], name


def test_a_small_stem_leaves_out_two_pools():
    _, outputs = shapes(create_model("vgg16", stem="small"), (32, 32, 3))
    assert [size[0] for size in sizes(outputs.features).values()] == [4, 32, 32, 32, 16, 8]


@pytest.mark.parametrize(
    ("initialization", "deviation"),
    [("glorot", (2 / (144 + 576)) ** 0.5), ("normal", 0.1), ("he_normal", (2 / 576) ** 0.5)],
)
def test_initial_weights(initialization, deviation):
    found = initial_deviations(create_model("vgg11", initialization=initialization), (224, 224, 3))
    if initialization == "he_normal":
        assert found.pop("head")[0] == pytest.approx((1 / 3 / 144) ** 0.5, rel=0.05)
    assert len(found) >= 10
    assert all(start == (pytest.approx(deviation, rel=0.05), 0) for start in found.values())


def test_rematerialising_wraps_every_block():
    networks = [create_model("vgg16", remat=remat) for remat in (False, True)]
    assert [count_rematerialised(network, (224, 224, 3)) for network in networks] == [0, 5]
    plain, rematerialised = (shapes(network, (224, 224, 3))[0] for network in networks)
    assert plain == rematerialised


@pytest.mark.parametrize(("fields", "smallest"), [({}, 32), ({"stem": "small"}, 8), ({"stacks": "single"}, 32)])
def test_smallest_size(fields, smallest):
    network = create_model("vgg16", **fields)
    for image in ((smallest, smallest, 4), (smallest, smallest + 30, 1)):
        _, outputs = shapes(network, image)
        assert outputs.features["pool"].shape[1] == 1
        assert outputs.logits.shape == (1, 1000)
    with pytest.raises(ConfigError, match=f"at least {smallest}x{smallest}"):
        shapes(network, (smallest, smallest - 1, 3))


@pytest.mark.parametrize("fields", [{"stage_sizes": (1, 2)}, {"stage_sizes": (), "stage_widths": ()}])
def test_stages_have_a_size_and_a_width_each(fields):
    with pytest.raises(ConfigError, match="expected as many stage_sizes as stage_widths, got"):
        create_model("vgg16", **fields)
