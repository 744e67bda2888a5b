"""What the way over devices costs where there is one device: the executor's step beside a plain `jax.jit`, in turns."""

import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import jax

from cnnjax.bench.pages import Row, add_row
from cnnjax.config import Config
from cnnjax.data.loader import Shard, TrainBatches
from cnnjax.data.sources import load
from cnnjax.ops.onednn import compiler_options
from cnnjax.parallel import make_executor
from cnnjax.train.step import BatchAxis
from cnnjax.train.task import DataFacts, make_task

Turn = Callable[[int], float]


def measure_parallel(config: Config, steps: int = 5, rounds: int = 200) -> dict[str, Any]:
    """Times the training step on one device: the parallel executor's, and the same function under `jax.jit` alone.

    Each step takes a batch from the host's memory, put on the device by either in its own way. A round is a turn of
    `steps` steps of each; which begins alternates. A turn ends when its last step is done.

    Returns:
        `plain_seconds` and `parallel_seconds` of a step, medians of the turns; `ratio`, the median of the rounds' own
        ratios, parallel by plain, with its 95 % `interval`; `load`: the machine's average load in the minute before
        and at the end, this benchmark's own included.
    """
    config = config.model_copy(
        update={
            "parallel": config.parallel.model_copy(update={"devices": 1}),
            "train": config.train.model_copy(update={"profile": None}),
        }
    )
    load_before = os.getloadavg()[0]
    turns = _turns(config)
    names = list(turns)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            seconds[name].append(turns[name](steps) / steps)
    ratios = [ours / plain for ours, plain in zip(seconds["parallel"], seconds["plain"], strict=True)]
    return {
        "model": config.model.name,
        "batch_size": config.data.batch_size,
        "executor": config.parallel.executor,
        "backend": jax.default_backend(),
        "steps": steps,
        "rounds": rounds,
        **{f"{name}_seconds": statistics.median(each) for name, each in seconds.items()},
        "ratio": statistics.median(ratios),
        "interval": _interval_of_median(ratios),
        "load": [load_before, os.getloadavg()[0]],
    }


def _turns(config: Config) -> dict[str, Turn]:
    executor, data = make_executor(config), load(config.data)
    batch = TrainBatches(data.train, batch_size=config.data.batch_size, seed=0, shard=Shard(), crop=config.data.crop)[0]
    written_out = jax.default_backend() == "cpu"

    def step_over(axis: BatchAxis) -> tuple[Callable[..., Any], Any]:
        task = make_task(
            config, DataFacts.of(data), axis=axis, lowering=executor.lowering, unroll_accumulation=written_out
        )
        return task.train_steps[0], task.init_state()

    plain_step, plain_state = step_over(BatchAxis())
    options = compiler_options(executor.lowering, jax.default_backend())
    plain = jax.jit(plain_step, donate_argnums=0, compiler_options=options)
    step, state = step_over(executor.axis)
    return {
        "plain": _turn(plain, jax.device_put(plain_state), batch, jax.device_put),
        "parallel": _turn(executor.compile_train(step), executor.put_state(state), batch, executor.put_batch),
    }


def _turn(step: Callable[..., Any], state: Any, batch: Any, put: Callable[[Any], Any]) -> Turn:
    def turn(steps: int) -> float:
        nonlocal state
        start = perf_counter()
        for _ in range(steps):
            state, metrics = step(state, put(batch))
        jax.block_until_ready(metrics)
        return perf_counter() - start

    turn(2)  # the first compiles
    return turn


def _interval_of_median(values: Sequence[float]) -> list[float]:
    """The values between which the true median lies 95 times of 100, by how many lie on either side of it."""
    ordered, half, spread = sorted(values), len(values) / 2, 0.98 * math.sqrt(len(values))
    return [
        ordered[max(0, math.floor(half - spread))],
        ordered[min(len(values) - 1, math.ceil(half + spread))],
    ]


def add_to_report(row: Row, folder: Path) -> Path:
    """Adds a measurement to a folder's page; an earlier one of the same step gives way.

    Raises:
        RunError: the folder cannot be written, or holds results that cannot be read.
    """
    return add_row(row, folder, _key, _page)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("model", "batch_size", "executor", "backend"))


def _page(rows: Sequence[Row], folder: Path) -> list[str]:
    del folder
    lines = [
        "# What does the way over devices cost on one device?",
        "",
        "The training step of the parallel executor on one device, beside the same function under `jax.jit` alone;",
        "each step takes a batch from the host's memory. They take turns; the ratio is the median of the rounds'",
        "ratios, with the 95 % interval of that median: above 1 the parallel way is slower. The load is the machine's",
        "average of the minute before and of the last one; where it is above the number of CPUs, others took some.",
        "",
        "| network | batch | executor | plain (ms) | parallel (ms) | ratio | 95 % interval | rounds of steps | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        before, after = row["load"]
        lines.append(
            f"| `{row['model']}` | {row['batch_size']} | {row['executor']}, {row['backend']} | "
            f"{1000 * row['plain_seconds']:.2f} | {1000 * row['parallel_seconds']:.2f} | {row['ratio']:.3f} | "
            f"{low:.3f} to {high:.3f} | {row['rounds']} of {row['steps']} | {before:.1f}, {after:.1f} |"
        )
    return lines
