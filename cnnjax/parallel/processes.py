"""The processes of a job: how they find one another and agree."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnjax.config_parallel import ParallelConfig
from cnnjax.errors import CnnjaxError, RunError, first_line
from cnnjax.parallel.clusters import Job, find_job
from cnnjax.parallel.last_words import end_process, speak_before_abort
from cnnjax.parallel.meeting import meet, numbered


def join_processes(config: ParallelConfig) -> None:
    """Joins the other processes of the job, where there are any; must come before anything touches a device.

    Raises:
        RunError: they have not all come within parallel.join_timeout, or they do not fit together.
    """
    if jax.distributed.is_initialized():
        return
    job = find_job(config)
    if job is None:
        return
    meet(job.coordinator, job.process_id, job.processes, config.join_timeout)
    speak_before_abort()
    with _no_longer_than(config.join_timeout, job):
        try:
            jax.distributed.initialize(
                job.coordinator,
                job.processes,
                job.process_id,
                local_device_ids=job.local_devices,
                cluster_detection_method="deactivate",
                initialization_timeout=int(config.join_timeout) + 60,  # after which it would abort
                # Whoever is lost is to be found by `watch`, which says who it was, and not by JAX, which aborts.
                heartbeat_timeout_seconds=int(config.lost_timeout) + 60,
            )
            jax.devices()  # the processes exchange what they have
        except (RuntimeError, ValueError) as error:
            raise RunError(
                f"process {job.process_id} of {job.processes} cannot join the others at {job.coordinator}: "
                f"{first_line(error)}; start all of them again"
            ) from error


@contextmanager
def _no_longer_than(seconds: float, job: Job) -> Iterator[None]:
    """Ends this process if what it surrounds, which nothing else can interrupt, takes longer."""
    sentence = (
        f"all {job.processes} processes came to {job.coordinator}, but JAX did not join them within {seconds:g} s "
        "(parallel.join_timeout): one of them has ended since, or cannot reach the others; start all of them again"
    )
    timer = threading.Timer(seconds, end_process, (sentence, 2))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def all_or_none() -> Iterator[None]:
    """Around what each process does by itself, before all go on together: where one fails, none goes on.

    Raises:
        RunError: another process has failed.
        CnnjaxError: this one's own failure, once the others know.
    """
    failure: CnnjaxError | None = None
    try:
        yield
    except CnnjaxError as error:
        failure = error
    failed = [failure is not None]
    if jax.process_count() > 1:
        failed = list(multihost_utils.process_allgather(np.asarray(failure is not None)))
    if failure is not None:
        raise failure
    if any(failed):
        raise RunError(f"{numbered(list(np.flatnonzero(failed)))} of this job cannot begin; see what it said itself")


def agree(failure: str | None) -> None:
    """Raises RunError in every process if process 0 brings a failure; a lone process simply raises its own."""
    if broadcast(int(failure is not None)):
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
