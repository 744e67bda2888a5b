"""What a cluster's environment tells of the job: TPU pods, GKE, SLURM, Open MPI, and JAX's own variables."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cnnjax.config_parallel import ParallelConfig
from cnnjax.errors import CnnjaxWarning, RunError, first_line

# Environment variables by which a cluster tells the number of processes, or of slices of a TPU.
_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_PROCESSES", "MEGASCALE_NUM_SLICES")
_WORKER_LISTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")


class Job(NamedTuple):
    """This process's place in its job."""

    coordinator: str
    """host:port of process 0."""
    processes: int
    process_id: int
    local_devices: Sequence[int] | None
    """Which of this host's GPUs are this process's; None for all devices."""


def cluster_has_several(environment: Mapping[str, str]) -> bool:
    """Whether a cluster's environment variables speak of more than one process."""
    counts = [environment.get(name, "") for name in _COUNTS]
    workers = [environment.get(name, "").split(",") for name in _WORKER_LISTS]
    if "TPU_PROCESS_ADDRESSES_PATH" in environment:  # a file of them; how many is for JAX to read
        return True
    return any(count.isdigit() and int(count) > 1 for count in counts) or any(len(names) > 1 for names in workers)


def find_job(config: ParallelConfig) -> Job | None:
    """The job that the config names, or the environment; None where it is a single process's.

    Raises:
        RunError: there are several processes, or must be, and the environment does not tell all that is needed.
    """
    if config.distributed == "off":
        return None
    if config.coordinator is not None or config.distributed == "on" or cluster_has_several(os.environ):
        return _detect(config)
    if not _is_cloud_tpu():
        return None
    # Such a machine's variables may say nothing of the others; then its metadata does, which JAX asks.
    try:
        return _detect(config)
    except RunError as error:
        warnings.warn(f"{error}; going on as a single process", CnnjaxWarning, stacklevel=2)
        return None


def _is_cloud_tpu() -> bool:
    from jax._src import cloud_tpu_init

    return bool(cloud_tpu_init.running_in_cloud_tpu_vm) and not os.environ.get("TPU_SKIP_MDS_QUERY")


def _detect(config: ParallelConfig) -> Job | None:
    # jax.distributed.initialize does the same with it, but only ever tells what it found to itself.
    from jax._src import clusters

    count, index = (_number(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    local = os.environ.get("JAX_LOCAL_DEVICE_IDS")
    try:
        coordinator, processes, process_id, devices = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            config.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"),
            config.processes if config.processes is not None else count,
            config.process_id if config.process_id is not None else index,
            [int(each) for each in local.split(",")] if local else None,
            None,
            int(config.join_timeout),
        )
    except Exception as error:  # whatever a variable that is missing or misspelt makes of its parsing, or no network
        what = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        raise RunError(f"the cluster's environment cannot be understood ({what}); {_ADVICE}") from None
    if processes == 1 and config.distributed == "auto":
        return None
    if coordinator is None or processes is None or process_id is None:
        raise RunError(f"{_told()}; {_ADVICE}")
    return Job(coordinator, processes, process_id, devices)


_ADVICE = (
    "start each process by the cluster's own launcher (srun, mpirun), or give --coordinator HOST:PORT, --processes and "
    "--process-id, or set parallel.distributed=off for a single process"
)


def _told() -> str:
    told = [f"{name}={os.environ[name]}" for name in (*_COUNTS, *_WORKER_LISTS) if name in os.environ]
    if not told:
        return "parallel.distributed is on, and the environment tells of no other processes"
    return f"the environment tells of several processes ({', '.join(told)}), but not which of them this is, and where 0"


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isdigit():
        raise RunError(f"{name}: expected a whole number, got '{text}'")
    return int(text)
