"""A job of two processes on loopback, through the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from quick import xla_flags

from cnnjax.train.run_folder import read_history

SETTINGS = (
    "data.source.kind=synthetic",
    "data.source.train_examples=200",
    "data.source.test_examples=50",
    "data.batch_size=32",
    "eval.batch_size=32",
    "model.args={norm: batch, activation: tanh, pooling: average}",  # smooth: no kink to amplify rounding
    "optimizer.args.momentum=0.9",
    "schedule.learning_rate=0.02",
    "train.duration.steps=60",
    "log.every.steps=5",
    "eval.every.steps=20",
    "checkpoint.every.steps=10",
)


def start(config: Path, run_dir: Path, *words: str, devices: int = 2) -> subprocess.Popen:
    environment = os.environ | {"XLA_FLAGS": xla_flags(devices)}
    command = [sys.executable, "-m", "cnnjax", "train", str(config), *SETTINGS, "--run-dir", str(run_dir), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_two(config: Path, run_dir: Path, *words: str, second: tuple[str, ...] = ()) -> list[subprocess.Popen]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{listener.getsockname()[1]}"
    job = ("--coordinator", coordinator, "--processes", "2", "--process-id")
    return [start(config, run_dir, *words, *(second if index else ()), *job, str(index)) for index in range(2)]


def finish(*processes: subprocess.Popen) -> list[str]:
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n---\n".join(outputs)
    return outputs


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text("{}\n")
    return path


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    finish(start(config, run_dir, devices=1))
    return run_dir


def assert_same_history(run_dir: Path, reference: Path) -> None:
    found, expected = read_history(run_dir), read_history(reference)
    assert [(line["kind"], line["step"]) for line in found] == [(line["kind"], line["step"]) for line in expected]
    for line, other in zip(found, expected, strict=True):
        assert abs(line["loss"] - other["loss"]) < 1e-4
        assert line["examples"] == other["examples"]


def test_two_processes_end_as_one_does(config, alone, tmp_path):
    run_dir = tmp_path / "run"
    finish(*start_two(config, run_dir))
    assert_same_history(run_dir, alone)
    assert json.loads((run_dir / "environment.json").read_text())[-1]["processes"] == 2
    # One process alone evaluates it: it does not wait for those that trained it.
    words = [sys.executable, "-m", "cnnjax", "eval", str(run_dir), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout.splitlines()[-1])["accuracy"] == read_history(run_dir)[-1]["accuracy"], done.stderr


@pytest.mark.slow
def test_one_is_terminated_and_both_save_at_the_same_step(config, alone, tmp_path):
    run_dir = tmp_path / "run"
    processes = start_two(config, run_dir, "train.duration.steps=4000")
    while len(read_history(run_dir)) < 3 and processes[0].poll() is None:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    outputs = finish(*processes)
    saved = max(int(folder.name) for folder in (run_dir / "checkpoints").iterdir())
    assert saved < 4000
    assert all(f"stopped and saved at step {saved}" in output for output in outputs)


@pytest.mark.slow
def test_what_two_began_one_ends(config, alone, tmp_path):
    run_dir = tmp_path / "run"
    processes = start_two(config, run_dir, "parallel.executor=pmap")
    while len(read_history(run_dir)) < 6 and processes[0].poll() is None:
        time.sleep(0.01)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(config, run_dir, devices=1))
    assert_same_history(run_dir, alone)


def test_a_refusal_reaches_every_process(config, tmp_path):
    (tmp_path / "thesis.txt").write_text("not a run")
    for process in start_two(config, tmp_path):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 2, output
        assert "error:" in output
        assert "Traceback" not in output


@pytest.mark.slow
def test_a_host_without_the_data_ends_all(config, tmp_path):
    second = ("data.source={kind: idx, path: /nowhere}",)
    first, other = start_two(config, tmp_path / "run", second=second)
    for process, error in ((first, "error: process 1 of this job cannot begin; see what"), (other, "/nowhere")):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 2, output
        assert error in output
        assert "Traceback" not in output
