"""Every network has exactly the parameters, batch statistics and multiply-adds of its record.

`records.json` is a table made by building the other libraries' networks, and by arithmetic from the papers.
"""

import dataclasses
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from counted import counts_of, summary_of_name
from narrow import ALL, FIRST, narrow

from cnnjax.analysis.count import Counts, count
from cnnjax.analysis.counts import COUNTS
from cnnjax.analysis.summary import Summary, summarize
from cnnjax.models import ALIASES, FAMILIES, create_model, get_variant, list_models, list_peers
from cnnjax.nn.network import Network

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


def network_of(record_id) -> Network:
    record = RECORDS[record_id]
    return create_model(named(record), num_classes=record["classes"], **FIELDS.get(record_id, {}))


@pytest.mark.parametrize("record_id", RECORDS)
def test_counts(record_id):
    record, network = RECORDS[record_id], network_of(record_id)
    found = dataclasses.asdict(counts_of(network, tuple(record["input"])))
    if record_id in WITH_AUXILIARIES:
        found["macs"] = sum(layer.macs for layer in summarize(network, tuple(record["input"])).layers)
    assert found == {key: record[key] for key in found}


def test_the_table_of_counts_is_right():
    known = [each for each in RECORDS if each not in WITH_AUXILIARIES]
    recorded = {(network_of(each), tuple(RECORDS[each]["input"])): RECORDS[each] for each in known}
    for name in list_models():
        network, shape = create_model(name), get_variant(name).input_shape
        record = recorded.get((network, shape)) or dataclasses.asdict(counts_of(network, shape))
        assert COUNTS[name] == (record["params"], record["batch_stats"], record["macs"]), name


def totals(summary: Summary) -> Counts:
    return Counts(summary.params, summary.batch_stats, summary.macs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_summary_has_the_same_totals(family):
    network, shape = narrow(FAMILIES[family][0])
    assert totals(summarize(network, shape)) == count(network, shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models() if ALL else FIRST)
def test_a_summary_has_the_same_totals_at_full_size(name):
    assert totals(summary_of_name(name)) == counts_of(create_model(name), get_variant(name).input_shape)


def test_every_record_is_registered():
    assert {record["name"] for record in RECORDS.values()} <= {*list_models(), *ALIASES}
    assert {record_id for record_id in RECORDS if not record_id.startswith("paper/")} <= set(list_peers())


def test_aliases_are_other_names_of_networks():
    for alias, name in ALIASES.items():
        assert alias not in list_models()
        assert create_model(alias) == create_model(name)


def graph(name, *, train) -> str:
    """What the network computes, as text."""
    network, shape = create_model(name), get_variant(name).input_shape
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(lambda key, x: network.init(key, x, train=False), jax.random.key(0), images)

    def run(variables, images, key):
        mutable = ["batch_stats"] if train else False
        return network.apply(variables, images, train=train, mutable=mutable, rngs={"dropout": key})

    return str(jax.make_jaxpr(run)(variables, images, jax.random.key(0)))


def test_no_two_names_are_the_same_network():
    by_counts = {}
    for name in list_models():
        by_counts.setdefault((get_variant(name).input_shape, COUNTS[name]), []).append(name)
    for names in by_counts.values():
        for one, other in itertools.combinations(names, 2):
            same = graph(one, train=False) == graph(other, train=False)
            assert not same or graph(one, train=True) != graph(other, train=True), f"{one} and {other} are the same"


def test_a_network_under_two_names_would_be_noticed():
    for train in (False, True):
        assert graph("vgg_a", train=train) == graph("vgg11", train=train)


def test_records_are_all_there():
    assert len(RECORDS) == 187
    assert all(record["params"] > 0 and record["macs"] > 0 for record in RECORDS.values())
