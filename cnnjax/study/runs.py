"""A study's runs: which are done, and doing the others. Killed at any moment, the same call goes on."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import jax

from cnnjax.errors import ConfigError, RunError, TrainingError
from cnnjax.study.arms import Arm
from cnnjax.study.diagnostics import Tools
from cnnjax.study.measures import cost, measure, read_measures
from cnnjax.study.question import Study
from cnnjax.train.loop import prepare, train_task
from cnnjax.train.reporting import Record, Reporter
from cnnjax.train.run_folder import CONFIG, in_use, not_written

FAILURE = "failure.json"

Status = Literal["finished", "failed", "interrupted", "waiting"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """An arm with one of its seeds."""

    arm: Arm
    seed: int
    path: Path
    """Its run folder."""

    def __str__(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"


@dataclass(frozen=True)
class Shard:
    """Every `count`-th run, from the `index`-th on, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From `2/4`; ConfigError where it is something else."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ConfigError(f"--shard: expected i/n with i from 1 to n, such as 2/4, got '{text}'")
        return cls(int(index), int(count))

    def of(self, runs: Sequence[Run]) -> list[Run]:
        """Its part of them."""
        return list(runs[self.index - 1 :: self.count])


def plan(arms: Sequence[Arm], folder: Path) -> list[Run]:
    """All runs, arm by arm, in the folder that holds theirs."""
    return [Run(arm, seed, folder / arm.folder_of(seed)) for arm in arms for seed in arm.seeds]


def status_of(run: Run, study: Study) -> Status:
    """What the run's folder tells."""
    if read_measures(run.path, study.diagnostics) is not None:
        return "finished"
    if (run.path / FAILURE).exists():
        return "failed"
    return "interrupted" if (run.path / CONFIG).exists() else "waiting"


def failure_of(run: Run) -> Record:
    """Why a run failed: error, a sentence, and seconds; RunError where that cannot be read."""
    path = run.path / FAILURE
    try:
        failure: Record = json.loads(path.read_text(encoding="utf-8"))
        return {"error": str(failure["error"]), "seconds": float(failure["seconds"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove it, and the run is tried again") from None


def minutes_spent(runs: Sequence[Run], study: Study) -> float:
    """Of training, by all finished and failed runs."""
    seconds = 0.0
    for run in runs:
        measures = read_measures(run.path)
        if measures is not None:
            seconds += measures["seconds"]
        elif status_of(run, study) == "failed":
            seconds += failure_of(run)["seconds"]
    return seconds / 60


def run_study(
    study: Study,
    arms: Sequence[Arm],
    folder: Path,
    *,
    shard: Shard = Shard(),
    retry_failed: bool = False,
    say: Say = print,
) -> bool:
    """Trains what is not finished yet: skips finished and failed runs, continues interrupted ones.

    Args:
        folder: holds a run folder for each run.
        shard: the part to do here; others are somebody else's.
        retry_failed: begin failed runs anew.
        say: told a line for each thing worth one.

    Returns:
        Whether every run of the shard is finished or failed: not so after SIGTERM, with the budget spent, or where
        another process is at one of them.

    Raises:
        ConfigError, DataError, RunError: something is wrong with the study or the machine, not with one run.
    """
    everything = plan(arms, folder)
    todo = [run for run in shard.of(everything) if _is_due(run, study, retry_failed)]
    say(f"{len(everything)} runs, {len(everything) - len(todo)} of them done or another shard's; {len(todo)} to do")
    done, complete = 0, True
    for arm, of_arm in groupby(todo, lambda run: run.arm):
        task, data, executor = prepare(arm.config)
        cost(task)  # a network that does not take these images is no failure of one run
        tools = Tools(task, executor)
        for run in of_arm:
            done += 1
            where = f"[{done}/{len(todo)}] {run}"
            if study.budget.minutes is not None and minutes_spent(everything, study) >= study.budget.minutes:
                say(f"the budget of {study.budget.minutes:g} minutes is spent; raise budget.minutes to go on")
                return False
            if in_use(run.path):
                say(f"{where}: another process is at it")
                complete = False
                continue
            if status_of(run, study) == "finished":  # by another process, meanwhile
                continue
            (run.path / FAILURE).unlink(missing_ok=True)
            since, own = time.perf_counter(), task.with_seed(run.seed)
            try:
                result = train_task(own, data, executor, run.path, force=False, reporter=Reporter())
            except (TrainingError, MemoryError, jax.errors.JaxRuntimeError) as error:
                _note_failure(run, error, time.perf_counter() - since)
                say(f"{where}: failed: {error}")
                continue
            if not result["finished"]:
                say(f"{where}: stopped and saved at step {result['step']}; the same command goes on")
                return False
            measure(run.path, own, data, executor, study.diagnostics, tools)
            measures = read_measures(run.path) or {}
            say(f"{where}: test error {measures['test_error']:.2f} %, {time.perf_counter() - since:.0f} s")
    return complete


def _is_due(run: Run, study: Study, retry_failed: bool) -> bool:
    status = status_of(run, study)
    return status in ("waiting", "interrupted") or (status == "failed" and retry_failed)


def _note_failure(run: Run, error: BaseException, seconds: float) -> None:
    path = run.path / FAILURE
    beside = path.with_name(f".{FAILURE}.new")
    text = " ".join((str(error) or type(error).__name__).split())
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps({"error": text[:1000], "seconds": seconds}) + "\n", encoding="utf-8")
        os.replace(beside, path)
    except OSError as failed:
        raise not_written(path, failed) from None


def describe_status(study: Study, arms: Sequence[Arm], folder: Path) -> list[dict[str, Any]]:
    """A row for each run: arm, seed, status, test_error, seconds, error (why it failed), run_dir."""
    rows = []
    for run in plan(arms, folder):
        status = status_of(run, study)
        measures = (read_measures(run.path) if status == "finished" else None) or {}
        rows.append(
            {
                "arm": run.arm.name,
                "seed": run.seed,
                "status": status,
                "test_error": measures.get("test_error"),
                "seconds": measures.get("seconds"),
                "error": failure_of(run)["error"] if status == "failed" else None,
                "run_dir": str(run.path),
            }
        )
    return rows
