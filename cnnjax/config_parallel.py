"""The typed section on devices and processes. Imports no JAX."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cnnjax.config_base import Section

ShardState = Literal["none", "optimizer", "all"]


class ParallelConfig(Section):
    """On which devices, and how."""

    executor: Literal["jit", "pmap"] = "jit"
    devices: PositiveInt | None = None
    """How many of the devices, over all processes; null for all of them."""
    shard_state: ShardState = "none"
    """Which large arrays are cut into a part for each device, where each would have them whole: those that only the
    update reads (optimizer: its moments, and the weights' average), or all, parameters too; for large heads."""
    shard_from: PositiveInt = 2**20
    """Numbers that an array has at least to be cut; each one costs messages of its own."""
    distributed: Literal["auto", "on", "off"] = "auto"
    """Whether to join other processes: when the cluster's environment shows several, always, or never."""
    coordinator: str | None = None
    """host:port of process 0, where the environment does not tell."""
    processes: PositiveInt | None = None
    process_id: NonNegativeInt | None = None
    join_timeout: PositiveFloat = 300.0
    """Seconds within which all processes of a job must have come, or those that did end with a message."""
    lost_timeout: Annotated[float, Field(ge=1)] = 60.0
    """Seconds without a sign of life from a process of the job after which the others end with a message."""
    hang_timeout: PositiveFloat | None = 600.0
    """Seconds without any progress (a step, a batch of an evaluation) after which a job of several processes ends with
    a message; three times as many where programs are compiled and checkpoints are read. null: it may hang forever."""
    compilation_cache: Path | None = None
    """Folder in which compiled programs are kept, so that a run that goes on does not compile again; null: none, but
    for what the environment's JAX_COMPILATION_CACHE_DIR says."""

    @model_validator(mode="after")
    def _all_three_or_none(self) -> Self:
        given = [self.coordinator is not None, self.processes is not None, self.process_id is not None]
        if any(given) and not all(given):
            raise ValueError("expected coordinator, processes and process_id together, or none of them")
        if self.processes is not None and self.process_id is not None and self.process_id >= self.processes:
            raise ValueError(f"process_id {self.process_id} is not below processes {self.processes}")
        return self
