"""A study's runs: which are done, and doing the others. Killed at any moment, the same call goes on."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import jax

from cnnjax.config_data import DataConfig
from cnnjax.data.examples import Datasets
from cnnjax.data.sources import load
from cnnjax.errors import ConfigError, TrainingError
from cnnjax.parallel import Executor, first_says, is_first, join_processes
from cnnjax.study.arms import Arm
from cnnjax.study.diagnostics import Tools
from cnnjax.study.measures import costs_of, measure, read_measures
from cnnjax.study.question import Study
from cnnjax.study.together import Timed, Way, compile_together, fastest, on_one_device, time_ways, train_together
from cnnjax.train.loop import train_task
from cnnjax.train.opening import prepare
from cnnjax.train.reporting import Record, Reporter
from cnnjax.train.run_files import FAILURE as FAILURE_SHAPE
from cnnjax.train.run_files import read_json
from cnnjax.train.run_folder import CONFIG, InUse, in_use, not_written, write_whole
from cnnjax.train.task import DataFacts, Task, check_names

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
    failure: Record = read_json(run.path / FAILURE, FAILURE_SHAPE, "remove it, and the run is tried again")
    return failure


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

    Several processes of a job train every run together; the first one keeps the books.

    Args:
        folder: holds a run folder for each run.
        shard: the part to do here; others are somebody else's.
        retry_failed: take failed runs up again, from their last checkpoint.
        say: told a line for each thing worth one.

    Returns:
        Whether every run of the shard is finished or failed: not so after SIGTERM, with the budget spent, or where
        another process is at one of them.

    Raises:
        ConfigError, DataError, RunError: something is wrong with the study or the machine, not with one run.
    """
    join_processes(arms[0].config.parallel)
    say = say if is_first() else lambda _: None
    everything = plan(arms, folder)
    todo = [run for run in shard.of(everything) if first_says(partial(_is_due, run, study, retry_failed))]
    say(f"{len(everything)} runs, {len(everything) - len(todo)} of them done or another shard's; {len(todo)} to do")
    doing = _Doing(study, everything, len(todo), say, _costs([run.arm for run in todo]))
    for arm, of_arm in groupby(todo, lambda run: run.arm):
        if not doing.train_arm(arm, list(of_arm)):
            return False
    return doing.complete


class _Doing:
    """The work of one call of `run_study`."""

    def __init__(
        self, study: Study, everything: Sequence[Run], todo: int, say: Say, costs: Mapping[str, Mapping[str, int]]
    ) -> None:
        self.study, self.everything, self.todo, self.say = study, everything, todo, say
        self.begun, self.complete = 0, True
        self.costs = costs

    def train_arm(self, arm: Arm, runs: Sequence[Run]) -> bool:
        """Trains an arm's runs, together where that is asked for; False where the study has to end here."""
        # Seeds train together on one process's devices; and a profile is of one run's steps.
        several = len(runs) > 1 and jax.process_count() == 1 and arm.config.train.profile is None
        alone = self.study.together == "separate" or not several
        task, data, executor = prepare(arm.config if alone else on_one_device(arm.config))
        tools = Tools(task, executor)
        if not alone:
            way = self._way(task, data, executor, len(runs))
            if way != "separate" and not any(in_use(run.path) for run in runs):
                return self._train_together(task, data, executor, tools, runs, way)
        return all(self._train(task, data, executor, tools, run) for run in runs)

    def _train(self, task: Task, data: Datasets, executor: Executor, tools: Tools, run: Run) -> bool:
        self.begun += 1
        where = f"[{self.begun}/{self.todo}] {run}"
        if self._budget_is_spent():
            return False
        if first_says(partial(in_use, run.path)):
            self.say(f"{where}: another process is at it")
            self.complete = False
            return True
        if first_says(lambda: status_of(run, self.study) == "finished"):  # by another process, meanwhile
            return True
        if is_first():
            (run.path / FAILURE).unlink(missing_ok=True)
        since, own = time.perf_counter(), task.with_seed(run.seed)
        result: Record | BaseException
        try:
            result = train_task(own, data, executor, run.path, force=False, reporter=Reporter())
        except InUse:  # taken since it was asked
            self.say(f"{where}: another process is at it")
            self.complete = False
            return True
        except (TrainingError, MemoryError, jax.errors.JaxRuntimeError) as error:
            result = error
        return self._note(where, run, own, data, executor, tools, result, time.perf_counter() - since)

    def _train_together(
        self, task: Task, data: Datasets, executor: Executor, tools: Tools, runs: Sequence[Run], way: Way
    ) -> bool:
        if self._budget_is_spent():
            return False
        for run in runs:
            (run.path / FAILURE).unlink(missing_ok=True)
        since, tasks = time.perf_counter(), [task.with_seed(run.seed) for run in runs]
        steps = compile_together(task, executor, way, len(runs))
        try:
            results = train_together(tasks, data, executor, [run.path for run in runs], way, steps)
        except InUse:  # one was taken while the program was compiled
            results = None
        if results is None:  # or they were interrupted at different steps
            return all(self._train(task, data, executor, tools, run) for run in runs)
        seconds = (time.perf_counter() - since) / len(runs)
        goes_on = True
        for run, own, result in zip(runs, tasks, results, strict=True):
            self.begun += 1
            where = f"[{self.begun}/{self.todo}] {run} ({way})"
            goes_on &= self._note(where, run, own, data, executor, tools, result, seconds)
        return goes_on

    def _note(
        self,
        where: str,
        run: Run,
        task: Task,
        data: Datasets,
        executor: Executor,
        tools: Tools,
        result: Record | BaseException,
        seconds: float,
    ) -> bool:
        """Keeps a run's failure or its measures; False if it was told to stop."""
        if isinstance(result, BaseException):
            if is_first():
                _note_failure(run, result, seconds)
            self.say(f"{where}: failed: {result}")
            return True
        if not result["finished"]:
            self.say(f"{where}: stopped and saved at step {result['step']}; the same command goes on")
            return False
        costs = self.costs[run.arm.name]
        measure(run.path, result, task, data, executor, self.study.diagnostics, tools, costs)
        self.say(f"{where}: test error {100 * (1 - result['accuracy']):.2f} %, {seconds:.0f} s")
        return True

    def _way(self, task: Task, data: Datasets, executor: Executor, seeds: int) -> Timed:
        if self.study.together != "auto":
            return self.study.together
        timings = time_ways(task, data, executor, seeds)
        way = fastest(timings, task.total_steps)
        told = ", ".join(f"{each.way} {1000 * each.step_seconds:.0f} ms" for each in timings)
        self.say(f"a step of {seeds} seeds: {told}; chosen: {way}")
        return way

    def _budget_is_spent(self) -> bool:
        minutes = self.study.budget.minutes
        if minutes is None or first_says(lambda: minutes_spent(self.everything, self.study) < minutes):
            return False
        self.say(f"the budget of {minutes:g} minutes is spent; raise budget.minutes to go on")
        return True


def _costs(arms: Sequence[Arm]) -> dict[str, dict[str, int]]:
    """Each arm's params and macs; an arm whose network does not take its images is told before anything is trained."""
    facts: dict[DataConfig, DataFacts] = {}
    costs = {}
    for arm in {arm.name: arm for arm in arms}.values():
        check_names(arm.config)
        if arm.config.data not in facts:
            facts[arm.config.data] = DataFacts.of(load(arm.config.data))
        try:
            costs[arm.name] = costs_of(arm.config, facts[arm.config.data])
        except ConfigError as error:
            raise ConfigError(f"arm '{arm.name}': {error}") from None
    return costs


def _is_due(run: Run, study: Study, retry_failed: bool) -> bool:
    status = status_of(run, study)
    return status in ("waiting", "interrupted") or (status == "failed" and retry_failed)


def _note_failure(run: Run, error: BaseException, seconds: float) -> None:
    path = run.path / FAILURE
    text = " ".join((str(error) or type(error).__name__).split())
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"error": text[:1000], "seconds": seconds}) + "\n")
    except OSError as failed:
        raise not_written(path, failed, "--runs") from None


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
