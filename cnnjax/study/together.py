"""Several seeds of one arm in one program: their states stacked, every step made for all of them at once.

Each seed keeps a run folder of its own, with the history and the checkpoints that it would have had alone, so that what
was begun together can be continued alone, and evaluated like any other run.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.config import Config
from cnnjax.data.examples import Datasets
from cnnjax.data.loader import Shard, TrainBatches, TrainStream, train_batches
from cnnjax.errors import TrainingError
from cnnjax.ops.onednn import compiler_options
from cnnjax.parallel import Executor, over_devices, put_stacked
from cnnjax.train.loop import Training, due_at, open_training
from cnnjax.train.reporting import Clock, Record, Reporter
from cnnjax.train.signals import termination
from cnnjax.train.state import TrainState
from cnnjax.train.task import Task

Way = Literal["vmap", "map", "devices"]
WAYS: tuple[Way, ...] = get_args(Way)
Timed = Literal["separate", "vmap", "map", "devices"]
TIMED: tuple[Timed, ...] = get_args(Timed)

Step = Callable[[TrainState, Any], tuple[TrainState, Any]]


def on_one_device(config: Config) -> Config:
    """The config with one device for a seed, whose program stacks seeds instead of spreading a batch."""
    return config.model_copy(update={"parallel": config.parallel.model_copy(update={"devices": 1, "executor": "jit"})})


def compile_together(task: Task, executor: Executor, way: Way, seeds: int) -> list[Step]:
    """The training step of each phase for stacked states and batches, whose leading axis is the seed.

    The states are donated.
    """

    def of_all(step: Step) -> Step:
        if way == "vmap":
            return jax.vmap(step)
        return _one_by_one(step) if way == "map" else over_devices(_one_by_one(step), devices_for(seeds))

    options = compiler_options(executor.lowering, jax.default_backend())
    return [jax.jit(of_all(step), donate_argnums=0, compiler_options=options) for step in task.train_steps]


def _one_by_one(step: Step) -> Step:
    """The step for stacked states and batches, one seed after the other in one program."""

    def of_all(states: TrainState, batches: Any) -> tuple[TrainState, Any]:
        # A loop's convolutions are many times slower on a CPU, neither oneDNN's nor threaded: there it is written out.
        written_out = jax.default_backend() == "cpu"
        _, results = lax.scan(lambda _, each: (None, step(*each)), None, (states, batches), unroll=written_out)
        new_states, metrics = results
        return new_states, metrics

    return of_all


def devices_for(seeds: int) -> int:
    """Over how many of the devices that many seeds can be spread evenly."""
    return math.gcd(seeds, len(jax.devices()))


def stack(trees: Sequence[Any], way: Way) -> Any:
    """Equal trees to one whose arrays have them along a new leading axis."""
    if way == "devices":
        stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)
        return put_stacked(stacked, devices_for(len(trees)))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def train_together(
    tasks: Sequence[Task], data: Datasets, executor: Executor, paths: Sequence[Path], way: Way, steps: Sequence[Step]
) -> list[Record | TrainingError] | None:
    """Trains runs that differ in their seed alone, each in its own folder.

    Args:
        tasks: of `on_one_device`; the executor is theirs.
        steps: what `compile_together` made for as many seeds.

    Returns:
        What `fit` would return for each, or why it failed; None if they are not at the same step, and so cannot be
        continued together.
    """
    config = tasks[0].config
    with ExitStack() as held:
        trainings = [
            held.enter_context(open_training(task, data, executor, path, force=False, reporter=Reporter()))
            for task, path in zip(tasks, paths, strict=True)
        ]
        batches = [
            held.enter_context(train_batches(
                data.train, batch_size=config.data.batch_size, seed=task.config.seed, shard=Shard(),
                prefetch=config.data.prefetch, workers=config.data.workers, crop=config.data.crop,
            ))
            for task in tasks
        ]  # fmt: skip
        for training in trainings:
            training.sharing = len(trainings)
        begun = [training.start_or_resume(own) for training, own in zip(trainings, batches, strict=True)]
        if len({step for _, step in begun}) > 1:
            return None
        group = _Group(trainings, batches, way, steps)
        return group.train(stack([state for state, _ in begun], way), begun[0][1])


@dataclass
class _Group:
    trainings: list[Training]
    batches: list[TrainStream]
    way: Way
    steps: Sequence[Step]
    """One for each phase."""

    def train(self, states: Any, step: int) -> list[Record | TrainingError]:
        """The loop of `Training.train`, for all of them; one that fails is left out of everything but the step."""
        task, first = self.trainings[0].task, step + 1
        failed: dict[int, TrainingError] = {}
        clock, stopping = Clock(step), False
        with termination() as asked:
            while step < task.total_steps and not stopping:
                batches = stack([next(own) for own in self.batches], self.way)
                states, metrics = self.steps[task.phase_after(step)](states, batches)
                step += 1
                stacked = jax.tree.map(np.asarray, metrics)
                log, evaluation, save = due_at(task, step)
                stopping = asked.is_set()  # once a step, or some would be saved and others not
                for index, training in enumerate(self.trainings):
                    if index in failed:
                        continue
                    try:
                        training.note_metrics(step, _own(stacked, index))
                        if log:
                            training.log(step, clock)
                        if evaluation:
                            training.evaluate(_take(states, index), step)
                        if save or stopping:
                            training.save(_take(states, index), step, self.batches[index].get_state())
                    except TrainingError as error:
                        failed[index] = error
        return [
            failed[index] if index in failed else training.finish(step, trained_now=step >= first)
            for index, training in enumerate(self.trainings)
        ]


def _own(metrics: Mapping[str, tuple[np.ndarray, np.ndarray]], index: int) -> dict[str, tuple[float, float]]:
    return {name: (float(total[index]), float(count[index])) for name, (total, count) in metrics.items()}


def _take(states: Any, index: int) -> Any:
    # To the first device, where the evaluation's program is.
    return jax.device_put(jax.tree.map(lambda leaf: leaf[index], states), jax.devices()[0])


@dataclass(frozen=True)
class Timing:
    """What one way costs for some seeds."""

    way: Timed
    compile_seconds: float
    step_seconds: float
    """For all seeds, the least of several."""

    def total(self, steps: int) -> float:
        """Seconds for that many steps of all seeds."""
        return self.compile_seconds + steps * self.step_seconds


def time_ways(task: Task, data: Datasets, executor: Executor, seeds: int, repeats: int = 5) -> list[Timing]:
    """Measures a step for several seeds in each way, in turns, the best of `repeats`; compilation by itself.

    Args:
        task: of `on_one_device`; the executor is its own.
    """
    tasks = [task.with_seed(seed) for seed in range(seeds)]
    batches = [
        TrainBatches(data.train, batch_size=task.config.data.batch_size, seed=seed, shard=Shard())[0]
        for seed in range(seeds)
    ]
    one = executor.compile_train(task.train_steps[0])

    def separate(states: Any, batches: Any) -> tuple[Any, Any]:
        results = [one(state, executor.put_batch(batch)) for state, batch in zip(states, batches, strict=True)]
        return [state for state, _ in results], [metrics for _, metrics in results]

    def begin(way: Timed) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        initial = [executor.copy_state(executor.put_state(each.init_state())) for each in tasks]
        if way == "separate":
            return initial, lambda states: separate(states, batches)
        together, stacked = compile_together(task, executor, way, seeds)[0], stack(batches, way)
        return stack(initial, way), lambda states: together(states, stacked)

    states: dict[Timed, Any] = {}
    steps: dict[Timed, Callable[[Any], tuple[Any, Any]]] = {}
    seconds: dict[Timed, list[float]] = {}
    for way in TIMED:
        states[way], steps[way] = begin(way)
        seconds[way] = [_timed(steps, states, way)]
    for _ in range(repeats):
        for way in TIMED:
            seconds[way].append(_timed(steps, states, way))
    return [Timing(way, max(0.0, each[0] - min(each)), min(each)) for way, each in seconds.items()]


def _timed(steps: Mapping[Timed, Callable[[Any], Any]], states: dict[Timed, Any], way: Timed) -> float:
    since = time.perf_counter()
    states[way], metrics = steps[way](states[way])
    jax.block_until_ready(metrics)
    return time.perf_counter() - since


def fastest(timings: Sequence[Timing], steps: int) -> Timed:
    """The way that needs the least for that many steps, compilation included."""
    return min(timings, key=lambda timing: timing.total(steps)).way
