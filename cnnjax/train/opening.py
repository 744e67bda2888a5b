"""Before the loop: the job, the data and the devices, the run folder, and the state to go on from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from cnnjax.checkpoint import Checkpoints, newest_step
from cnnjax.config import Config
from cnnjax.data.examples import Datasets
from cnnjax.data.sources import load
from cnnjax.errors import CnnjaxError, RunError
from cnnjax.parallel import (
    Executor,
    Watch,
    agree,
    all_or_none,
    forget_signs,
    join_processes,
    keep_compiled,
    make_executor,
)
from cnnjax.train.init_from import describe, load_into
from cnnjax.train.reporting import Reporter, Sums
from cnnjax.train.run_folder import CHECKPOINTS, INIT_FROM, RunFolder, describe_changes, read_history
from cnnjax.train.state import TrainState
from cnnjax.train.task import DataFacts, Task, check_names, make_task
from cnnjax.train.tensorboard import TensorBoard


def prepare(config: Config) -> tuple[Task, Datasets, Executor]:
    """Joins the job's processes, loads the data, and binds the config to them and to the devices.

    Raises:
        ConfigError, DataError, RunError: see `fit`.
    """
    check_names(config)
    join_processes(config.parallel)
    with all_or_none():
        keep_compiled(config.parallel)
        executor = make_executor(config)
        data = load(config.data)
        task = make_task(
            config,
            DataFacts.of(data),
            axis=executor.axis,
            lowering=executor.lowering,
            unroll_accumulation=jax.default_backend() == "cpu",
        )
    return task, data, executor


@dataclass(frozen=True)
class HeldRun:
    """A run folder while something trains in it."""

    path: Path
    folder: RunFolder | None
    """Only process 0 writes to it."""
    checkpoints: Checkpoints
    watch: Watch
    """Over the job's other processes."""


@contextmanager
def hold_run(task: Task, executor: Executor, path: Path, *, force: bool, reporter: Reporter) -> Iterator[HeldRun]:
    """Opens a run folder, or the run that is there, and lets go of it in the end; errors are those of `fit`."""
    folder, changes = _open_folder(path, task, force, executor)
    try:
        if changes:
            reporter.message(f"continuing with a changed config: {describe_changes(changes)}")
        checkpoints = Checkpoints(path / CHECKPOINTS, task.config.checkpoint, tell=reporter.message)
        with Watch(
            path, executor.process_index, executor.process_count, task.config.parallel,
            last_checkpoint=lambda: newest_step(path / CHECKPOINTS), warn=reporter.message,
        ) as watch:  # fmt: skip
            try:
                yield HeldRun(path, folder, checkpoints, watch)
            except BaseException:
                if executor.process_count == 1:  # else it would wait for the others, which do not come
                    checkpoints.close()
                raise
            checkpoints.close()
    finally:
        if folder is not None:
            folder.close()


def _open_folder(
    path: Path, task: Task, force: bool, executor: Executor
) -> tuple[RunFolder | None, dict[str, tuple[Any, Any]]]:
    """Only process 0 writes to the folder; if it must not, every process learns so."""
    folder: RunFolder | None = None
    changes: dict[str, tuple[Any, Any]] = {}
    failure: str | None = None
    if executor.process_index == 0:
        try:
            folder, changes = RunFolder.open(path, task.config, task.facts, force=force)
            forget_signs(path)
        except CnnjaxError as error:
            if executor.process_count == 1:
                raise
            failure = str(error)
    agree(failure)
    return folder, changes


@dataclass(frozen=True)
class Begun:
    """Where training goes on from."""

    state: TrainState
    """As the step takes it."""
    step: int
    iterator: Any
    """The position in the data; None at the start."""
    interval: Sums
    seconds: float
    """Spent on the run before."""
    tensorboard: TensorBoard | None


def begin(task: Task, executor: Executor, held: HeldRun, reporter: Reporter) -> Begun:
    """From the newest checkpoint that can be read, or from the start; makes the folder fit what follows.

    Raises:
        RunError: the run is further than the config asks for, or there are checkpoints and none can be read.
    """
    state = task.init_state()
    restored = held.checkpoints.restore(executor.copy_state(executor.put_state(state)))
    step, iterator, interval, seconds = 0, None, Sums(), 0.0
    if restored is not None:
        for warning in restored.warnings:
            reporter.message(f"warning: {warning}; continuing from the one before, of step {restored.step}")
        state, step = restored.state, restored.step
        iterator, interval = restored.progress["iterator"], Sums(restored.progress["interval"])
        seconds = restored.progress.get("seconds", 0.0)
        if step > task.total_steps:
            raise RunError(
                f"{held.path} is at step {step} already, and train.duration asks for {task.total_steps}; "
                "ask for more, or choose another --run-dir"
            )
        what = f"{held.path} is finished," if step == task.total_steps else f"continuing {held.path}"
        reporter.message(f"{what} at step {step} of {task.total_steps}")
    else:
        if read_history(held.path):
            reporter.message(f"{held.path} has no checkpoint; starting again from step 0")
        if task.config.init_from is not None:
            state, told = load_into(state, task, task.config.init_from)
            reporter.message(f"init_from: {describe(told)}")
            if held.folder is not None:
                held.folder.write(INIT_FROM, told)
    tensorboard = None
    if held.folder is not None:
        held.folder.adopt(task.config, task.facts)
        held.folder.rewind(step)
        if task.config.log.tensorboard:
            tensorboard = TensorBoard(held.path, step)
    return Begun(executor.put_state(state), step, iterator, interval, seconds, tensorboard)
