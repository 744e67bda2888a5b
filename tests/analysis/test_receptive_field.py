"""Receptive fields against the literature's figures, and what is told of a map."""

import jax
import jax.numpy as jnp
import pytest
from all_ones import LAYOUT, conv
from flax import linen as nn
from jax import lax

from cnnjax.analysis import receptive_fields
from cnnjax.models import create_model
from cnnjax.ops.pooling import max_pool


def fields_of(network, shape=(224, 224, 3)):
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(lambda key, x: network.init(key, x, train=False), jax.random.key(0), images)
    return receptive_fields(lambda variables, x: network.apply(variables, x, train=False), variables, images)


def sizes_and_strides(outputs, names):
    fields = [outputs.features[name] for name in names]
    assert all(field.size[0] == field.size[1] and field.stride[0] == field.stride[1] for field in fields)
    return [(field.size[0], field.stride[0]) for field in fields]


def test_vgg16_after_each_pool():
    fields = []

    def vgg16(x):
        for repeats in (2, 2, 3, 3, 3):
            for _ in range(repeats):
                x = nn.relu(conv(x))
            x = max_pool(x, 2, 2)
            fields.append(x)
        return tuple(fields)

    found = receptive_fields(vgg16, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert [(field.size, field.stride) for field in found] == [
        ((size, size), (stride, stride)) for size, stride in ((6, 2), (16, 4), (44, 8), (100, 16), (212, 32))
    ]
    assert not any(field.whole_image for field in found)


def test_alexnet_after_each_convolution_and_the_last_pool():
    def alexnet(x):
        conv1 = conv(x, 11, 4, "VALID")
        conv2 = conv(max_pool(conv1, 3, 2), 5)
        conv3 = conv(max_pool(conv2, 3, 2))
        conv4 = conv(conv3)
        conv5 = conv(conv4)
        return conv1, conv2, conv3, conv4, conv5, max_pool(conv5, 3, 2)

    found = receptive_fields(alexnet, jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32))
    assert [field.size[0] for field in found] == [11, 51, 99, 131, 163, 195]
    assert [field.stride[0] for field in found] == [4, 8, 16, 16, 16, 32]
    assert [field.start for field in found[:2]] == [(0, 0), (-16, -16)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", [(7, 2), (43, 4), (99, 8), (211, 16), (435, 32)]),
        # With a bottleneck's stride on its 3x3 convolution, that sees the finer of the two maps.
        ("resnet50", [(7, 2), (35, 4), (91, 8), (267, 16), (427, 32)]),
        ("resnet50_v1", [(7, 2), (35, 4), (99, 8), (291, 16), (483, 32)]),
    ],
)
def test_residual_networks(name, expected):
    found = fields_of(create_model(name))
    assert sizes_and_strides(found, ["stem", "stage1", "stage2", "stage3", "stage4"]) == expected
    assert not found.features["stage4"].whole_image


# The table of Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill.
@pytest.mark.parametrize(
    ("name", "feature", "size"),
    [
        ("alexnet", "pool", 195),
        ("vgg16", "pool", 212),
        ("resnet101_v1", "stage4", 1027),
        pytest.param("resnet152_v1", "stage4", 1507, marks=pytest.mark.slow),
        ("mobilenet_v1", "stage5", 315),
        ("inception_v2_slim", "stage4", 699),
        ("inception_v3", "stage4", 1311),
        pytest.param("inception_v4", "stage4", 2071, marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2", "stage4", 3039, marks=pytest.mark.slow),
    ],
)
def test_deep_networks(name, feature, size):
    assert sizes_and_strides(fields_of(create_model(name)), [feature])[0][0] == size


def test_logits_see_the_whole_image_and_have_no_positions():
    logits = fields_of(create_model("resnet18")).logits
    assert (logits.size, logits.stride, logits.start, logits.whole_image) == (None, None, None, True)


def test_squeeze_and_excitation_keeps_the_windows_and_sees_the_rest_too():
    plain, gated = (fields_of(create_model(name)) for name in ("resnet18", "se_resnet18"))
    assert gated.features["stem"] == plain.features["stem"]
    for stage in ("stage1", "stage4"):
        assert gated.features[stage].size == plain.features[stage].size
        assert gated.features[stage].stride == plain.features[stage].stride
        assert (gated.features[stage].whole_image, plain.features[stage].whole_image) == (True, False)


def test_a_finer_map_than_the_image_has_a_stride_below_one():
    field = receptive_fields(lambda x: jnp.repeat(jnp.repeat(x, 4, 1), 2, 2), jnp.ones((1, 3, 3, 1)))
    assert (field.stride, field.size) == ((0.25, 0.5), (1, 1))


def test_heights_and_widths_are_told_apart():
    def uneven(x):
        return lax.conv_general_dilated(x, jnp.ones((3, 7, 1, 1)), (2, 1), ((1, 1), (0, 0)), dimension_numbers=LAYOUT)

    field = receptive_fields(uneven, jnp.ones((1, 9, 9, 1)))
    assert (field.size, field.stride, field.start) == ((3, 7), (2, 1), (-1, 0))


def test_what_does_not_see_the_images_has_none():
    fields = receptive_fields(lambda weights, x: {"weights": weights * 2, "x": x}, jnp.ones(3), jnp.ones((1, 4, 4, 1)))
    assert fields["weights"] is None
    assert fields["x"].size == (1, 1)
