"""Evaluation: exact over the whole held-out set, on any number of devices."""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnjax.checkpoint import Checkpoints
from cnnjax.config import Config
from cnnjax.config_parallel import ParallelConfig
from cnnjax.data.examples import Datasets, Examples
from cnnjax.data.loader import Shard, eval_batches
from cnnjax.data.sources import load
from cnnjax.errors import CnnjaxWarning, DataError, RunError
from cnnjax.parallel import Executor, join_processes, make_eval_executor
from cnnjax.train.reporting import Sums
from cnnjax.train.run_folder import CHECKPOINTS, DATA, Record, read_config, read_facts
from cnnjax.train.state import TrainState
from cnnjax.train.step import EvalStep
from cnnjax.train.task import DataFacts, Task, make_task

# The host reads a step's metrics this many steps later, so that it never waits for the step it has just started.
LAG = 2


def evaluate(run_dir: str | Path, *, checkpoint: str | int = "last") -> Record:
    """Evaluates a run's weights on its held-out set.

    Args:
        checkpoint: "last", "best" or a step.

    Returns:
        run_dir, step, examples, weights ("ema" where the run keeps averages), loss, accuracy, and
        accuracy_interval: Wilson's 95 % interval, the uncertainty that the number of held-out examples leaves. Of a
        segmentation, whose pixels are not independent, mean_iou and class_iou (in the order of the classes) instead.
    """
    return Evaluation.open(run_dir, checkpoint).evaluate()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A run's weights bound to its data and to this job's devices."""

    run_dir: Path
    task: Task
    data: Datasets
    executor: Executor
    state: TrainState
    """On the host."""

    @classmethod
    def open(cls, run_dir: str | Path, checkpoint: str | int = "last") -> "Evaluation":
        """Loads the data and the weights.

        Raises:
            RunError: the run or the checkpoint cannot be read, or the data is not what it was trained on.
            DataError: the data cannot be read.
        """
        run_dir = Path(run_dir)
        config = read_config(run_dir)
        join_processes(ParallelConfig())  # those of this job, not those that trained
        executor = make_eval_executor(config)
        data, facts = load(config.data), read_facts(run_dir)
        if DataFacts.of(data) != facts:
            raise RunError(f"the data is not what {run_dir} was trained on (see its {DATA}); restore it to evaluate")
        task = make_task(config, facts, axis=executor.axis, lowering=executor.lowering)
        return cls(run_dir, task, data, executor, load_state(run_dir, task, checkpoint))

    def evaluate(self) -> Record:
        """What the function `evaluate` returns."""
        eval_step, state = self.executor.compile_eval(self.task.eval_step), self.executor.put_state(self.state)
        step = int(self.state.step)
        record = evaluate_state(self.task.config, self.data.test, self.executor, eval_step, state, step)[-1]
        if self.task.facts.segmentation:
            return {"run_dir": str(self.run_dir), **record}
        from scipy import stats  # takes a third of the time in which a command starts

        correct = round(record["accuracy"] * record["examples"])
        low, high = stats.binomtest(correct, record["examples"]).proportion_ci(method="wilson")
        return {"run_dir": str(self.run_dir), **record, "accuracy_interval": [float(low), float(high)]}


def load_state(run_dir: Path, task: Task, checkpoint: str | int = "last") -> TrainState:
    """The state of one of a run's checkpoints ("last", "best" or a step).

    Where the last one cannot be read, a CnnjaxWarning says so, and it is that of the one before.
    """
    if not (run_dir / CHECKPOINTS).is_dir():
        raise RunError(f"{run_dir} has no checkpoint yet; train it first")
    checkpoints = Checkpoints(run_dir / CHECKPOINTS, task.config.checkpoint, read_only=True)
    try:
        known = checkpoints.steps()
        step = checkpoints.best() if checkpoint == "best" else None if checkpoint == "last" else int(checkpoint)
        if checkpoint == "best" and step is None and known:
            raise RunError(f"{run_dir} has no best checkpoint: none was evaluated when it was saved; take the last")
        if step is not None and step not in known:
            raise RunError(f"{run_dir} has no checkpoint of step {step}; it has {', '.join(map(str, known)) or 'none'}")
        restored = checkpoints.restore(task.init_state(), step)
    finally:
        checkpoints.close()
    if restored is None:
        raise RunError(f"{run_dir} has no checkpoint yet; train it first")
    for warning in restored.warnings:
        warnings.warn(f"{warning}; taking the one before, of step {restored.step}", CnnjaxWarning, stacklevel=2)
    return restored.state


def evaluate_state(
    config: Config, examples: Examples, executor: Executor, eval_step: EvalStep, state: TrainState, step: int
) -> list[Record]:
    """One record for the weights as trained, and a last one for their moving average if there is one.

    Raises:
        DataError: a file cannot be read; or none can, where those are left out.
    """
    shard = Shard(executor.process_index, executor.process_count)
    candidates = [("raw", state.params, state.batch_stats)]
    if state.ema is not None:
        candidates.append(("ema", state.ema["params"], state.ema["batch_stats"]))
    records = []
    for weights, params, batch_stats in candidates:
        sums = Sums()
        batches = eval_batches(examples, batch_size=config.eval.batch_size, shard=shard, put=executor.put_batch)
        for metrics in _behind(eval_step(params, batch_stats, batch) for batch in batches):
            sums.add(executor.read_metrics(metrics))
        if not sums.count("loss"):
            raise DataError(f"none of the {len(examples)} held-out images can be read")
        record = {"step": step, "weights": weights, "examples": sums.count("loss"), **sums.means()}
        if skipped := len(examples) - sums.count("loss"):
            record["skipped"] = skipped
        if of_classes := sums.class_iou():
            record["class_iou"] = of_classes
        records.append(record)
    return records


def _behind(items: Iterable[Any]) -> Iterator[Any]:
    """The items in order, each once LAG more have been started."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > LAG:
            yield waiting.popleft()
    yield from waiting
