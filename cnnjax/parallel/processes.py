"""The processes of a job: how they find one another and agree."""

import os
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnjax.config import ParallelConfig
from cnnjax.errors import RunError

# Environment variables by which a cluster tells the number of processes; jax.distributed finds the rest by itself.
_PROCESS_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_PROCESSES")
_WORKER_LISTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")


def join_processes(config: ParallelConfig) -> None:
    """Joins the other processes of the job, where there are any; must come before anything touches a device.

    Raises:
        RunError: the coordinator cannot be reached.
    """
    if jax.distributed.is_initialized() or config.distributed == "off":
        return
    given = config.coordinator is not None
    if not given and config.distributed == "auto" and not cluster_has_several(os.environ):
        return
    try:
        if given:
            jax.distributed.initialize(config.coordinator, config.processes, config.process_id)
        else:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"cannot join the job's processes: {error}; give parallel.coordinator, parallel.processes and "
            "parallel.process_id, or set parallel.distributed=off for a single process"
        ) from error


def cluster_has_several(environment: Mapping[str, str]) -> bool:
    """Whether a cluster's environment variables speak of more than one process."""
    counts = [environment.get(name, "") for name in _PROCESS_COUNTS]
    workers = [environment.get(name, "").split(",") for name in _WORKER_LISTS]
    return any(count.isdigit() and int(count) > 1 for count in counts) or any(len(names) > 1 for names in workers)


def agree(failure: str | None) -> None:
    """Raises RunError in every process if process 0 brings a failure; a lone process simply raises its own."""
    failed = failure is not None
    if jax.process_count() > 1:
        failed = bool(multihost_utils.broadcast_one_to_all(np.asarray(failed)))
    if failed:
        raise RunError(failure or "process 0 of this job cannot use the run folder; its own message says why")


def everywhere(done: bool) -> bool:
    """Whether all processes bring True."""
    if jax.process_count() == 1:
        return done
    return bool(np.all(multihost_utils.process_allgather(np.asarray(done))))


def broadcast(value: int) -> int:
    """Process 0's number in every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.asarray(value, np.int32)))


def is_first() -> bool:
    """Whether this is the process that writes what all share, and speaks for them."""
    return jax.process_index() == 0


def first_says(ask: Callable[[], bool]) -> bool:
    """The first process's answer, in every process; the others do not ask."""
    return bool(broadcast(int(is_first() and ask())))


def should_stop(asked: bool, step: int) -> bool:
    """Whether to stop after this step: the same answer in every process, once any of them was told to."""
    if jax.process_count() == 1:
        return asked
    return multihost_utils.reached_preemption_sync_point(step)
