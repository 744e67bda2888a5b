"""Every network has exactly the parameters, batch statistics and multiply-adds of its record.

`records.json` is a table made by building the other libraries' networks, and by arithmetic from the papers.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.analysis.summary import summarize
from cnnjax.models import ALIASES, create_model, get_variant, list_models, list_peers

RECORDS = {record["id"]: record for record in json.loads(Path(__file__).with_name("records.json").read_text())}
# Records that count a network of ours with other fields than its own.
FIELDS = {
    "paper/googlenet": {"auxiliary_classifiers": 0},
    "paper/inception_v2+conv_bias": {"conv_bias": True},
}
# Records whose multiply-adds include those of the auxiliary classifiers, which only training computes.
WITH_AUXILIARIES = ("paper/googlenet+aux",)


def named(record) -> str:
    """What `create_model` calls the network of a record."""
    return record["name"] if record["id"].startswith("paper/") else record["id"]


@functools.cache
def counted(name, classes, shape, fields, with_auxiliaries):
    summary = summarize(create_model(name, num_classes=classes, **dict(fields)), shape)
    macs = sum(layer.macs for layer in summary.layers) if with_auxiliaries else summary.macs
    return {"params": summary.params, "batch_stats": summary.batch_stats, "macs": macs}


@pytest.mark.parametrize("record_id", RECORDS)
def test_counts(record_id):
    record = RECORDS[record_id]
    fields = FIELDS.get(record_id, {})
    found = counted(
        named(record), record["classes"], tuple(record["input"]), tuple(fields.items()), record_id in WITH_AUXILIARIES
    )
    assert found == {key: record[key] for key in found}


def test_every_record_is_registered():
    assert {record["name"] for record in RECORDS.values()} <= {*list_models(), *ALIASES}
    assert {record_id for record_id in RECORDS if not record_id.startswith("paper/")} <= set(list_peers())


def test_aliases_are_other_names_of_networks():
    for alias, name in ALIASES.items():
        assert alias not in list_models()
        assert create_model(alias) == create_model(name)


def graph(name) -> str:
    """What the network computes, in training and evaluation, as text."""
    network, shape = create_model(name), get_variant(name).input_shape
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = shapes(name)

    def both(variables, images, key):
        trained = network.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        return trained, network.apply(variables, images, train=False).logits

    return str(jax.make_jaxpr(both)(variables, images, jax.random.key(0)))


@functools.cache
def shapes(name):
    network, shape = create_model(name), get_variant(name).input_shape
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(lambda key, x: network.init(key, x, train=False), jax.random.key(0), images)


def test_no_two_names_are_the_same_network():
    by_tree = {}
    for name in list_models():
        leaves = jax.tree_util.tree_leaves_with_path(shapes(name))
        tree = tuple((jax.tree_util.keystr(path), leaf.shape) for path, leaf in leaves)
        by_tree.setdefault((tree, get_variant(name).input_shape), []).append(name)
    for names in by_tree.values():
        if len(names) > 1:
            graphs = {name: graph(name) for name in names}
            assert len(set(graphs.values())) == len(names), f"{names} have the same parameters and computations"
    assert sum(len(names) > 1 for names in by_tree.values()) > 0  # such as resnet50 and resnet50_v1


def test_records_are_all_there():
    assert len(RECORDS) == 187
    assert np.all([record["params"] > 0 and record["macs"] > 0 for record in RECORDS.values()])
