"""Runs as processes of their own that signals interrupt, and what such a run has in the end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import jax
import numpy as np
from commands import history
from quick import xla_flags

from cnnjax.train.evaluation import load_state
from cnnjax.train.run_folder import read_config, read_facts
from cnnjax.train.task import make_task

STEPS = 90
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


def start(
    config: Path,
    run_dir: Path,
    cache: Path,
    *overrides: str,
    devices: int = 1,
    output: IO[str] | int = subprocess.PIPE,
) -> subprocess.Popen:
    """Begins to train a run, or to go on with it."""
    # Only start-up is cached: every process still runs the same program on its own.
    environment = os.environ | {
        "XLA_FLAGS": xla_flags(devices),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    words = [sys.executable, "-m", "cnnjax", "train", str(config), *SETTINGS, *overrides, "--run-dir", str(run_dir)]
    return subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    """What it says until its end, which must be a good one."""
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
    """That of the last whole line of the history; 0 where there is none."""
    return int(last_record(run_dir).get("step", 0))


def last_record(run_dir: Path) -> dict:
    """The last line of the history; empty where there is none, or half a one."""
    try:
        with open(run_dir / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))  # asked for every few milliseconds
            lines = file.read().splitlines()
        return json.loads(lines[-1]) if lines else {}
    except (FileNotFoundError, ValueError):  # not written yet, or half a line
        return {}


def final_state(run_dir: Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint."""
    task = make_task(read_config(run_dir), read_facts(run_dir))
    leaves = jax.tree_util.tree_leaves_with_path(load_state(run_dir, task))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_bit_for_bit(run_dir: Path, reference: Path, steps: int = STEPS) -> None:
    """Both have ended after so many steps with the same arrays, history and place in the data."""
    expected, found = final_state(reference), final_state(run_dir)
    assert found.keys() == expected.keys()
    assert any("ema" in name for name in expected)
    assert any("opt_state" in name for name in expected)
    different = [name for name in expected if expected[name].tobytes() != found[name].tobytes()]
    assert not different
    assert history(run_dir) == history(reference)
    # The data iterator's position among it.
    assert progress_of(run_dir, steps) == progress_of(reference, steps)


def progress_of(run_dir: Path, steps: int = STEPS) -> dict:
    """What goes with the last checkpoint's arrays, but for the time that it took and the seal over that."""
    (path,) = run_dir.glob(f"checkpoints/{steps}/progress/metadata")
    contents = json.loads(path.read_text())
    assert contents["progress"].pop("seconds") > 0
    del contents["checksum"]
    return contents
