"""A trace of some training steps, which TensorBoard and XProf open."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jax

from cnnjax.config import Profile
from cnnjax.errors import RunError
from cnnjax.parallel import agree
from cnnjax.train.reporting import Reporter
from cnnjax.train.run_folder import not_written

PROFILE = "profile"
_STEP = "train"


class StepProfile:
    """Traces one span of steps, from the first one's start until the devices have done the last one's work."""

    def __init__(self, wanted: Profile | None, folder: Path, reporter: Reporter) -> None:
        self._wanted, self._folder, self._reporter = wanted, folder, reporter
        self._latest: int | None = None  # of the steps in a trace that is being made

    def annotate(self, step: int) -> AbstractContextManager[Any]:
        """Around the making of step number `step`, the data's way to it included; begins the trace where it is due.

        Raises:
            RunError: this process is being profiled already.
        """
        if self._wanted is not None and step == self._wanted.first:
            try:
                jax.profiler.start_trace(self._folder)
            except RuntimeError as error:
                raise RunError(f"train.profile: {error}; profile one thing at a time, or set it to null") from None
            self._latest = step
        if self._latest is None:
            return nullcontext()
        self._latest = step
        return jax.profiler.StepTraceAnnotation(_STEP, step_num=step)

    def end(self, step: int, metrics: Any) -> bool:
        """Whether the trace ends with that step; then waits for its `metrics` and writes it. RunError if it cannot."""
        if self._latest is None or self._wanted is None or step < self._wanted.last:
            return False
        jax.block_until_ready(metrics)
        self.stop()
        return True

    def stop(self) -> None:
        """Writes what there is of a trace, if one is being made; RunError where it cannot be written."""
        if self._latest is None or self._wanted is None:
            return
        latest, self._latest = self._latest, None
        try:
            jax.profiler.stop_trace()
        except RuntimeError as error:
            raise RunError(f"the profile cannot be written into {self._folder}: {error}") from None
        self._reporter.message(f"the profile of steps {self._wanted.first} to {latest} is in {self._folder}")


@contextmanager
def profiling(wanted: Profile | None, run_dir: Path, after: int, reporter: Reporter) -> Iterator[StepProfile]:
    """A profile of the steps that are wanted, in a folder of the run; nothing where the first of them is made already.

    Process 0 alone makes it, of its own devices: the others do the same work, and often share a file system and a name.
    A run that is stopped before the last step has a trace of those that were made.

    Args:
        after: the step that the run is at.

    Raises:
        RunError: in every process, before a step is made, where the folder cannot be written.
    """
    folder, failure = run_dir / PROFILE, None
    due = wanted is not None and wanted.first > after
    if due and jax.process_index() == 0:
        try:
            folder.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            failure = f"train.profile: {not_written(folder, error)}"
    if due:
        agree(failure)
    profile = StepProfile(wanted if due and jax.process_index() == 0 else None, folder, reporter)
    try:
        yield profile
    finally:
        profile.stop()
