"""What a value sees, against pixels that are switched on one at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from all_ones import LAYOUT, conv
from flax import linen as nn
from jax import lax

from cnnjax.analysis import receptive_fields
from cnnjax.analysis.equations import trace
from cnnjax.analysis.seen import seen_along
from cnnjax.models import create_model
from cnnjax.ops.pooling import adaptive_average_pool, average_pool, global_average_pool, max_pool


def unet(x):
    """Two levels up and down, without padding."""
    first = conv(x, padding="VALID")
    second = conv(max_pool(first, 2, 2), padding="VALID")
    third = conv(max_pool(second, 2, 2))
    for twin in (second, first):
        third = nn.ConvTranspose(1, (2, 2), (2, 2), padding="VALID").apply(
            {"params": {"kernel": jnp.ones((2, 2, third.shape[-1], 1)), "bias": jnp.zeros(1)}}, third
        )
        cut = (twin.shape[1] - third.shape[1]) // 2
        cropped = twin[:, cut : cut + third.shape[1], cut : cut + third.shape[2]]
        third = conv(jnp.concatenate([cropped, third], -1), padding="VALID")
    return third


def resized(method, factor, x):
    batch, height, width, channels = x.shape
    x = jax.image.resize(x, (batch, int(height * factor), int(width * factor), channels), method)
    return conv(x, padding=((1, 1), (1, 1)))


def strided_transposed(x, size, padding):
    kernel = jnp.ones((size, size, 1, 1))
    return lax.conv_transpose(conv(x), kernel, (2, 2), padding, dimension_numbers=LAYOUT)


def split_and_stacked(x):
    blocks = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, 1).transpose(0, 1, 3, 2, 4, 5)
    return conv(blocks.reshape(len(x), x.shape[1] // 2, x.shape[2] // 2, 4))


def stacked_and_split(x):
    x = conv(x, stride=2, features=4).reshape(len(x), x.shape[1] // 2, x.shape[2] // 2, 2, 2)
    return conv(x.transpose(0, 1, 3, 2, 4).reshape(len(x), 2 * x.shape[1], 2 * x.shape[2], 1))


def constants_around(x):
    zeros = jnp.zeros((len(x), 3, x.shape[2], 1))
    return conv(jnp.concatenate([zeros, x, zeros], 1), 5, 2)


def depthwise_and_shuffled(x):
    x = conv(x, features=4).reshape(*x.shape[:3], 2, 2).swapaxes(3, 4)
    return conv(x.reshape(*x.shape[:3], 4), features=4, feature_group_count=4)


def by_platform(x):
    return conv(lax.platform_dependent(x, cpu=lambda x: conv(x, 5), default=lambda x: conv(x)))


def channels_first(x):
    kernel = jnp.ones((1, 1, 5, 3))
    return lax.conv_general_dilated(x.transpose(0, 3, 1, 2), kernel, (2, 1), "SAME").transpose(0, 2, 3, 1)


MAPS = {
    "strided and dilated": lambda x: conv(conv(x, 5, 2, ((2, 2), (2, 2))), 3, rhs_dilation=(2, 2)),
    "depthwise and shuffled": depthwise_and_shuffled,
    "pools": lambda x: average_pool(max_pool(conv(x), 3, 2, "symmetric"), 3, 1, "same"),
    "pools that round up": lambda x: conv(max_pool(max_pool(x, 3, 2, "ceil"), 2, 2, "ceil")),
    "flax pools": lambda x: nn.avg_pool(nn.max_pool(x, (3, 2), (2, 1), "SAME"), (2, 2), (2, 2)),
    "adaptive pool": lambda x: adaptive_average_pool(conv(x), (9, 12)),
    "same and odd": lambda x: conv(conv(x[:, :41, :39], 3, 2), 4, 2),
    "unet": unet,
    "transposed, same": functools.partial(strided_transposed, size=3, padding="SAME"),
    "transposed, valid": functools.partial(strided_transposed, size=4, padding="VALID"),
    "nearest": functools.partial(resized, "nearest", 2),
    "bilinear": functools.partial(resized, "bilinear", 2),
    "bilinear, by a half more": functools.partial(resized, "bilinear", 1.5),
    "bilinear, half": functools.partial(resized, "bilinear", 0.5),
    "cubic": functools.partial(resized, "cubic", 2),
    "space to depth": split_and_stacked,
    "depth to space": stacked_and_split,
    "repeated": lambda x: conv(jnp.repeat(conv(x, stride=2), 3, 1), 5),
    "constants around": constants_around,
    "interior padding": lambda x: conv(lax.pad(x, 0.0, ((0, 0, 0), (2, -1, 1), (-1, 0, 2), (0, 0, 0))), 5),
    "sliced": lambda x: conv(x[:, 4:-2:2, 1::3]),
    "dynamically sliced": lambda x: conv(lax.dynamic_slice(x, (0, 4, 0, 0), (len(x), 32, x.shape[2], 1))),
    "split": lambda x: conv(jnp.split(conv(x), 2, 1)[1]),
    "product": lambda x: conv(jnp.einsum("bhwc,cd->bhwd", conv(x, stride=2), jnp.ones((1, 2)))),
    "channels first": channels_first,
    "checkpointed": jax.checkpoint(lambda x: nn.gelu(conv(jax.jit(nn.silu)(conv(x)), stride=2))),
    "by platform": by_platform,
    "residual": lambda x: conv(x, 5, 2) + x[:, ::2, ::2] * conv(x, 3, 2),
}


def switched_on(function, axis, shape):
    """(pixels, positions): which pixels of the image's middle line the positions of a map along an axis depend on.

    The function is monotone and gives zeros for zeros, so that no pixel can cancel another.
    """
    length, middle = shape[axis], shape[1 - axis] // 2
    images = jnp.zeros((length, *shape, 1))
    pixels = jnp.arange(length)
    images = images.at[pixels, pixels, middle].set(1) if axis == 0 else images.at[pixels, middle, pixels].set(1)
    return np.asarray(jnp.abs(function(images)).max((2 - axis, 3)) > 0)


def compare_with_switched_on(function, shape):
    traced = trace(function, jax.ShapeDtypeStruct((1, *shape, 1), jnp.float32))
    for axis in (0, 1):
        seen = seen_along(traced, axis + 1)[traced.outputs]
        assert (seen.axis, seen.whole) == (axis + 1, False)
        reached = switched_on(function, axis, shape)
        size, positions = reached.shape
        exact = 0
        for position in range(positions):
            first, last = seen.windows.span(position)
            pixels = np.flatnonzero(reached[:, position])
            assert ((pixels >= first) & (pixels <= last)).all(), position
            # Near the borders part of a window lies in the padding of some map on the way.
            if positions // 4 < position < positions - 1 - positions // 4 and first >= 0 and last < size:
                assert (first, last) == (pixels[0], pixels[-1]), position
                exact += 1
        assert exact > 1


@pytest.mark.parametrize("name", MAPS)
def test_windows_are_what_pixels_switched_on_one_at_a_time_reach(name):
    compare_with_switched_on(MAPS[name], (48, 56))


@pytest.mark.parametrize(
    ("name", "feature", "fields", "shape"),
    [
        ("resnet50", "stage3", {"stage_sizes": (1, 1, 1)}, (64, 56)),
        ("unet", "decoder1", {"levels": 3, "width": 0.02}, (108, 124)),
        ("unet_same", "decoder1", {"levels": 3, "width": 0.02, "upsampling": "bilinear", "skip": "add"}, (96, 92)),
        ("densenet121", "stage2", {"stage_sizes": (2, 2), "growth_rate": 2, "stem_width": 2}, (160, 136)),
    ],
)
def test_windows_of_small_networks(name, feature, fields, shape):
    if name == "resnet50":
        fields = {**fields, "stage_widths": (1, 1, 1), "stem_width": 1, "stem": "small"}
    network = create_model(name, num_classes=2, **fields)
    variables = jax.eval_shape(
        lambda key, x: network.init(key, x, train=False), jax.random.key(0), jnp.ones((1, *shape, 1))
    )
    # Nothing negative and no bias: zeros stay zero, and what is seen is never cancelled or cut off by a ReLU.
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full(leaf.shape, float(path[-1].key not in ("bias", "mean"))), variables
    )
    compare_with_switched_on(jax.jit(lambda x: network.apply(variables, x, train=False).features[feature]), shape)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean((1, 2), keepdims=True),
        lambda x: x * nn.sigmoid(global_average_pool(x))[:, None, None],
        lambda x: nn.GroupNorm(1).apply({"params": {"scale": jnp.ones(1), "bias": jnp.zeros(1)}}, x),
        lambda x: jnp.where(x.max() > 0, x, -x),
    ],
)
def test_a_global_path_beside_a_map(function):
    field = receptive_fields(lambda x: conv(function(conv(x))), jnp.ones((1, 16, 16, 1)))
    assert (field.size, field.stride, field.whole_image) == ((5, 5), (1, 1), True)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(1, -1) @ jnp.ones((256, 3)),
        lambda x: jnp.cumsum(x, 1),
        lambda x: jnp.sort(x, 1),
        lambda x: x[:, ::-1],
        lambda x: jnp.roll(x, 1, 1),
        lambda x: jnp.take(x, x[0, :, 0, 0].argmax()[None], 1),
        lambda x: x + x.swapaxes(1, 2),
        lambda x: x[:, ::2] + x[:, :8],
        lambda x: jnp.fft.fft(x, axis=1).real,
        lambda x: lax.scan(lambda carry, _: (conv(carry), None), x, length=2)[0],
        lambda x: jnp.einsum("bhwc,hk->bkwc", x, x[0, :, :, 0]),
        lambda x: x.mean(1),
    ],
)
def test_what_has_no_pattern_of_windows_is_said_to_see_everything(function):
    field = receptive_fields(function, jnp.ones((1, 16, 16, 1)))
    assert (field.size, field.whole_image) == (None, True)
