"""Which folder a run may have, who may have it at a time, and which config may continue it."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import final_state, history, snapshot

from cnnjax.config_files import load_config


def test_a_file_is_no_folder(small, tmp_path, cnnjax):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert cnnjax("train", small, "--run-dir", file).error == (
        f"{file} is a file, not a run folder; choose another --run-dir"
    )
    below = file / "run"
    assert cnnjax("train", small, "--run-dir", below).error == (
        f"{below} cannot be written: Not a directory; choose another --run-dir"
    )
    assert cnnjax("eval", file).error == f"{file} is a file, not a run folder"
    assert cnnjax("eval", tmp_path / "none").error == f"there is no run folder {tmp_path / 'none'}"
    assert file.read_text() == "mine"


def test_somebody_elses_folder_is_left_alone(small, tmp_path, cnnjax):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "is not empty and holds no run (there is thesis.txt" in cnnjax("train", small, "--run-dir", tmp_path).error
    assert "is not a run folder: it has no config.yaml" in cnnjax("eval", tmp_path).error
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("damage", ["", "{[\x01", None], ids=["empty", "garbage", "missing"])
@pytest.mark.parametrize("name", ["config.yaml", "data.json", "environment.json"])
def test_a_damaged_file_of_the_run_is_named_and_nothing_else_is_touched(name, damage, copied, small, cnnjax):
    file = copied / name
    file.unlink()
    if damage is not None:
        file.write_text(damage)
    before = snapshot(copied)
    outcome = cnnjax("train", small, "--run-dir", copied)
    if name == "environment.json" and damage is None:  # only a log, made anew
        assert outcome.done
        return
    assert str(copied) in outcome.error
    # An empty config file is that of the defaults.
    assert (name if (name, damage) != ("config.yaml", "") else "another config") in outcome.error
    after = snapshot(copied)
    for path in before.keys() - {".cnnjax.lock"}:
        assert after[path] == before[path]


def test_force_writes_lost_facts_of_the_data_anew(copied, trained, small, cnnjax):
    (copied / "data.json").unlink()
    assert "with --force" in cnnjax("train", small, "--run-dir", copied).error
    cnnjax("train", small, "--run-dir", copied, "--force").done  # noqa: B018 -- checks
    assert (copied / "data.json").read_bytes() == (trained / "data.json").read_bytes()


@pytest.mark.parametrize("keep", [0, 0.5], ids=["empty", "cut"])
def test_a_finished_run_without_its_last_evaluation_is_evaluated_again(keep, copied, trained, small, cnnjax):
    file = copied / "metrics.jsonl"
    file.write_text(file.read_text()[: int(file.stat().st_size * keep)])
    found = cnnjax("train", small, "--run-dir", copied, "--json").done.json
    expected = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert (found["step"], found["accuracy"], found["loss"]) == (6, expected["accuracy"], expected["loss"])


@pytest.mark.parametrize("kept", [None, "", '{"step": 4, "finished": false}'], ids=["missing", "empty", "of a stop"])
def test_a_run_killed_before_its_last_result_gets_one(kept, copied, trained, small, cnnjax):
    file = copied / "result.json"
    file.unlink()
    if kept is not None:
        file.write_text(kept)
    assert cnnjax("train", small, "--run-dir", copied).done
    made, first = json.loads(file.read_text()), json.loads((trained / "result.json").read_text())
    assert (made["step"], made["finished"], made["accuracy"]) == (6, True, first["accuracy"])


def test_a_finished_run_keeps_its_result(copied, small, cnnjax):
    before = (copied / "result.json").read_bytes()
    assert cnnjax("train", small, "--run-dir", copied).done
    assert (copied / "result.json").read_bytes() == before


def test_a_finished_run_says_so_and_returns_the_same_numbers(small, tmp_path, cnnjax):
    command = ("train", small, "--run-dir", tmp_path / "run", "--json")
    first = cnnjax(*command).done.json
    state, records = final_state(tmp_path / "run"), (tmp_path / "run" / "metrics.jsonl").read_bytes()
    second = cnnjax(*command).done
    assert {**second.json, "seconds": 0} == {**first, "seconds": 0}  # of this process alone
    assert f"{tmp_path / 'run'} is finished, at step 6 of 6" in second.err
    assert final_state(tmp_path / "run") == state
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == records


def test_another_config_is_refused_with_what_differs(copied, small, cnnjax):
    before = snapshot(copied)
    error = cnnjax("train", small, "--run-dir", copied, "seed=3", "optimizer.name=adam", "log.tensorboard=false").error
    assert f'{copied} holds a run of another config (seed: 0 -> 3, optimizer.name: "sgd" -> "adam")' in error
    assert "--force" in error
    after = snapshot(copied)
    for path in before.keys() - {".cnnjax.lock"}:
        assert after[path] == before[path]


def test_more_steps_are_welcome_and_fewer_are_not(copied, small, cnnjax):
    more = ("train.duration.epochs=2", "eval.every.steps=4", "checkpoint.keep_last=1", "name=other", "data.prefetch=0")
    outcome = cnnjax("train", small, "--run-dir", copied, *more, "--json").done
    assert "continuing with a changed config: " in outcome.err
    assert "train.duration.steps: 6 -> null, train.duration.epochs: null -> 2.0" in outcome.err
    assert (outcome.json["step"], outcome.json["finished"]) == (8, True)
    error = cnnjax("train", small, "--run-dir", copied, *more[1:]).error
    assert error.startswith(f"{copied} is at step 8 already, and train.duration asks for 6")
    assert load_config(copied / "config.yaml").train.duration.epochs == 2  # what was refused left no trace


def test_force_continues_with_what_fits_the_weights(copied, small, cnnjax):
    command = ("train", small, "--run-dir", copied, "train.duration.steps=8", "schedule.learning_rate=0.01")
    assert "schedule.learning_rate: 0.05 -> 0.01" in cnnjax(*command).error
    outcome = cnnjax(*command, "--force").done
    assert "schedule.learning_rate: 0.05 -> 0.01" in outcome.out
    assert f"continuing {copied} at step 6 of 8" in outcome.out
    assert [line["learning_rate"] for line in history(copied) if line["kind"] == "train"] == [0.05] * 6 + [0.01] * 2
    assert cnnjax(*command).done  # the new config is the run's now


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.args.norm=batch", "it lacks .params['c1_norm']"),
        ("data.image_size=28", "is 5x5x16x120, expected 4x4x16x120"),
        ("optimizer.args.momentum=0.9", "it lacks .opt_state"),
    ],
)
def test_even_force_cannot_put_weights_into_another_network(override, reason, copied, trained, small, cnnjax):
    error = cnnjax("train", small, "--run-dir", copied, override, "--force").error
    assert "checkpoint 6 cannot be read (it is of another network or optimizer: " in error
    assert reason in error
    assert cnnjax("train", small, "--run-dir", copied).done  # as it was
    assert final_state(copied) == final_state(trained)
    assert history(copied) == history(trained)


def test_one_process_at_a_time(small, environment, tmp_path, cnnjax):
    run_dir = tmp_path / "run"
    words = (
        "train",
        str(small),
        "--run-dir",
        str(run_dir),
        "train.duration.steps=1000000",
        "checkpoint.every.steps=500",
    )
    first = subprocess.Popen(
        [sys.executable, "-m", "cnnjax", *words, "train.duration.steps=1000000"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (run_dir / "metrics.jsonl").exists():
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.05)
        error = cnnjax("train", small, "--run-dir", run_dir).error
        assert error.startswith(f"run folder {run_dir} is in use by process {first.pid} on ")
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=60) == 0
    finally:
        first.kill()
        first.communicate()
    saved = max(int(path.name) for path in (run_dir / "checkpoints").iterdir())
    steps = saved + 1
    command = (
        *words[:4],
        f"train.duration.steps={steps}",
        "checkpoint.every.steps=500",
        "log.every.steps=50",
        "--json",
    )
    assert cnnjax(*command).done.json["step"] == steps


def test_the_default_folder_is_named_after_config_and_hash(small, tmp_path, monkeypatch, cnnjax):
    monkeypatch.chdir(tmp_path)
    name = cnnjax("config", small, "train.duration.steps=1", "--json").done.json["hash"]
    result = cnnjax("train", small, "train.duration.steps=1", "--json").done.json
    assert result["run_dir"] == f"runs/small-{name}"
    assert shutil.os.listdir("runs") == [Path(result["run_dir"]).name]


def test_other_data_than_the_runs_is_not_evaluated(copied, cnnjax):
    facts = json.loads((copied / "data.json").read_text())
    (copied / "data.json").write_text(json.dumps({**facts, "test_examples": 31}))
    assert cnnjax("eval", copied).error.startswith(f"the data is not what {copied} was trained on (see its data.json)")
