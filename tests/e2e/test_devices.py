"""The same run on one device or eight, under jit or pmap, and moved between them."""

import os
import subprocess
import sys

import pytest
from commands import history
from quick import xla_flags


def assert_same_run(run_dir, reference) -> None:
    found, expected = history(run_dir), history(reference)
    assert [(line["kind"], line["step"]) for line in found] == [(line["kind"], line["step"]) for line in expected]
    for line, other in zip(found, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=2e-6)
        assert line["accuracy"] == other["accuracy"]
        assert line["examples"] == other["examples"]


@pytest.mark.parametrize(
    ("executor", "devices"), [("jit", 8), ("pmap", 8), pytest.param("pmap", 1, marks=pytest.mark.slow)]
)
def test_eight_devices_end_as_one_does(executor, devices, small, trained, tmp_path, cnnjax):
    settings = (f"parallel.executor={executor}", f"parallel.devices={devices}")
    cnnjax("train", small, "--run-dir", tmp_path, *settings).done  # noqa: B018 -- checks
    assert_same_run(tmp_path, trained)


def test_a_run_moves_from_jit_to_pmap_and_back(small, trained, tmp_path, cnnjax):
    command = ("train", small, "--run-dir", tmp_path)
    cnnjax(*command, "train.duration.steps=2").done  # noqa: B018 -- checks
    moved = cnnjax(*command, "train.duration.steps=4", "parallel.executor=pmap", "parallel.devices=4").done
    assert 'parallel.executor: "jit" -> "pmap", parallel.devices: 1 -> 4' in moved.out
    assert f"continuing {tmp_path} at step 2 of 4" in moved.out
    assert cnnjax("eval", tmp_path, "--json").done.json["step"] == 4
    assert f"continuing {tmp_path} at step 4 of 6" in cnnjax(*command).done.out
    assert_same_run(tmp_path, trained)


def test_a_run_in_parts_moves_to_fewer_devices_and_to_more(small, trained, tmp_path, cnnjax):
    """Its state is cut in eight, then whole on two, then cut in sixteen."""
    command = ("train", small, "--run-dir", tmp_path, "parallel.shard_from=100")
    cnnjax(*command, "train.duration.steps=2", "parallel.devices=8", "parallel.shard_state=all").done  # noqa: B018
    cnnjax(*command, "train.duration.steps=4", "parallel.devices=2").done  # noqa: B018 -- checks
    words = [*map(str, command), "parallel.devices=16", "parallel.shard_state=optimizer"]
    last = subprocess.run(
        [sys.executable, "-m", "cnnjax", *words],
        env=os.environ | {"XLA_FLAGS": xla_flags(16)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert f"continuing {tmp_path} at step 4 of 6" in last.stdout, last.stderr
    assert_same_run(tmp_path, trained)
    assert cnnjax("eval", tmp_path, "--json").done.json["accuracy"] == history(trained)[-1]["accuracy"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("parallel.devices=16",), "parallel.devices: 16 asked for, and 8 cpu devices are there"),
        (
            ("parallel.devices=null", "data.batch_size=12"),
            "data.batch_size: 12 is not divisible by devices times optimizer.accumulate = 8; 16 would be",
        ),
        (
            ("parallel.devices=8", "eval.batch_size=12"),
            "eval.batch_size: 12 is not divisible by devices = 8; 16 would be",
        ),
        (
            ("parallel.devices=8", "optimizer.accumulate=4"),
            "data.batch_size: 16 is not divisible by devices times optimizer.accumulate = 32; 32 would be",
        ),
    ],
)
def test_what_cannot_be_spread_is_refused_before_there_is_a_folder(overrides, sentence, small, tmp_path, cnnjax):
    assert cnnjax("train", small, "--run-dir", tmp_path / "run", *overrides).error == sentence
    assert not (tmp_path / "run").exists()


def test_a_rate_for_another_batch_is_scaled_told_and_recorded(small, tmp_path, cnnjax):
    """0.05 for a batch of 8 is 0.1 for the config's 16, on whatever number of devices."""
    words = ("schedule.reference_batch=8", "parallel.devices=2", "train.duration.steps=2")
    said = cnnjax("train", small, "--run-dir", tmp_path / "run", *words).done.out
    assert "learning rate 0.1 for a batch of 16: 0.05 for one of 8, scaled with it\n" in said
    rates = [line["learning_rate"] for line in history(tmp_path / "run") if line["kind"] == "train"]
    assert rates == pytest.approx([0.1, 0.1])
