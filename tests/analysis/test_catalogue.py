"""The lines of the list of networks, and the table of counts that makes it quick; `test_records` counts again."""

import json
from pathlib import Path

import pytest

from cnnjax.analysis import catalogue, counts
from cnnjax.analysis.catalogue import describe_model, describe_peer
from cnnjax.models import ALIASES, create_model, get_variant, list_models, list_peers


def test_the_table_has_every_variant_and_no_other():
    assert list(counts.COUNTS) == list_models(), "run: python -m cnnjax.analysis.catalogue"


def test_the_table_is_written_as_it_stands(monkeypatch):
    monkeypatch.setattr(catalogue, "count_named", lambda name, known: counts.COUNTS[name])
    assert catalogue.table_of_counts() == Path(counts.__file__).read_text(encoding="utf-8")


def test_a_variant_outside_the_table_is_counted(monkeypatch):
    monkeypatch.setattr(counts, "COUNTS", {})
    assert describe_model("lenet5_modern") == {
        "name": "lenet5_modern",
        "aliases": [],
        "params": 61_706,
        "batch_stats": 0,
        "macs": 416_520,
        "input": [32, 32, 1],
        "paper": get_variant("lenet5_modern").paper,
    }


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_are_told_with_their_network(alias):
    assert alias in describe_model(ALIASES[alias])["aliases"]


def test_another_librarys_network_is_a_variant_with_fields():
    row = describe_peer("keras/ResNet50")
    assert (row["variant"], row["input"]) == ("resnet50_v1", [224, 224, 3])
    assert row["fields"]["conv_bias"] is True


@pytest.mark.parametrize("name", list_peers())
def test_every_peer_is_the_variant_it_is_said_to_be(name):
    row = describe_peer(name)
    assert create_model(row["variant"], **row["fields"]) == create_model(name)
    assert json.loads(json.dumps(row))["name"] == name
