"""Many configs on many topologies: rows, the page, and what is not compiled again."""

import json

import pytest

from cnnjax.aot import survey as module
from cnnjax.aot.survey import HEADER, cells, describe_collectives, describe_largest, survey
from cnnjax.config_files import load_config
from cnnjax.errors import ConfigError

GIB = 2**30


def config_of(*overrides: str):
    return load_config(
        None,
        ["data.source={kind: folder, path: nowhere}", "data.image_size=32", "train.duration.steps=10", *overrides],
    )


@pytest.fixture
def trials(monkeypatch):
    """Which batches were compiled for which topology; a device of v5e holds 40 images."""
    asked = []

    def plan(config, facts, topology, *, evaluation):
        del facts, evaluation
        devices = {"v5e:2x2": 4, "v5e:4x4": 16}[topology]
        each = config.data.batch_size // devices
        asked.append((topology, each))
        step = {"fits": True, "memory": {"peak": each * 16 * GIB // 41, "arguments": 1, "temporaries": 2}}
        if each > 40:
            step = {"fits": False, "needed": each * 16 * GIB // 41}
        step |= {"collectives": [{"kind": "all-reduce", "count": 3, "bytes": 2**20}], "compile_seconds": 1.0}
        return {
            "batch": config.data.batch_size,
            "devices": devices,
            "batch_a_device": each,
            "memory_bytes": 16 * GIB,
            "macs_an_image": 10**9,
            "state_bytes": 0,
            "train": step,
        }

    monkeypatch.setattr(module, "plan", plan)
    monkeypatch.setattr("cnnjax.aot.plan.plan", plan)
    monkeypatch.setattr("cnnjax.aot.plan.count_devices", lambda topology: {"v5e:2x2": 4, "v5e:4x4": 16}[topology])
    return asked


def test_what_a_folder_has_is_not_compiled_again(trials, tmp_path):
    configs = {"small": config_of("data.batch_size=128"), "other": config_of("data.batch_size=256")}
    topologies = ["v5e:2x2", "v5e:4x4"]
    rows = survey(configs, topologies, 10, multiple=8, folder=tmp_path, say=lambda row: None)
    assert [(row["name"], row["topology"]) for row in rows] == [
        (name, topology) for name in configs for topology in topologies
    ]
    assert [row["largest"]["batch"] // row["devices"] for row in rows] == [40] * 4
    # The limit of the first topology is tried first on the second, and then the next batch.
    second = [each for topology, each in trials if topology == "v5e:4x4"]
    assert second[:3] == [8, 40, 48]
    before = len(trials)
    again = survey(configs, topologies, 10, multiple=8, folder=tmp_path, say=lambda row: None)
    assert len(trials) == before
    assert [cells(row) for row in again] == [cells(json.loads(json.dumps(row))) for row in rows]
    survey({"small": config_of("data.batch_size=64")}, ["v5e:2x2"], 10, folder=tmp_path, say=lambda row: None)
    assert len(trials) == before + 1
    page = (tmp_path / "README.md").read_text()
    assert page.count("| small |") == 3
    assert "40 (15.61); 48 needs 18.73" in page


def test_cells_are_as_many_as_the_header(trials):
    (row,) = survey({"a": config_of("data.batch_size=400")}, ["v5e:2x2"], 10, say=lambda row: None)
    assert len(cells(row)) == len(HEADER)
    assert cells(row)[3] == "needs 39.02"


def test_a_fault_names_its_arm():
    with pytest.raises(ConfigError, match=r"wide: cpu:8: data.batch_size: 100 is not divisible"):
        survey({"wide": config_of("data.batch_size=100")}, ["cpu:8"], 10, say=lambda row: None)


def test_words():
    assert describe_collectives([]) == "0"
    assert describe_collectives(None) == "-"
    assert describe_largest({"devices": 4}) == "-"
    assert describe_largest({"devices": 4, "largest": {}}) == "no limit found"
    none = {"batch": None, "next_batch": 32, "tried": {"32": 20 * GIB}}
    assert describe_largest({"devices": 4, "largest": none}) == "none; 8 needs 20.00"
