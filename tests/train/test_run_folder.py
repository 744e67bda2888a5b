"""A run's folder: who may write in it, to which config it belongs, and what it records."""

import fcntl
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cnnjax.config import Config
from cnnjax.config_files import config_hash, load_config
from cnnjax.errors import RunError
from cnnjax.train.run_folder import (
    CONFIG,
    DATA,
    ENVIRONMENT,
    HISTORY,
    RunFolder,
    default_run_dir,
    describe_changes,
    in_use,
    read_config,
    read_facts,
    read_history,
    write_whole,
)
from cnnjax.train.task import DataFacts

CONFIGURED = load_config(None, ["name=lenet", "seed=3"])
FACTS = DataFacts(("zero", "one"), (32, 32, 1), 100, 20)


def start(path: Path, config: Config = CONFIGURED, facts: DataFacts = FACTS, force: bool = False):
    """Opens the folder, makes the config its own as a run does that goes on, and closes; returns the changes."""
    folder, changes = RunFolder.open(path, config, facts, force=force)
    with folder:
        folder.adopt(config, facts)
    return changes


def contents(path: Path) -> dict[str, bytes]:
    """Every file below the folder, but for the lock, which stays."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.name != ".cnnjax.lock"}


def refusal(path: Path, **options) -> str:
    with pytest.raises(RunError) as caught:
        start(path, **options)
    return str(caught.value)


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run that has begun."""
    start(tmp_path / "run")
    return tmp_path / "run"


def record(step: int, **more) -> dict:
    return {"kind": "train", "step": step, "epoch": step / 10, "loss": 1.0, "accuracy": 0.5, **more}


def test_the_default_folder_names_run_and_meaning():
    assert default_run_dir(CONFIGURED) == Path("runs") / f"lenet-{config_hash(CONFIGURED)}"


def test_a_new_folder_holds_all_that_is_needed_to_go_on(tmp_path):
    path = tmp_path / "deep" / "run"
    assert start(path) == {}
    assert read_config(path) == CONFIGURED
    assert read_facts(path) == FACTS
    assert read_history(path) == []
    assert {file.name for file in path.iterdir()} == {".cnnjax.lock", CONFIG, DATA, ENVIRONMENT}


# The lock


def test_a_folder_in_use_is_refused_and_left_alone(run):
    with RunFolder.open(run, CONFIGURED, FACTS)[0]:
        before = contents(run)
        sentence = refusal(run, force=True)
        assert sentence.startswith(f"run folder {run} is in use by process {os.getpid()} on ")
        assert sentence.endswith("; wait for it or choose another --run-dir")
        assert contents(run) == before
    assert start(run) == {}


def test_whoever_only_asked_whether_it_is_in_use_stops_no_start(run, monkeypatch):
    with open(run / ".cnnjax.lock", "rb") as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)
        monkeypatch.setattr("time.sleep", lambda seconds: fcntl.flock(probe, fcntl.LOCK_UN) if seconds else None)
        assert start(run) == {}
    assert not in_use(run)


def test_another_process_is_refused_too(run):
    code = (
        "import sys; from pathlib import Path; from cnnjax.train.run_folder import RunFolder; "
        "from cnnjax.train.task import DataFacts; from cnnjax.config_files import load_config; "
        "RunFolder.open(Path(sys.argv[1]), load_config(None, ['name=lenet', 'seed=3']), "
        "DataFacts(('zero', 'one'), (32, 32, 1), 100, 20))"
    )

    def other_process() -> str:
        command = [sys.executable, "-c", code, str(run)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300).stderr

    with RunFolder.open(run, CONFIGURED, FACTS)[0]:
        assert f"is in use by process {os.getpid()}" in other_process()
    # It ended without closing, as if killed: the lock goes with the process.
    assert other_process() == ""
    assert start(run) == {}


@pytest.mark.parametrize("failure", [{"config": Config(seed=4)}, {"facts": replace(FACTS, test_examples=1)}])
def test_a_refusal_gives_the_lock_back(run, failure):
    refusal(run, **failure)
    assert start(run) == {}


# Folders of others


@pytest.mark.parametrize("name", ["notes.txt", "checkpoints/0/data", "metrics.jsonl"])
def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    sentence = refusal(tmp_path, force=True)
    assert sentence == (
        f"{tmp_path} is not empty and holds no run (there is {name.split('/')[0]}, but no config.yaml); "
        "choose another --run-dir"
    )
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_a_path_that_can_be_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert refusal(tmp_path / "file") == f"{tmp_path / 'file'} is a file, not a run folder; choose another --run-dir"
    assert "Not a directory" in refusal(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_start_that_was_cut_off_is_taken_up(run):
    (run / CONFIG).unlink()
    (run / ENVIRONMENT).unlink()
    assert start(run) == {}
    assert read_config(run) == CONFIGURED


# Another config or other data


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed=4", "seed: 3 -> 4"),
        ("data.batch_size=64", "data.batch_size: 128 -> 64"),
        ("model.args.width=2", "model.args.width: null -> 2"),
        ("schedule.learning_rate=0.2", "schedule.learning_rate: 0.1 -> 0.2"),
        ("data.source.test_fraction=0.5", "data.source.test_fraction: 0.2 -> 0.5"),
    ],
)
def test_a_change_of_meaning_is_refused_unless_forced(run, override, told):
    changed = load_config(None, ["name=lenet", "seed=3", override])
    before = contents(run)
    sentence = refusal(run, config=changed)
    assert f"holds a run of another config ({told}); choose another --run-dir, undo the change" in sentence
    assert contents(run) == before
    assert describe_changes(start(run, changed, force=True)) == told
    assert read_config(run) == changed


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "log.every.steps=1",
        "checkpoint.keep_last=5",
        "parallel.devices=2",
        "eval.every=null",
        "data.prefetch=0",
        "data.workers=2",
        "train.duration.steps=7",
    ],
)
def test_a_change_that_touches_no_result_so_far_is_taken(run, override):
    changed = load_config(None, ["name=lenet", "seed=3", override])
    changes = start(run, changed)
    assert any(path.startswith(override.split("=")[0]) for path in changes)
    assert read_config(run) == changed
    assert start(run, changed) == {}


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, train_examples=99),
        replace(FACTS, class_names=("one", "zero")),
        replace(FACTS, input_shape=(28, 28, 1)),
    ],
)
def test_other_data_is_refused_unless_forced(run, facts):
    assert f"the data is not what {run} was trained on (see its data.json)" in refusal(run, facts=facts)
    assert read_facts(run) == FACTS
    start(run, facts=facts, force=True)
    assert read_facts(run) == facts


def test_a_changed_config_is_adopted_only_when_asked(run):
    changed, facts = load_config(None, ["name=lenet", "seed=4"]), replace(FACTS, train_examples=99)
    with RunFolder.open(run, changed, facts, force=True)[0] as folder:
        assert (read_config(run), read_facts(run)) == (CONFIGURED, FACTS)
        folder.adopt(changed, facts)
        assert (read_config(run), read_facts(run)) == (changed, facts)


@pytest.mark.parametrize("text", ["{", "{}", "3"])
def test_a_faulty_environment_file_is_told(run, text):
    (run / ENVIRONMENT).write_text(text)
    assert "environment.json cannot be read" in refusal(run)


def test_every_start_notes_its_environment(run):
    start(run)
    starts = json.loads((run / ENVIRONMENT).read_text())
    assert len(starts) == 2
    for noted in starts:
        assert {"started", "command", "python", "packages", "devices", "processes", "git"} <= noted.keys()
        assert {"jax", "flax", "optax", "numpy", "cnnjax"} <= noted["packages"].keys()
        assert noted["devices"][0].startswith("cpu:")
    assert starts[0]["started"] <= starts[1]["started"]


# History


def test_history_is_appended_and_rewound(run):
    with RunFolder.open(run, CONFIGURED, FACTS)[0] as folder:
        for step in (10, 20, 20, 30):
            folder.append(record(step, loss=1 / step))
        assert [each["step"] for each in read_history(run)] == [10, 20, 20, 30]
        assert folder.rewind(20) == [record(10, loss=0.1), record(20, loss=0.05), record(20, loss=0.05)]
        folder.append(record(30, loss=2.0))
        assert [each["loss"] for each in read_history(run)] == [0.1, 0.05, 0.05, 2.0]
        assert folder.rewind(0) == []
        assert read_history(run) == []


def test_each_record_is_on_disk_at_once_as_a_line_of_json(run):
    with RunFolder.open(run, CONFIGURED, FACTS)[0] as folder:
        folder.append(record(1))
        folder.append(record(2))
        lines = (run / HISTORY).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record(1), record(2)]


@pytest.mark.parametrize("torn", ['{"kind": "train", "st', "{", "\0\0\0", '{"kind": "tra\xff', "3"])
def test_a_last_line_that_a_crash_cut_off_is_left_out(run, torn):
    with RunFolder.open(run, CONFIGURED, FACTS)[0] as folder:
        folder.append(record(10))
        with open(run / HISTORY, "a", encoding="latin-1") as file:
            file.write(torn)
        assert read_history(run) == [record(10)]
        folder.rewind(10)
        folder.append(record(20))
        assert read_history(run) == [record(10), record(20)]


@pytest.mark.parametrize("line", ["{", "3", "{}", "[]", "", "text"])
def test_a_faulty_line_in_the_middle_is_told(run, line):
    (run / HISTORY).write_text(f"{json.dumps(record(1))}\n{line}\n{json.dumps(record(2))}\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl line 2 is not a record; mend or remove it"):
        read_history(run)


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "train", "step": 2},
        {**record(2), "kind": "other"},
        {**record(2), "step": True},
        {**record(2), "step": -1},
        {**record(2), "loss": "low"},
        {**record(2), "kind": "eval"},
        {**record(2), "kind": "eval", "weights": 3},
    ],
)
def test_a_line_that_lacks_what_its_readers_need_is_told(run, line):
    (run / HISTORY).write_text(f"{json.dumps(line)}\n{json.dumps(record(3))}\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl line 1 is not a record; mend or remove it"):
        read_history(run)


@pytest.mark.parametrize(
    ("name", "read"),
    [("data.json", read_facts), (HISTORY, read_history), ("environment.json", start), ("config.yaml", read_config)],
)
def test_nesting_without_an_end_is_a_sentence(run, name, read):
    (run / name).write_text("[" * 100_000 + "\n")
    with pytest.raises(RunError, match=name.replace(".", r"\.")) as caught:
        read(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"class_names": "zero"}, "class_names: "),
        ({"class_names": []}, "class_names: "),
        ({"class_names": [0, 1]}, "class_names.0: "),
        ({"input_shape": [32, [32], 1]}, "input_shape.1: "),
        ({"input_shape": [32, 32]}, "input_shape.2: "),
        ({"train_examples": -100}, "train_examples: "),
        ({"train_examples": True}, "train_examples: "),
        ({"segmentation": 1}, "segmentation: "),
    ],
)
def test_facts_of_another_kind_are_refused(run, change, fault):
    path = run / "data.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunError, match=re.escape(f"{path} cannot be read ({fault}")):
        read_facts(run)


def test_rewinding_leaves_the_old_history_if_it_cannot_write(run, monkeypatch):
    with RunFolder.open(run, CONFIGURED, FACTS)[0] as folder:
        folder.append(record(10))

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_text", full)
            with pytest.raises(RunError, match=r"metrics\.jsonl.*No space left on device"):
                folder.rewind(0)
        assert read_history(run) == [record(10)]


# Folders that are no run


def test_folders_that_are_no_run_are_told(tmp_path, run):
    with pytest.raises(RunError, match=r"there is no run folder .*none"):
        read_config(tmp_path / "none")
    with pytest.raises(RunError, match=r"is not a run folder: it has no config\.yaml"):
        read_config(tmp_path)
    (run / CONFIG).write_text("sed: 3")
    with pytest.raises(RunError, match=r"the config of .* cannot be read: sed: unknown key; did you mean 'seed'\?"):
        read_config(run)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"class_names": 3}'])
def test_unreadable_facts_are_told(run, text):
    (run / DATA).write_text(text)
    with pytest.raises(RunError, match=r"data\.json cannot be read"):
        read_facts(run)


def test_two_processes_may_write_one_file(monkeypatch, tmp_path):
    move = os.replace

    def another_is_faster(source, target):
        monkeypatch.setattr(os, "replace", move)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        write_whole(target, "theirs")
        move(source, target)

    monkeypatch.setattr(os, "replace", another_is_faster)
    write_whole(tmp_path / "file", "ours")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "ours"}
