"""Counts against the figures that the LeNet-5 paper prints, and against arithmetic for every kind of layer."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from uncountable import Bare, Looped

from cnnjax.analysis.summary import summarize
from cnnjax.errors import ConfigError
from cnnjax.models import FAMILIES, create_model, get_variant
from cnnjax.nn.network import Network, Outputs
from cnnjax.nn.norm import BatchNorm
from cnnjax.ops.pooling import global_average_pool, max_pool

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


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_add_up_to_the_initialised_network(family):
    name = FAMILIES[family][-1]
    fields = {field.name for field in dataclasses.fields(get_variant(name).network)}
    shallow = {"depth": 0.1} if "depth" in fields else {}  # less to trace
    network, shape = create_model(name, **shallow), get_variant(name).input_shape
    summary = summarize(network, shape)
    variables = jax.eval_shape(
        lambda key, images: network.init(key, images, train=False), jax.random.key(0), jnp.zeros((1, *shape))
    )
    params = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"]))
    assert summary.params == params == sum(layer.params for layer in summary.layers)
    in_evaluation = [layer for layer in summary.layers if not layer.training_only]
    assert summary.macs == sum(layer.macs for layer in in_evaluation)
    assert summary.connections == sum(layer.connections for layer in in_evaluation)
    assert summary.activation_bytes == sum(layer.activation_bytes for layer in in_evaluation)
    assert summary.largest_activation_bytes == max(layer.activation_bytes for layer in in_evaluation)
    assert all(layer.name for layer in summary.layers)
    assert all(layer.receptive_field is not None for layer in in_evaluation)


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


class Pooled(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = max_pool(nn.Conv(4, (3, 3), name="conv")(x), 3, 2, "symmetric")
        return max_pool(x, 2, 2)


class WithPools(Network, kw_only=True):
    """Pools, a gate that sees everything, and a classifier that only training has."""

    @nn.compact
    def __call__(self, images, *, train):
        x = max_pool(images, 2, 2)
        x = Pooled(name="stage")(x)
        gate = nn.Dense(4, use_bias=False, name="gate")(global_average_pool(x))
        x = nn.Conv(6, (1, 1), use_bias=False, name="last")(x * gate[:, None, None])
        if train or self.is_initializing():
            nn.Dense(3, name="auxiliary")(global_average_pool(x))
        logits = nn.Dense(2, name="head")(global_average_pool(x))
        return Outputs(logits=logits, aux={}, features={"shallow": images, "deep": x})


@pytest.fixture(scope="module")
def with_pools():
    return summarize(WithPools(), (32, 48, 3))


# In the order of the calls: name, kind, output, window, stride, height of the receptive field, whether it sees all.
WITH_POOLS = [
    ("max_pool", "max_pool", (16, 24, 3), (2, 2), (2, 2), 2, False),
    ("stage/conv", "Conv", (16, 24, 4), (3, 3), (1, 1), 6, False),
    ("stage/max_pool", "max_pool", (8, 12, 4), (3, 3), (2, 2), 10, False),
    ("stage/max_pool2", "max_pool", (4, 6, 4), (2, 2), (2, 2), 14, False),
    ("global_average_pool", "global_average_pool", (4,), (4, 6), None, None, True),
    ("gate", "Dense", (4,), None, None, None, True),
    ("last", "Conv", (4, 6, 6), (1, 1), (1, 1), 14, True),
    ("global_average_pool2", "global_average_pool", (6,), (4, 6), None, None, True),
    ("head", "Dense", (2,), None, None, None, True),
]


def test_pools_are_rows_in_their_places(with_pools):
    found = []
    for layer in with_pools.layers[:-1]:
        field = layer.receptive_field
        seen = (field.size[0] if field.size else None, field.whole_image)
        found.append((layer.name, layer.kind, layer.output_shape, layer.kernel, layer.stride, *seen))
    assert found == WITH_POOLS


def test_pools_cost_connections_and_memory_alone(with_pools):
    pool = with_pools.layers[2]
    assert (pool.params, pool.macs, pool.connections) == (0, 0, 8 * 12 * 4 * 9)
    assert pool.activation_bytes == 8 * 12 * 4 * 4


def test_what_only_training_computes_has_parameters_and_no_part_in_the_sums(with_pools):
    *evaluated, auxiliary = with_pools.layers
    assert not any(layer.training_only for layer in evaluated)
    assert (auxiliary.name, auxiliary.training_only, auxiliary.receptive_field) == ("auxiliary", True, None)
    assert (auxiliary.params, auxiliary.macs) == (6 * 3 + 3, 6 * 3)
    assert with_pools.params == sum(layer.params for layer in with_pools.layers)
    assert with_pools.macs == 16 * 24 * 108 + 4 * 4 + 4 * 6 * 24 + 6 * 2
    assert with_pools.connections == sum(layer.connections for layer in evaluated)


def test_activations_are_summed_and_the_largest_is_told(with_pools):
    sizes = [16 * 24 * 3, 16 * 24 * 4, 8 * 12 * 4, 4 * 6 * 4, 4, 4, 4 * 6 * 6, 6, 2]
    assert with_pools.activation_bytes == 4 * sum(sizes)
    assert with_pools.largest_activation_bytes == 4 * 16 * 24 * 4


@pytest.mark.parametrize("fields", [{"remat": True}, {"scan": True}, {"remat": True, "scan": True}])
def test_how_a_network_is_compiled_makes_no_difference(fields):
    small = {"stage_sizes": (4, 4), "stage_widths": (8, 16)}
    plain = summarize(create_model("resnet50", **small), (64, 64, 3))
    assert summarize(create_model("resnet50", **small, **fields), (64, 64, 3)) == plain


def test_rematerialised_modules_of_ones_own_count_as_they_are():
    class Rematerialised(Network, kw_only=True):
        @nn.compact
        def __call__(self, images, *, train):
            x = nn.remat(Pooled)(name="stage")(images)
            return Outputs(logits=x.mean((1, 2)), aux={}, features={})

    found = summarize(Rematerialised(), (32, 32, 3))
    names = ["stage/conv", "stage/max_pool", "stage/max_pool2", "global_average_pool"]
    assert [layer.name for layer in found.layers] == names
    assert found.macs == 32 * 32 * 108


def test_a_layer_in_a_loop_raises():
    with pytest.raises(TypeError, match=r"^'dense' is called in a loop, and nothing says how often"):
        summarize(Looped(), (4, 4, 3))


def test_a_layer_that_nothing_can_count_raises():
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
        "receptive_field": {"size": [14, 14], "stride": [2, 2], "start": [0, 0], "whole_image": False},
        "training_only": False,
    }
    assert [each["name"] for each in tree["features"]] == ["c1", "s2", "c3", "s4", "c5", "f6"]
