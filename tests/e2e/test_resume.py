"""No run is ever lost: killed, terminated or moved to other devices, it ends as if nothing had happened."""

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
from commands import history
from interruptions import SETTINGS, STEPS, assert_bit_for_bit, final_state, finish, interrupt, last_step, start

KILLS = 2  # many more, and of other kinds: see test_soak
# Another number of devices adds in another order; some sixty steps carry that rounding on.
TOLERANCE = 1e-4


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


def test_killed_at_random_steps_changes_nothing(config, cache, uninterrupted, tmp_path):
    seed = int.from_bytes(os.urandom(4))
    print(f"kills drawn with seed {seed}")
    random.seed(seed)
    run_dir = tmp_path / "run"
    for _ in range(KILLS):
        process = start(config, run_dir, cache)
        # Far enough to get somewhere, and never to the end while kills are left.
        reach = min(last_step(run_dir) + random.randint(-5, 2 * STEPS // KILLS), STEPS - 6)
        interrupt(process, run_dir, max(1, reach), signal.SIGKILL)
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)
        if process.returncode == 0:
            pytest.fail("the run ended before it was killed")
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
