"""A config's train and evaluation steps, compiled for devices that need not be here, and what the programs tell."""

import re
import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from cnnjax.aot.collectives import Collectives, find_collectives
from cnnjax.aot.padding import Padding, find_padding
from cnnjax.config import Config
from cnnjax.errors import RunError
from cnnjax.parallel import Executor
from cnnjax.train.task import DataFacts, Task, make_task

_UNITS = {None: 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# As libtpu has it now, and as it had it before.
_TOO_LARGE = (
    re.compile(r"\((?P<used>[\d.]+)(?P<unit>[KMGT])?\) exceeds available HBM \((?P<size>[\d.]+)(?P<of>[KMGT])?\)"),
    re.compile(r"Used (?P<used>[\d.]+)(?P<unit>[KMGT])? of (?P<size>[\d.]+)(?P<of>[KMGT])? hbm"),
)


@dataclass(frozen=True)
class Memory:
    """Bytes of one device."""

    arguments: int
    """The state and the batch."""
    outputs: int
    aliased: int
    """Outputs that take the place of arguments, as the new state does of the old one."""
    temporaries: int
    code: int
    peak: int
    """All that is there at once at most."""


@dataclass(frozen=True)
class Program:
    """One compiled step; what only a compiler knows is None where it was lowered alone."""

    memory: Memory | None
    collectives: list[Collectives] | None
    flops: float | None
    """Of one device, as XLA counts them."""
    bytes_accessed: float | None
    """Between one device and its memory, as XLA counts them."""
    padding: Padding | None
    operations: int
    """Lines of the program."""
    lower_seconds: float
    compile_seconds: float | None


@dataclass(frozen=True)
class TooLarge:
    """A step that the compiler refused: it needs more memory than a device has."""

    needed: int
    available: int
    """Bytes that the compiler may use; a little less than the device has."""
    compile_seconds: float


def bind(config: Config, facts: DataFacts, executor: Executor) -> Task:
    """The task as it would train on those devices."""
    return make_task(config, facts, axis=executor.axis, lowering=executor.lowering)


def compile_train(task: Task, executor: Executor, *, lowered_for: str | None = None) -> Program | TooLarge:
    """The step of the first phase.

    Args:
        lowered_for: a platform that it is only lowered for, since its compiler needs the devices.
    """
    batch = _batch(task, task.config.data.batch_size) | {
        name: jax.ShapeDtypeStruct((task.config.data.batch_size,), np.int32) for name in ("epoch", "index")
    }
    step = executor.compile_train(task.train_steps[0])
    return _compile(step, lowered_for, executor.state_shapes(task.initialize.shapes()), executor.batch_shapes(batch))


def compile_eval(task: Task, executor: Executor, *, lowered_for: str | None = None) -> Program | TooLarge:
    """The step of evaluation; see `compile_train`."""
    state = executor.state_shapes(task.initialize.shapes())
    batch = executor.batch_shapes(_batch(task, task.config.eval.batch_size))
    return _compile(executor.compile_eval(task.eval_step), lowered_for, state.params, state.batch_stats, batch)


def _batch(task: Task, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    height, width, channels = task.facts.input_shape
    labels = (size, height, width) if task.facts.segmentation else (size,)
    return {
        "image": jax.ShapeDtypeStruct((size, height, width, channels), np.uint8),
        "label": jax.ShapeDtypeStruct(labels, np.int32),
        "mask": jax.ShapeDtypeStruct((size,), np.float32),
    }


def _compile(step: Any, lowered_for: str | None, *arguments: Any) -> Program | TooLarge:
    start = time.perf_counter()
    if lowered_for is not None:
        lowered = step.trace(*arguments).lower(lowering_platforms=(lowered_for,))
        seconds = time.perf_counter() - start
        return Program(None, None, None, None, None, _count_operations(lowered.as_text()), seconds, None)
    lowered = step.lower(*arguments)
    middle = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return _too_large(str(error), time.perf_counter() - middle)
    end = time.perf_counter()
    text, costs = compiled.as_text(), compiled.cost_analysis() or {}
    return Program(
        memory=_memory(compiled.memory_analysis()),
        collectives=find_collectives(text),
        flops=costs.get("flops", 0.0),
        bytes_accessed=costs.get("bytes accessed", 0.0),
        padding=find_padding(text),
        operations=_count_operations(text),
        lower_seconds=middle - start,
        compile_seconds=end - middle,
    )


def _count_operations(text: str) -> int:
    return sum(" = " in line for line in text.splitlines())


def _memory(found: Any) -> Memory:
    arguments, outputs = found.argument_size_in_bytes, found.output_size_in_bytes
    aliased, temporaries = found.alias_size_in_bytes, found.temp_size_in_bytes
    code = found.generated_code_size_in_bytes
    together = arguments + outputs - aliased + temporaries + code
    return Memory(arguments, outputs, aliased, temporaries, code, max(found.peak_memory_in_bytes, together))


def _too_large(message: str, seconds: float) -> TooLarge:
    found = next(filter(None, (pattern.search(message) for pattern in _TOO_LARGE)), None)
    if found is None:
        raise RunError(f"the compiler refused the step: {message.splitlines()[0]}")
    needed = float(found["used"]) * _UNITS[found["unit"]]
    available = float(found["size"]) * _UNITS[found["of"]]
    return TooLarge(round(needed), round(available), seconds)
