"""A study whose runs are each trained by two processes of one job, and evaluation by two."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from quick import xla_flags

STUDY = """
question: Which rate?
config:
  model: {name: lenet5_modern, args: {norm: batch, activation: tanh, pooling: average}}
  data: {source: {kind: synthetic, train_examples: 96, test_examples: 50}, batch_size: 16}
  eval: {batch_size: 16}
  train: {duration: {steps: 6}}
  parallel: {shard_state: all, shard_from: 100}
axes:
  schedule.learning_rate: [0.02, 0.05]
seeds: 1
diagnostics: [gradient_norm, dead_units]
"""


def start(words: tuple[str, ...], devices: int, variables: dict[str, str]) -> subprocess.Popen:
    environment = os.environ | {"XLA_FLAGS": xla_flags(devices)} | variables
    command = [sys.executable, "-m", "cnnjax", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_together(*words: str) -> list[str]:
    """What each of two processes, which find each other as Open MPI's do, prints."""
    # JAX makes the port of the job's number.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        job = listener.getsockname()[1] % 4096
    variables = {"OMPI_MCA_orte_hnp_uri": f"{4096 * job}.0;tcp://127.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "2"}
    both = [
        start(words, 2, variables | {"OMPI_COMM_WORLD_RANK": str(index), "OMPI_COMM_WORLD_LOCAL_RANK": str(index)})
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    return [out for out, _ in outputs]


def measures_in(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/measures.json"))]


def flatten(tree: dict, path: str = "") -> dict[str, float]:
    found = {}
    for name, value in tree.items():
        found |= flatten(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


@pytest.mark.slow
def test_two_processes_answer_as_one_does(tmp_path):
    file = tmp_path / "rate.yaml"
    file.write_text(STUDY)
    alone = start(("study", "run", str(file), "--runs", str(tmp_path / "alone")), 1, {})
    _, errors = alone.communicate(timeout=300)
    assert alone.returncode == 0, errors
    first, second = run_together("study", "run", str(file), "--runs", str(tmp_path / "together"))
    assert "[2/2]" in first
    assert "[2/2]" not in second
    found, expected = measures_in(tmp_path / "together"), measures_in(tmp_path / "alone")
    assert len(found) == len(expected) == 2
    for ours, theirs in zip(map(flatten, found), map(flatten, expected), strict=True):
        assert set(ours) == set(theirs)
        for name in set(ours) - {"seconds"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name
    again, _ = run_together("study", "run", str(file), "--runs", str(tmp_path / "together"))
    assert "0 to do" in again
    (run, _) = sorted((tmp_path / "together").iterdir())
    both = [json.loads(out.splitlines()[-1]) for out in run_together("eval", str(run), "--json")]
    assert both[0]["accuracy"] == both[1]["accuracy"] == json.loads((run / "result.json").read_text())["accuracy"]
