"""Run folders that are damaged in any way: a state of theirs bit for bit, that of an earlier step, or a sentence."""

import contextlib
import gc
import json
import os
import random
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from campaign import QUICK, THOROUGH, refused, run
from mutations import mutate_bytes, mutate_tree, mutate_word

from cnnjax.checkpoint import Checkpoints
from cnnjax.config_files import check
from cnnjax.errors import CnnjaxError, CnnjaxWarning, RunError
from cnnjax.train.evaluation import evaluate, load_state
from cnnjax.train.loop import fit
from cnnjax.train.run_folder import RunFolder, read_config, read_facts, read_history
from cnnjax.train.run_weights import run_weights
from cnnjax.train.state import TrainState
from cnnjax.train.task import DataFacts, Task, make_task

STEPS = (2, 4, 6)
CONFIG = {
    "model": {"args": {"norm": "batch"}},
    "data": {
        "source": {"kind": "synthetic", "train_examples": 64, "test_examples": 32, "image_size": 28},
        "batch_size": 16,
    },
    "optimizer": {"args": {"momentum": 0.9}},
    "schedule": {"kind": "constant", "learning_rate": 0.05},
    "train": {"duration": {"steps": 6}},
    "eval": {"every": {"steps": 2}, "batch_size": 32},
    "checkpoint": {"every": {"steps": 2}, "keep_last": 3},
    "log": {"every": {"steps": 1}},
    "parallel": {"devices": 1},
}


@dataclass(frozen=True)
class Trained:
    """A finished run, and what each of its checkpoints holds."""

    folder: Path
    task: Task
    states: dict[int, dict[str, bytes]]
    progress: dict[int, Any]
    like: TrainState
    result: dict[str, Any]


def arrays(state: TrainState) -> dict[str, bytes]:
    """Every array's bytes."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return train(tmp_path_factory.mktemp("trained") / "run")


def train(folder: Path) -> Trained:
    """Trains it for six steps."""
    result = fit(check(CONFIG), folder)
    task = make_task(read_config(folder), read_facts(folder))
    like = task.init_state()
    checkpoints = Checkpoints(folder / "checkpoints", task.config.checkpoint, read_only=True)
    restored = {step: checkpoints.restore(like, step) for step in STEPS}
    checkpoints.close()
    states = {step: arrays(each.state) for step, each in restored.items()}
    return Trained(folder, task, states, {step: each.progress for step, each in restored.items()}, like, result)


@pytest.mark.parametrize("total", [QUICK, pytest.param(THOROUGH, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_mutated_run_folders(total, trained, tmp_path, caplog):
    def mutation(random: random.Random) -> str:
        run_dir = tmp_path / "run"
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.copytree(trained.folder, run_dir)
        if random.random() < 0.6:
            for _ in range(random.choice((1, 1, 2, 3))):
                with contextlib.suppress(OSError):  # after an earlier damage, some later ones are impossible
                    _damage_checkpoints(random, run_dir / "checkpoints")
            use = random.choice((_restore, _restore, _restore, _restore, _load, _load, _best, _go_on))
        else:
            _damage_records(random, run_dir)
            use = random.choice(
                (_read_records, _read_records, _read_records, _open, _open, _use_weights, _evaluate, _go_on)
            )
        outcome = f"{use.__name__.strip('_')}: {use(random, trained, run_dir)}"
        if random.random() < 0.05:
            gc.collect()  # what a failed read has left behind is told of now
        assert not caplog.records, caplog.records
        return outcome

    run("run folders", total, mutation)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _damage_checkpoints(random: random.Random, folder: Path) -> None:
    files = _files(folder)
    if not files:
        return
    file = random.choice([path for path in files if path.suffix != ".d"])
    steps = [path for path in folder.iterdir() if path.is_dir()]
    step, other = random.choice(steps), random.choice(steps)
    kind = random.randrange(10)
    if kind <= 2:
        file.write_bytes(mutate_bytes(random, file.read_bytes()))
    elif kind == 3:
        file.unlink()
    elif kind == 4:  # the same file of another step
        twin = other / file.relative_to(folder / file.relative_to(folder).parts[0])
        _swap(file, twin if twin.exists() else random.choice(files))
    elif kind == 5:
        item = random.choice(("state", "progress", "."))
        _swap(step / item, other / item)
    elif kind == 6:
        name = mutate_word(random, "6")[:9].replace("/", "").replace("\0", "")
        target = step.with_name(random.choice(("8", "06", "-6", "6.0", "3", "٦", "6 ", "x", name or "y")))
        if not target.exists():
            step.rename(target)
    elif kind == 7:
        for metadata in random.sample(files, len(files)):
            try:
                tree = json.loads(metadata.read_bytes())
            except ValueError:
                continue
            metadata.write_text(json.dumps(mutate_tree(random, tree)))
            break
    elif kind == 8:
        file.rename(file.with_name(mutate_word(random, file.name)[:99].replace("/", "").replace("\0", "") or "x"))
    else:
        shutil.copytree(step, step.with_name(random.choice(("5", "7", "100"))), dirs_exist_ok=True)


def _swap(one: Path, other: Path) -> None:
    if one == other or not (one.exists() and other.exists()):
        return
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def _damage_records(random: random.Random, run_dir: Path) -> None:
    names = ("config.yaml", "data.json", "metrics.jsonl", "environment.json", "result.json", ".cnnjax.lock")
    file = run_dir / random.choice(names[:4] if random.random() < 0.9 else names)
    content, kind = file.read_bytes(), random.randrange(6)
    if kind <= 1 or file.suffix not in (".json", ".jsonl"):
        file.write_bytes(mutate_bytes(random, content))
    elif kind == 2:
        file.unlink()
    elif kind == 3:
        file.write_bytes(b"[" * 100_000 if random.random() < 0.5 else content * 2)
    elif file.suffix == ".jsonl":
        lines = content.decode().splitlines()
        line = random.randrange(len(lines))
        lines[line] = json.dumps(mutate_tree(random, json.loads(lines[line])))
        file.write_text("\n".join(lines) + "\n")
    else:
        file.write_text(json.dumps(mutate_tree(random, json.loads(content))))


def _restore(random: random.Random, trained: Trained, run_dir: Path) -> str:
    """As training does, which sets aside what is broken, or as others do."""
    step = random.choice((None, None, *STEPS, 5))
    try:
        checkpoints = Checkpoints(
            run_dir / "checkpoints", trained.task.config.checkpoint, read_only=random.random() < 0.5
        )
    except RunError as error:
        return refused(error)
    try:
        restored = checkpoints.restore(trained.like, step)
    except RunError as error:
        return refused(error, str(run_dir), "checkpoint ")
    finally:
        checkpoints.close()
    if restored is None:
        return "none left"
    assert step in (None, restored.step)
    assert arrays(restored.state) == trained.states[restored.step]
    assert restored.progress == trained.progress[restored.step]
    return f"restored {restored.step}"


def _load(random: random.Random, trained: Trained, run_dir: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CnnjaxWarning)
        try:
            state = load_state(run_dir, trained.task, random.choice(("last", "best", 2, 4, 6)))
        except RunError as error:
            return refused(error, str(run_dir), "checkpoint ")
    assert arrays(state) == trained.states[int(state.step)]
    return f"loaded {int(state.step)}"


def _best(random: random.Random, trained: Trained, run_dir: Path) -> str:
    accuracies = {each["step"]: each["accuracy"] for each in read_history(run_dir) if each["kind"] == "eval"}
    try:
        checkpoints = Checkpoints(run_dir / "checkpoints", trained.task.config.checkpoint, read_only=True)
    except RunError as error:
        return refused(error, str(run_dir))
    try:
        best = checkpoints.best()
    except RunError as error:
        return refused(error, str(run_dir))
    finally:
        checkpoints.close()
    kept = [step for step in STEPS if (run_dir / "checkpoints" / str(step)).exists()]
    assert best is None or best == max(kept, key=lambda step: (accuracies[step], step)), (best, kept)
    return "best of what is left"


def _go_on(random: random.Random, trained: Trained, run_dir: Path) -> str:
    """Ends with what the run ended with, but for the time that it took."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CnnjaxWarning)
        try:
            result = fit(check(CONFIG), run_dir)
        except CnnjaxError as error:
            return refused(error, str(run_dir))
    same = ("step", "finished", "examples")
    assert {key: result[key] for key in same} == {key: trained.result[key] for key in same}
    assert arrays(load_state(run_dir, trained.task)) == trained.states[STEPS[-1]]
    return "ended as before"


def _read_records(random: random.Random, trained: Trained, run_dir: Path) -> str:
    outcomes = set()
    for read in (read_config, read_facts, read_history):
        try:
            found = read(run_dir)
        except RunError as error:
            outcomes.add(refused(error, str(run_dir)))
        else:
            outcomes.add("read")
            if isinstance(found, DataFacts):
                _assert_facts(found)
            elif isinstance(found, list):
                for record in found:
                    assert type(record["step"]) is int
                    assert record["kind"] in ("train", "eval")
                    assert isinstance(record["loss"], int | float)
    return " and ".join(sorted(outcomes))


def _assert_facts(facts: DataFacts) -> None:
    assert facts.class_names
    assert all(isinstance(name, str) for name in facts.class_names)
    assert len(facts.input_shape) == 3
    numbers = (*facts.input_shape, facts.train_examples, facts.test_examples)
    assert all(type(number) is int and number > 0 for number in numbers)
    assert type(facts.segmentation) is bool


def _open(random: random.Random, trained: Trained, run_dir: Path) -> str:
    try:
        folder, _ = RunFolder.open(run_dir, trained.task.config, trained.task.facts, force=random.random() < 0.3)
    except RunError as error:
        return refused(error, str(run_dir))
    with folder:
        assert folder.result_step() in (None, STEPS[-1]) or (run_dir / "result.json").read_bytes() != b""
        try:
            folder.rewind(4)
        except RunError as error:
            return refused(error, str(run_dir))
    return "opened"


def _use_weights(random: random.Random, trained: Trained, run_dir: Path) -> str:
    try:
        weights = run_weights(run_dir)
    except CnnjaxError as error:
        return refused(error)
    assert np.isfinite(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(weights.variables)])).all()
    return "used"


def _evaluate(random: random.Random, trained: Trained, run_dir: Path) -> str:
    try:
        found = evaluate(run_dir)
    except CnnjaxError as error:
        return refused(error)
    assert found["step"] == STEPS[-1]
    assert os.path.samefile(found["run_dir"], run_dir)
    return "evaluated"
