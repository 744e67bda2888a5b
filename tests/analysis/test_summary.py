"""Counts against the figures that the LeNet-5 paper prints, and against arithmetic for every kind of layer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.analysis.summary import summarize
from cnnjax.errors import ConfigError
from cnnjax.models import create_model, get_variant, list_models
from cnnjax.nn.network import Network, Outputs
from cnnjax.nn.norm import BatchNorm

# Layer: (height, width, channels), parameters, multiply-adds, connections.
LENET5 = {
    "c1": ((28, 28, 6), 156, 117_600, 122_304),
    "s2": ((14, 14, 6), 12, 0, 5_880),
    "c3": ((10, 10, 16), 1_516, 150_000, 151_600),
    "s4": ((5, 5, 16), 32, 0, 2_000),
    "c5": ((1, 1, 120), 48_120, 48_000, 48_120),
    "f6": ((1, 1, 84), 10_164, 10_080, 10_164),
    "output": ((10,), 0, 840, 840),
}


@pytest.fixture(scope="module")
def published():
    return summarize(create_model("lenet5"), (32, 32, 1))


@pytest.mark.parametrize("layer", LENET5)
def test_layers_of_lenet5_have_the_papers_figures(published, layer):
    found = next(entry for entry in published.layers if entry.name == layer)
    assert (found.output_shape, found.params, found.macs, found.connections) == LENET5[layer]


def test_totals_of_lenet5_are_the_papers(published):
    assert [layer.name for layer in published.layers] == list(LENET5)
    assert (published.params, published.macs, published.connections) == (60_000, 326_520, 340_908)
    assert published.batch_stats == 0


def test_totals_of_lenet5_modern():
    summary = summarize(create_model("lenet5_modern"), (32, 32, 1))
    assert (summary.params, summary.macs) == (61_706, 416_520)
    assert {layer.name: layer.params for layer in summary.layers}["c3"] == 2_416


@pytest.mark.parametrize(
    ("fields", "params"),
    [
        ({"c3": "full"}, 60_000 + 2_416 - 1_516),
        ({"pooling": "max"}, 60_000 - 12 - 32),
        ({"head": "linear"}, 60_000 + 850),
        ({"head": "linear", "num_classes": 26}, 60_000 + 85 * 26),
        ({"norm": "batch"}, 60_000 + 2 * (6 + 16 + 120)),
    ],
)
def test_fields_change_the_count_by_what_they_add(fields, params):
    assert summarize(create_model("lenet5", **fields), (32, 32, 1)).params == params


@pytest.mark.parametrize("name", list_models())
def test_layers_add_up_to_the_initialised_network(name):
    network, shape = create_model(name), get_variant(name).input_shape
    summary = summarize(network, shape)
    variables = jax.eval_shape(
        lambda key, images: network.init(key, images, train=False), jax.random.key(0), jnp.zeros((1, *shape))
    )
    params = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"]))
    assert summary.params == params == sum(layer.params for layer in summary.layers)
    assert summary.macs == sum(layer.macs for layer in summary.layers)
    assert summary.connections == sum(layer.connections for layer in summary.layers)
    assert all(layer.name for layer in summary.layers)


class Centred(nn.Module):
    """A layer that counts itself, with a layer inside that must not count again."""

    def macs(self, input_shape, output_shape):
        return 1_000 + input_shape[-1]

    def connections(self, input_shape, output_shape):
        return 2_000 + output_shape[-1]

    @nn.compact
    def __call__(self, x):
        return nn.Dense(7, name="inner")(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(4, (1, 1), use_bias=False, name="conv1")(x)


class EveryKind(Network, kw_only=True):
    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(8, (3, 5), strides=2, padding="SAME", name="strided")(images)
        x = nn.Conv(12, (3, 3), feature_group_count=4, use_bias=False, name="grouped")(x)
        x = BatchNorm(name="norm")(x, train=train)
        x = nn.Conv(12, (3, 3), feature_group_count=12, kernel_dilation=2, name="depthwise")(x)
        x = nn.ConvTranspose(6, (2, 2), strides=(2, 2), name="up")(x)
        block = Block(name="block")
        x = block(x)
        shared = nn.Conv(4, (1, 1), name="shared")
        x = shared(shared(x))
        x = Centred(name="centred")(x)
        return Outputs(logits=nn.Dense(self.num_classes, name="head")(x.mean((1, 2))), aux={}, features={})


@pytest.fixture(scope="module")
def every_kind():
    return summarize(EveryKind(num_classes=10, dtype=jnp.bfloat16), (10, 12, 2))


# Name: shape of the output, kernel, stride, parameters, multiply-adds, connections.
EVERY_KIND = {
    "strided": ((5, 6, 8), (3, 5), (2, 2), 248, 30 * 240, 30 * 248),
    "grouped": ((5, 6, 12), (3, 3), (1, 1), 216, 30 * 216, 30 * 216),
    "norm": ((5, 6, 12), None, None, 24, 0, 0),
    "depthwise": ((5, 6, 12), (3, 3), (1, 1), 120, 30 * 108, 30 * 120),
    "up": ((10, 12, 6), (2, 2), (2, 2), 294, 30 * 288, 30 * 288 + 120 * 6),
    "block/conv1": ((10, 12, 4), (1, 1), (1, 1), 24, 120 * 24, 120 * 24),
    "shared": ((10, 12, 4), (1, 1), (1, 1), 20, 120 * 16, 120 * 20),
    "centred": ((10, 12, 7), None, None, 35, 1_004, 2_007),
    "head": ((10,), None, None, 80, 70, 80),
}


@pytest.mark.parametrize("name", EVERY_KIND)
def test_every_kind_of_layer(every_kind, name):
    found = next(layer for layer in every_kind.layers if layer.name == name)
    counts = (found.output_shape, found.kernel, found.stride, found.params, found.macs, found.connections)
    assert counts == EVERY_KIND[name]


def test_a_shared_layer_costs_twice_and_holds_its_parameters_once(every_kind):
    first, second = (layer for layer in every_kind.layers if layer.name == "shared")
    assert (first.params, second.params) == (20, 0)
    assert first.macs == second.macs == 120 * 16
    assert every_kind.params == sum(layer.params for layer in every_kind.layers)
    assert every_kind.batch_stats == 24


@pytest.mark.parametrize(("dtype", "size"), [(jnp.float32, 4), (jnp.bfloat16, 2)])
def test_activation_bytes_follow_the_dtype(dtype, size):
    summary = summarize(create_model("lenet5", dtype=dtype), (32, 32, 1))
    first = summary.layers[0]
    assert first.activation_bytes == 28 * 28 * 6 * size


def test_a_layer_that_nothing_can_count_raises():
    class Bare(Network, kw_only=True):
        @nn.compact
        def __call__(self, images, *, train):
            offset = self.param("offset", nn.initializers.zeros, (1,))
            return Outputs(logits=images.mean((1, 2, 3), keepdims=True) + offset, aux={}, features={})

    with pytest.raises(TypeError, match=r"^Bare '' holds parameters \(offset\), and nothing says how to count it"):
        summarize(Bare(), (4, 4, 1))


def test_images_that_do_not_fit_raise_the_networks_own_error():
    with pytest.raises(ConfigError, match="at least 16x16"):
        summarize(create_model("lenet5"), (8, 8, 1))


def test_to_dict_is_json_with_every_layer(published):
    tree = json.loads(json.dumps(published.to_dict()))
    assert tree["params"] == 60_000
    assert tree["layers"][2] == {
        "name": "c3",
        "kind": "TableConvolution",
        "output_shape": [10, 10, 16],
        "kernel": [5, 5],
        "stride": [1, 1],
        "params": 1_516,
        "macs": 150_000,
        "connections": 151_600,
        "activation_bytes": 6_400,
    }
