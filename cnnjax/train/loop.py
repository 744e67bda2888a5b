"""The training loop: read it from top to bottom."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from cnnjax.config import Config
from cnnjax.data.examples import Datasets
from cnnjax.data.loader import Shard, TrainStream, train_batches
from cnnjax.errors import TrainingError
from cnnjax.parallel import Executor, broadcast, should_stop
from cnnjax.train.evaluation import LAG, evaluate_state
from cnnjax.train.figures import draw_learning_curve
from cnnjax.train.opening import HeldRun, begin, hold_run, prepare
from cnnjax.train.optimizer import describe_scaling
from cnnjax.train.profiling import profiling
from cnnjax.train.reporting import Clock, Reporter, Sums
from cnnjax.train.run_folder import (
    CURVE,
    RESULT,
    Record,
    default_run_dir,
    not_written,
    read_history,
)
from cnnjax.train.signals import termination
from cnnjax.train.state import TrainState
from cnnjax.train.task import Task
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
    with hold_run(task, executor, path, force=force, reporter=reporter) as held:
        try:
            yield Training(task, data, executor, held, reporter)
        finally:
            reporter.stop()


class Training:
    """One process's part in training one run folder."""

    def __init__(self, task: Task, data: Datasets, executor: Executor, held: HeldRun, reporter: Reporter) -> None:
        self.task, self.data, self.executor, self.held, self.reporter = task, data, executor, held, reporter
        self.path, self.folder, self.checkpoints, self.watch = held.path, held.folder, held.checkpoints, held.watch
        self.eval_step = self.watch.noting(executor.compile_eval(task.eval_step), "evaluating")
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
        compiled = [self.executor.compile_train(train_step) for train_step in task.train_steps]
        train_steps = [self.watch.noting(train_step, "training") for train_step in compiled]
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
                self.watch.note("reading data")
                with profile.annotate(step + 1):
                    batch = next(batches)
                    state, metrics = train_steps[task.phase_after(step)](state, batch)
                step += 1
                self.watch.began(step)
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
        begun = begin(self.task, self.executor, self.held, self.reporter)
        if begun.iterator is not None:
            batches.set_state(begun.iterator)
        self.interval, self.seconds_before, self.tensorboard = begun.interval, begun.seconds, begun.tensorboard
        return begun.state, begun.step

    def read_oldest(self, pending: deque[tuple[int, Any]]) -> None:
        """Takes the metrics that wait longest, and waits for the step that made them."""
        step, metrics = pending.popleft()
        self.note_metrics(step, self.executor.read_metrics(metrics))
        self.watch.note("training")

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
        self.watch.note("saving a checkpoint")
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
        self.watch.note("ending")
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
