"""The training loop: read it from top to bottom."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from cnnjax.checkpoint import Checkpoints
from cnnjax.config import Config
from cnnjax.data.examples import Datasets
from cnnjax.data.loader import Shard, TrainStream, train_batches
from cnnjax.data.sources import load
from cnnjax.errors import CnnjaxError, RunError, TrainingError
from cnnjax.parallel import Executor, agree, broadcast, join_processes, keep_compiled, make_executor, should_stop
from cnnjax.train.evaluation import LAG, evaluate_state
from cnnjax.train.figures import draw_learning_curve
from cnnjax.train.init_from import describe, load_into
from cnnjax.train.optimizer import describe_scaling
from cnnjax.train.profiling import profiling
from cnnjax.train.reporting import Clock, Reporter, Sums
from cnnjax.train.run_folder import (
    CHECKPOINTS,
    CURVE,
    INIT_FROM,
    RESULT,
    Record,
    RunFolder,
    default_run_dir,
    describe_changes,
    not_written,
    read_history,
)
from cnnjax.train.signals import termination
from cnnjax.train.state import TrainState
from cnnjax.train.task import DataFacts, Task, check_names, make_task
from cnnjax.train.tensorboard import TensorBoard


def fit(
    config: Config, run_dir: str | Path | None = None, *, force: bool = False, reporter: Reporter | None = None
) -> Record:
    """Trains a config in a run folder, or continues the run that is there.

    Args:
        run_dir: the run folder; by default runs/NAME-HASH.
        force: continue although the config differs from the run's.
        reporter: told of everything that happens.

    Returns:
        run_dir, step, examples, finished, loss and accuracy (and mean_iou of a segmentation) on the held-out set,
        train_loss, train_accuracy, ...

    Raises:
        ConfigError, DataError, RunError, TrainingError: each a sentence that says what to do.
    """
    task, data, executor = prepare(config)
    path = Path(run_dir) if run_dir is not None else default_run_dir(config)
    return train_task(task, data, executor, path, force=force, reporter=reporter or Reporter())


def prepare(config: Config) -> tuple[Task, Datasets, Executor]:
    """Joins the job's processes, loads the data, and binds the config to them and to the devices.

    Raises:
        ConfigError, DataError, RunError: see `fit`.
    """
    check_names(config)
    join_processes(config.parallel)
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


def train_task(
    task: Task, data: Datasets, executor: Executor, path: Path, *, force: bool, reporter: Reporter
) -> Record:
    """What `fit` does once everything is bound to the data and the devices."""
    with open_training(task, data, executor, path, force=force, reporter=reporter) as training:
        return training.train()


@contextmanager
def open_training(
    task: Task, data: Datasets, executor: Executor, path: Path, *, force: bool, reporter: Reporter
) -> Iterator["Training"]:
    """Holds a run folder while something trains in it; errors are those of `fit`."""
    folder, changes = _open_folder(path, task, force, executor)
    try:
        if changes:
            reporter.message(f"continuing with a changed config: {describe_changes(changes)}")
        checkpoints = Checkpoints(path / CHECKPOINTS, task.config.checkpoint)
        try:
            yield Training(task, data, executor, path, folder, checkpoints, reporter)
        finally:
            reporter.stop()
            checkpoints.close()
    finally:
        if folder is not None:
            folder.close()


class Training:
    """One process's part in training one run folder."""

    def __init__(
        self,
        task: Task,
        data: Datasets,
        executor: Executor,
        path: Path,
        folder: RunFolder | None,
        checkpoints: Checkpoints,
        reporter: Reporter,
    ) -> None:
        self.task, self.data, self.executor, self.path, self.reporter = task, data, executor, path, reporter
        self.folder, self.checkpoints = folder, checkpoints
        self.eval_step = executor.compile_eval(task.eval_step)
        self.since, self.seconds_before, self.sharing = time.perf_counter(), 0.0, 1
        self.interval = Sums()
        self.evaluated: tuple[int, float] | None = None
        self.tensorboard: TensorBoard | None = None

    def train(self) -> Record:
        """From the newest checkpoint, or from the start, to the end of the run."""
        config = self.task.config
        with train_batches(
            self.data.train,
            batch_size=config.data.batch_size,
            seed=config.seed,
            shard=Shard(self.executor.process_index, self.executor.process_count),
            put=self.executor.put_batch,
            prefetch=config.data.prefetch,
            workers=config.data.workers,
            crop=config.data.crop,
        ) as batches:
            return self._train_on(batches)

    def _train_on(self, batches: TrainStream) -> Record:
        task, config = self.task, self.task.config
        train_steps = [self.executor.compile_train(train_step) for train_step in task.train_steps]
        state, step = self.start_or_resume(batches)
        if step < task.total_steps:
            if (scaling := describe_scaling(config.schedule, config.data.batch_size)) is not None:
                self.reporter.message(scaling)
            self.reporter.start(step, task.total_steps, config.data.batch_size)
        if step == task.total_steps and broadcast(int(not self.is_evaluated(step))):
            self.evaluate(state, step)  # stopped here once, on its way to more steps than are asked for now
        pending: deque[tuple[int, Any]] = deque()
        stopped = False
        clock = Clock(step)
        first = step + 1
        with termination() as asked, profiling(config.train.profile, self.path, step, self.reporter) as profile:
            while step < task.total_steps and not stopped:
                with profile.annotate(step + 1):
                    state, metrics = train_steps[task.phase_after(step)](state, next(batches))
                step += 1
                if step == first:
                    jax.block_until_ready(metrics)
                    self.reporter.message(f"compiled the step in {clock.seconds():.1f} s")
                    clock.restart(step)
                if profile.end(step, metrics):
                    clock.restart(step)
                pending.append((step, metrics))
                stopped = should_stop(asked.is_set(), step)
                done = stopped or step == task.total_steps
                log, evaluation, save = due_at(task, step)
                # What is written must be complete and finite; otherwise stay behind, and let the device run ahead.
                while len(pending) > (0 if log or evaluation or save or done else LAG):
                    self.read_oldest(pending)
                if log:
                    self.log(step, clock)
                if evaluation:
                    self.evaluate(state, step)
                    clock.restart(step)
                if save or done:
                    self.save(state, step, batches.get_state())
                    clock.restart(step)
            return self.finish(step, trained_now=step >= first)

    def start_or_resume(self, batches: TrainStream) -> tuple[TrainState, int]:
        """The state to go on from and its step; `batches` are set to what follows."""
        state = self.task.init_state()
        restored = self.checkpoints.restore(self.executor.copy_state(self.executor.put_state(state)))
        step = 0
        if restored is not None:
            for warning in restored.warnings:
                self.reporter.message(f"warning: {warning}; continuing from the one before, of step {restored.step}")
            state, step = restored.state, restored.step
            batches.set_state(restored.progress["iterator"])
            self.interval = Sums(restored.progress["interval"])
            self.seconds_before = restored.progress.get("seconds", 0.0)
            if step > self.task.total_steps:
                raise RunError(
                    f"{self.path} is at step {step} already, and train.duration asks for {self.task.total_steps}; "
                    "ask for more, or choose another --run-dir"
                )
            what = f"{self.path} is finished," if step == self.task.total_steps else f"continuing {self.path}"
            self.reporter.message(f"{what} at step {step} of {self.task.total_steps}")
        else:
            if read_history(self.path):
                self.reporter.message(f"{self.path} has no checkpoint; starting again from step 0")
            if self.task.config.init_from is not None:
                state, told = load_into(state, self.task, self.task.config.init_from)
                self.reporter.message(f"init_from: {describe(told)}")
                if self.folder is not None:
                    self.folder.write(INIT_FROM, told)
        if self.folder is not None:
            self.folder.adopt(self.task.config, self.task.facts)
            self.folder.rewind(step)
            if self.task.config.log.tensorboard:
                self.tensorboard = TensorBoard(self.path, step)
        return self.executor.put_state(state), step

    def read_oldest(self, pending: deque[tuple[int, Any]]) -> None:
        """Takes the metrics that wait longest, and waits for the step that made them."""
        step, metrics = pending.popleft()
        self.note_metrics(step, self.executor.read_metrics(metrics))

    def note_metrics(self, step: int, values: dict[str, tuple[float, float]]) -> None:
        """Adds a step's sums to its interval's; TrainingError where loss or gradient are not finite."""
        loss, gradient = values["loss"][0], values["grad_norm"][0]
        if not (abs(loss) < float("inf") and abs(gradient) < float("inf")):
            self.checkpoints.wait()
            good = self.checkpoints.steps()
            last = f"the checkpoint of step {good[-1]} is the last good one" if good else "there is no checkpoint yet"
            what = "loss" if not abs(loss) < float("inf") else "gradient"
            raise TrainingError(
                f"the {what} is {loss if what == 'loss' else gradient} at step {step}; {last} (in {self.path}); "
                "lower schedule.learning_rate, lengthen schedule.warmup or set optimizer.clip_norm"
            )
        self.interval.add(values)
        self.reporter.advance(step, self.interval.means())

    def log(self, step: int, clock: "Clock") -> None:
        """A line of training metrics: the means since the last one."""
        batch_size = self.task.config.data.batch_size
        skipped = batch_size * self.interval.count("grad_norm") - self.interval.count("loss")
        self._record(
            {
                "kind": "train",
                "step": step,
                "epoch": step / self.task.steps_per_epoch,
                "examples": step * batch_size,
                **self.interval.means(),
                **({"skipped": skipped} if skipped else {}),
                "learning_rate": self.task.learning_rate(step),
                "images_per_second": clock.rate(step, batch_size),
            }
        )
        self.interval = Sums()

    def evaluate(self, state: TrainState, step: int) -> None:
        """A line of the held-out set for the weights, and one for their average if there is one."""
        for record in evaluate_state(self.task.config, self.data.test, self.executor, self.eval_step, state, step):
            self._record({"kind": "eval", **record, "epoch": step / self.task.steps_per_epoch})
            self.evaluated = step, record["accuracy"]

    def is_evaluated(self, step: int) -> bool:
        """Whether the history has an evaluation of that step."""
        return any(record["kind"] == "eval" and record["step"] == step for record in read_history(self.path))

    def save(self, state: TrainState, step: int, iterator: Any) -> None:
        """Starts writing a checkpoint; `iterator` is the position in the data."""
        progress = {"iterator": iterator, "interval": self.interval.totals, "seconds": self.seconds()}
        accuracy = self.evaluated[1] if self.evaluated is not None and self.evaluated[0] == step else None
        self.checkpoints.save(self.executor.copy_state(state), progress, accuracy)

    def _record(self, record: Record) -> None:
        if self.folder is not None:
            self.folder.append(record)
        if self.tensorboard is not None:
            self.tensorboard.add(record)
        self.reporter.record(record)

    def seconds(self) -> float:
        """Spent on this run so far, in all its starts, as far as checkpoints tell; of what several share, its part."""
        return self.seconds_before + (time.perf_counter() - self.since) / self.sharing

    def finish(self, step: int, trained_now: bool) -> Record:
        """Waits for what is being written, draws the curve, and returns `fit`'s result."""
        self.checkpoints.wait()
        self.reporter.stop()
        if self.tensorboard is not None:
            self.tensorboard.close()
        history = read_history(self.path)
        if self.folder is not None:
            try:
                draw_learning_curve(history, self.task.config.name, self.path / CURVE)
            except OSError as error:
                raise not_written(self.path / CURVE, error) from None
        trained = [record for record in history if record["kind"] == "train"]
        evaluated = [record for record in history if record["kind"] == "eval"]
        finished = step >= self.task.total_steps
        if not finished:
            self.reporter.message(f"stopped and saved at step {step}; the same command continues")
        result: Record = {
            "run_dir": str(self.path),
            "finished": finished,
            "step": step,
            "examples": step * self.task.config.data.batch_size,
            "loss": evaluated[-1]["loss"] if evaluated else None,
            "accuracy": evaluated[-1]["accuracy"] if evaluated else None,
            "best_accuracy": max((record["accuracy"] for record in evaluated), default=None),
            "train_loss": trained[-1]["loss"] if trained else None,
            "train_accuracy": trained[-1]["accuracy"] if trained else None,
            "seconds": self.seconds(),
        }
        if evaluated and "mean_iou" in evaluated[-1]:
            result["mean_iou"] = evaluated[-1]["mean_iou"]
        # A run that was killed between its last checkpoint and this has none, or that of an earlier stop.
        if self.folder is not None and (trained_now or self.folder.result_step() != step):
            self.folder.write(RESULT, result)
        return result


def due_at(task: Task, step: int) -> tuple[bool, bool, bool]:
    """Whether metrics are logged, the held-out set is evaluated and the state is saved after a step."""
    config, last = task.config, step == task.total_steps
    every = (config.log.every, config.eval.every, config.checkpoint.every)
    steps = (each.to_steps(task.steps_per_epoch, config.data.batch_size) if each else None for each in every)
    log, evaluation, save = (last or (each is not None and step % each == 0) for each in steps)
    return log, evaluation, save


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
        except CnnjaxError as error:
            if executor.process_count == 1:
                raise
            failure = str(error)
    agree(failure)
    return folder, changes
