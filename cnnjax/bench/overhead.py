"""How much of training's wall time is the compiled step, and how much everything around it."""

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from cnnjax.config import Config
from cnnjax.config_files import check, merge, to_tree
from cnnjax.data.loader import Shard, train_batches
from cnnjax.data.sources import load
from cnnjax.parallel import Executor, make_executor
from cnnjax.train.loop import train_task
from cnnjax.train.metrics import Batch
from cnnjax.train.reporting import Reporter
from cnnjax.train.step import TrainStep
from cnnjax.train.task import DataFacts, Task, make_task


@dataclass(frozen=True)
class _WatchedExecutor(Executor):
    """Notes when each step begins and when its result is there; waiting for it hides no work of the host."""

    spans: list[tuple[float, float]] = field(default_factory=list)

    def compile_train(self, step: TrainStep) -> TrainStep:
        compiled = super().compile_train(step)

        def watched(state: Any, batch: Batch) -> Any:
            start = time.perf_counter()
            result = jax.block_until_ready(compiled(state, batch))
            self.spans.append((start, time.perf_counter()))
            return result

        return watched


def measure_overhead(config: Config, steps: int = 300) -> dict[str, Any]:
    """Trains for a number of steps with the real loop and without it, evaluation and checkpoints left out.

    Returns:
        `inside`: share of the loop's wall time in the compiled step, when the loop waits for each step (a lower bound,
        as it usually works while the step runs). `loop_images_per_second` and `step_images_per_second`: of the loop as
        it is, and of the bare step on a batch that lies on the device; `ratio` is the first over the second, the
        median of three rounds, made in turn.
    """
    config = _only_training(config, steps)
    executor = make_executor(config)
    data = load(config.data)
    task = make_task(config, DataFacts.of(data), axis=executor.axis, lowering=executor.lowering)
    watched = _WatchedExecutor(executor.kind, executor.mesh, executor.lowering)
    _train(task, data, watched)
    spans = watched.spans[1:]  # the first one compiles
    inside = sum(end - start for start, end in spans) / (spans[-1][1] - watched.spans[0][1])

    rounds = []
    for _ in range(3):
        bare = _bare_rate(task, data, executor, steps)
        reporter = _Rates()
        _train(task, data, executor, reporter)
        # The first interval holds the compilation's echo: threads starting, caches filling.
        rounds.append((statistics.median(reporter.rates[1:]), bare))
    loop, bare = sorted(rounds, key=lambda pair: pair[0] / pair[1])[1]
    return {
        "model": config.model.name,
        "batch_size": config.data.batch_size,
        "steps": steps,
        "inside": inside,
        "loop_images_per_second": loop,
        "step_images_per_second": bare,
        "ratio": loop / bare,
    }


def loop_rate(config: Config, steps: int) -> float:
    """Images per second of the training loop as it is, evaluation and checkpoints left out: the median of intervals."""
    config = _only_training(config, steps)
    executor, reporter, data = make_executor(config), _Rates(), load(config.data)
    task = make_task(config, DataFacts.of(data), axis=executor.axis, lowering=executor.lowering)
    _train(task, data, executor, reporter)
    return statistics.median(reporter.rates[1:])


def _only_training(config: Config, steps: int) -> Config:
    tree = merge(
        to_tree(config),
        {
            "train": {"duration": {"steps": steps}, "profile": None},
            "schedule": {"warmup": None, "warmup_from": "zero"},
            "eval": {"every": None},
            "checkpoint": {"every": {"steps": steps}},
            "log": {"every": {"steps": max(1, steps // 4)}},
        },
    )
    return check(_without_nulls(tree))


class _Rates(Reporter):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def record(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "train" and record["images_per_second"] is not None:
            self.rates.append(record["images_per_second"])


def _train(task: Task, data: Any, executor: Executor, reporter: Reporter | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train_task(task, data, executor, Path(folder) / "run", force=False, reporter=reporter or Reporter())


def _bare_rate(task: Task, data: Any, executor: Executor, steps: int) -> float:
    batch_size = task.config.data.batch_size
    batches = train_batches(
        data.train, batch_size=batch_size, seed=0, shard=Shard(), put=executor.put_batch, prefetch=0
    )
    step, state, batch = (
        executor.compile_train(task.train_steps[0]),
        executor.put_state(task.init_state()),
        next(batches),
    )
    state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    start = time.perf_counter()
    for _ in range(steps):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    return steps * batch_size / (time.perf_counter() - start)


def _without_nulls(tree: Mapping[str, Any]) -> dict[str, Any]:
    # Nulls are the defaults but for eval.every, which must stay.
    cleaned = {name: _without_nulls(value) if isinstance(value, Mapping) else value for name, value in tree.items()}
    return {name: value for name, value in cleaned.items() if value is not None or name == "every"}
