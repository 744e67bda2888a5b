"""A study cut into jobs, of this machine or of SLURM, through submitit. Imports no JAX: a job starts it for itself."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from cnnjax.config_files import parse_yaml
from cnnjax.errors import ConfigError, RunError
from cnnjax.study.arms import Arm
from cnnjax.study.question import Study

LOGS = "jobs"
# submitit's own default of five minutes would end most studies.
_MINUTES = 3 * 24 * 60


def launch(
    study: Study,
    arms: Sequence[Arm],
    folder: Path,
    launcher: Literal["local", "slurm"],
    jobs: int,
    options: Sequence[str] = (),
    retry_failed: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Starts a job for each of `jobs` parts of a study; waits for those of this machine, which share its CPUs evenly.

    Args:
        folder: holds the runs' folders, where all jobs see it; the jobs' logs go into a folder in it.
        options: `name=value`, for submitit's `update_parameters`.

    Raises:
        ConfigError: submitit is not installed, or does not know an option.
        RunError: a job of this machine failed, or there is no SLURM here.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError(
            "--launcher: needs the extra `slurm`; install it with \"pip install 'cnnjax[slurm]'\""
        ) from None
    given: dict[str, Any] = {"timeout_min": _MINUTES, "name": study.name}
    for option in options:
        name, separator, value = option.partition("=")
        if not separator:
            raise ConfigError(f"--job-option: expected name=value, such as slurm_partition=gpu, got '{option}'")
        given[name] = parse_yaml(value, f"--job-option {name}")
    try:
        executor = submitit.AutoExecutor(folder=folder / LOGS, cluster=launcher)
        executor.update_parameters(**given)
    except (NameError, TypeError, AssertionError, ValueError) as error:
        raise ConfigError(f"--job-option: {str(error).splitlines()[0]}") from None
    except RuntimeError as error:
        raise RunError(f"--launcher {launcher}: {error}") from None
    shares = _shares(sorted(os.sched_getaffinity(0)), jobs) if launcher == "local" else [None] * jobs
    started = [
        executor.submit(work, study, list(arms), folder.resolve(), index + 1, jobs, retry_failed, share, sys.argv)
        for index, share in enumerate(shares)
    ]
    say(f"started {jobs} jobs ({', '.join(job.job_id for job in started)}); their logs are in {folder / LOGS}")
    if launcher == "slurm":
        say("'cnnjax study status' shows how far they are")
        return
    for job in started:
        failure = job.exception()
        if failure is not None:
            raise RunError(f"job {job.job_id} failed, see {job.paths.stderr}: {str(failure).strip().splitlines()[-1]}")


def work(
    study: Study,
    arms: list[Arm],
    folder: Path,
    index: int,
    count: int,
    retry_failed: bool,
    cpus: Sequence[int] | None,
    command: list[str],
) -> None:
    """One job's part.

    Args:
        cpus: those that it may use, None for all that it is given.
        command: what was called to start the jobs, for the runs' records.
    """
    sys.argv = command
    if cpus is not None:
        os.sched_setaffinity(0, cpus)  # before JAX starts as many threads as there are
    from cnnjax.malloc import keep_freed_memory
    from cnnjax.study.runs import Shard, run_study

    keep_freed_memory()
    run_study(study, arms, folder, shard=Shard(index, count), retry_failed=retry_failed)


def _shares(cpus: Sequence[int], jobs: int) -> list[Sequence[int] | None]:
    """Each job's CPUs: an even part of them, or all of them where there are more jobs than CPUs."""
    if jobs > len(cpus):
        return [None] * jobs
    size = len(cpus) // jobs
    return [cpus[job * size : (job + 1) * size] for job in range(jobs)]
