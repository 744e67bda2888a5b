"""No run is ever lost: killed, terminated or moved to other devices, it ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import history
from quick import xla_flags

from cnnjax.train.evaluation import load_state
from cnnjax.train.run_folder import read_config, read_facts
from cnnjax.train.task import make_task

STEPS = 90
# Another number of devices adds in another order; some sixty steps carry that rounding on.
TOLERANCE = 1e-4
# Cadences that share no factor, so that a kill falls between log, evaluation and checkpoint in every order.
SETTINGS = (
    "data.source.kind=synthetic",
    "data.source.train_examples=400",
    "data.source.test_examples=50",
    "data.batch_size=32",
    "eval.batch_size=32",
    "model.args.norm=batch",
    "model.args.dropout=0.3",
    "optimizer.name=adamw",
    "optimizer.weight_decay=0.01",
    "schedule.learning_rate=0.002",
    "train.ema_decay=0.9",
    f"train.duration.steps={STEPS}",
    "log.every.steps=3",
    "eval.every.steps=20",
    "checkpoint.every.steps=7",
)


def start(config: Path, run_dir: Path, cache: Path, *overrides: str, devices: int = 1) -> subprocess.Popen:
    # Only start-up is cached: every process still runs the same program on its own.
    environment = os.environ | {
        "XLA_FLAGS": xla_flags(devices),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    words = [sys.executable, "-m", "cnnjax", "train", str(config), *SETTINGS, *overrides, "--run-dir", str(run_dir)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def interrupt(process: subprocess.Popen, run_dir: Path, at_step: int, number: signal.Signals) -> None:
    """Sends a signal once the history has reached a step, at a random moment after that."""
    while process.poll() is None and last_step(run_dir) < at_step:
        time.sleep(0.002)
    time.sleep(random.random() * 0.05)
    if process.poll() is None:
        process.send_signal(number)


def last_step(run_dir: Path) -> int:
    try:
        lines = (run_dir / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"] if lines else 0
    except (FileNotFoundError, ValueError):  # not written yet, or half a line
        return 0


def final_state(run_dir: Path) -> dict[str, np.ndarray]:
    task = make_task(read_config(run_dir), read_facts(run_dir))
    leaves = jax.tree_util.tree_leaves_with_path(load_state(run_dir, task))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_bit_for_bit(run_dir: Path, reference: Path) -> None:
    expected, found = final_state(reference), final_state(run_dir)
    assert found.keys() == expected.keys()
    assert any("ema" in name for name in expected)
    assert any("opt_state" in name for name in expected)
    different = [name for name in expected if expected[name].tobytes() != found[name].tobytes()]
    assert not different
    assert history(run_dir) == history(reference)
    # The data iterator's position among it.
    assert progress_of(run_dir) == progress_of(reference)


def progress_of(run_dir: Path) -> dict:
    """What goes with the last checkpoint's arrays, but for the time that it took and the seal over that."""
    (path,) = run_dir.glob(f"checkpoints/{STEPS}/progress/metadata")
    contents = json.loads(path.read_text())
    assert contents["progress"].pop("seconds") > 0
    del contents["checksum"]
    return contents


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text("{}\n")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def uninterrupted(config, cache, tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    finish(start(config, run_dir, cache))
    return run_dir


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_steps_changes_nothing(kills, config, cache, uninterrupted, tmp_path):
    seed = int.from_bytes(os.urandom(4))
    print(f"kills drawn with seed {seed}")
    random.seed(seed)
    run_dir = tmp_path / "run"
    killed = 0
    while killed < kills:
        process = start(config, run_dir, cache)
        # Far enough to get somewhere, and never to the end while kills are left.
        reach = min(last_step(run_dir) + random.randint(-5, 2 * STEPS // kills), STEPS - 6)
        interrupt(process, run_dir, max(1, reach), signal.SIGKILL)
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)
        if process.returncode == 0:
            pytest.fail("the run ended before it was killed")
        killed += 1
    finish(start(config, run_dir, cache))
    assert_bit_for_bit(run_dir, uninterrupted)


def test_terminated_saves_says_so_and_continues(config, cache, uninterrupted, tmp_path):
    run_dir = tmp_path / "run"
    process = start(config, run_dir, cache)
    interrupt(process, run_dir, 30, signal.SIGTERM)
    output = finish(process)
    assert "the same command continues" in output
    saved = max(int(folder.name) for folder in (run_dir / "checkpoints").iterdir())
    assert f"stopped and saved at step {saved}" in output
    assert 30 <= saved < STEPS
    assert f"at step {saved} of {STEPS}" in finish(start(config, run_dir, cache))
    assert_bit_for_bit(run_dir, uninterrupted)


def test_continues_on_four_devices(config, cache, tmp_path, cnnjax):
    # Other rounding must stay rounding. Adam would blow it up in gradients that are zero by nature (biases before
    # BatchNorm); ReLU and maxima would turn it into another unit that is on, and a gradient that is not a bit another.
    smooth = (
        "model.args.activation=tanh",
        "model.args.pooling=average",
        "optimizer.name=sgd",
        "optimizer.args.momentum=0.9",
        "optimizer.weight_decay=1e-3",
        "schedule.learning_rate=0.02",
    )
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    words = ("train", config, *SETTINGS, *smooth, "--run-dir")
    cnnjax(*words, whole, "parallel.devices=1").done  # noqa: B018 -- checks
    process = start(config, moved, cache, *smooth)
    interrupt(process, moved, 30, signal.SIGTERM)
    finish(process)
    cnnjax(*words, moved, "parallel.devices=4").done  # noqa: B018 -- checks
    expected, found = final_state(whole), final_state(moved)
    for name in expected:
        scale = max(np.abs(expected[name].astype(np.float64)).max(), 1e-2)
        assert np.abs(found[name].astype(np.float64) - expected[name]).max() / scale < TOLERANCE, name
    for line, other in zip(history(whole), history(moved), strict=True):
        assert line.keys() == other.keys()
        assert abs(line["loss"] - other["loss"]) < TOLERANCE


def test_a_finished_run_is_left_as_it_is(config, cache, uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_bytes(), final_state(uninterrupted)
    output = finish(start(config, uninterrupted, cache))
    assert f"at step {STEPS} of {STEPS}" in output
    assert (uninterrupted / "metrics.jsonl").read_bytes() == before[0]
    assert all(np.array_equal(leaf, before[1][name]) for name, leaf in final_state(uninterrupted).items())
