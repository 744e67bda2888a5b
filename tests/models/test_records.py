"""Every network has exactly the parameters, batch statistics and multiply-adds of its record.

`records.json` is a table made by building the other libraries' networks, and by arithmetic from the papers.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from counted import summary_of, summary_of_name

from cnnjax.analysis.counts import COUNTS
from cnnjax.models import ALIASES, create_model, get_variant, list_models, list_peers

RECORDS = {record["id"]: record for record in json.loads(Path(__file__).with_name("records.json").read_text())}
# Records that count a network of ours with other fields than its own.
FIELDS = {
    "paper/googlenet": {"auxiliary_classifiers": 0},
    "paper/inception_v2+conv_bias": {"conv_bias": True},
    "paper/inception_resnet_v1+face_512": {"stage_sizes": (5, 10, 6), "last_module": "linear", "bottleneck": 512},
}
# Records whose multiply-adds include those of the auxiliary classifiers, which only training computes.
WITH_AUXILIARIES = ("paper/googlenet+aux",)


def named(record) -> str:
    """What `create_model` calls the network of a record."""
    return record["name"] if record["id"].startswith("paper/") else record["id"]


@pytest.mark.parametrize("record_id", RECORDS)
def test_counts(record_id):
    record = RECORDS[record_id]
    network = create_model(named(record), num_classes=record["classes"], **FIELDS.get(record_id, {}))
    summary = summary_of(network, tuple(record["input"]))
    macs = sum(layer.macs for layer in summary.layers) if record_id in WITH_AUXILIARIES else summary.macs
    found = {"params": summary.params, "batch_stats": summary.batch_stats, "macs": macs}
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
    variables = jax.eval_shape(lambda key, x: network.init(key, x, train=False), jax.random.key(0), images)

    def both(variables, images, key):
        trained = network.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        return trained, network.apply(variables, images, train=False).logits

    return str(jax.make_jaxpr(both)(variables, images, jax.random.key(0)))


def test_no_two_names_are_the_same_network():
    # Networks that cost the same are looked at layer by layer, and those with the same layers at every operation.
    by_counts, by_layers = {}, {}
    for name in list_models():
        by_counts.setdefault((get_variant(name).input_shape, COUNTS[name]), []).append(name)
    for names in by_counts.values():
        for name in names if len(names) > 1 else ():
            by_layers.setdefault((get_variant(name).input_shape, summary_of_name(name).layers), []).append(name)
    for names in by_layers.values():
        graphs = {name: graph(name) for name in names if len(names) > 1}
        assert len(set(graphs.values())) == len(graphs), f"{names} have the same parameters and computations"


def test_a_network_under_two_names_would_be_noticed():
    assert graph("vgg_a") == graph("vgg11")
    assert summary_of_name("vgg_a").layers == summary_of_name("vgg11").layers


def test_records_are_all_there():
    assert len(RECORDS) == 187
    assert all(record["params"] > 0 and record["macs"] > 0 for record in RECORDS.values())
