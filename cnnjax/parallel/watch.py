"""Signs of life: each process of a job keeps a small file in the run folder, and looks at those of the others.

A process that is lost or hangs leaves the others waiting inside a collective, which nothing in this process can
interrupt; so a thread ends it, once it knows whom to name. It compares what it sees from one look to the next, never
the clocks of two machines, and does not count the time in which it was itself stopped.
"""

import json
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import jax

from cnnjax.config_parallel import ParallelConfig
from cnnjax.errors import CnnjaxError, first_line
from cnnjax.parallel.last_words import LOST, end_process, hold_aborts_back
from cnnjax.train.run_folder import not_written, write_whole

FOLDER = "processes"
_AT_START = ("starting", "compiling")
_PATIENCE_AT_START = 3
"""How many times parallel.hang_timeout these may take."""
_GRACE = 10.0
"""Seconds in which a process may still tell what failed itself before another's failure ends it."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass
class Sign:
    """What a process tells of itself."""

    index: int
    host: str
    pid: int
    doing: str = "starting"
    step: int = 0
    """Steps that it has begun."""
    state: Literal["running", "interrupted", "failed"] = "running"
    """interrupted: by an error of JAX's that may be another process's fault."""
    why: str = ""
    beats: int = 0
    """Grows with each progress."""
    looks: int = 0
    """Grows as long as its thread lives."""

    def __str__(self) -> str:
        return f"process {self.index} (host {self.host}, pid {self.pid})"


@dataclass
class _Seen:
    """Another process as far as this one knows: its last sign, and for how long that has been the same."""

    sign: Sign | None = None
    silent: float = 0.0
    failed: float = 0.0
    gone: bool = False
    """It has taken its file away, as they do in the end."""


@dataclass
class Watch:
    """A process's sign of life, and its eye on the others'; does nothing in a job of one.

    A context manager around everything between the opening and the end of a run.
    """

    run_dir: Path
    index: int
    count: int
    config: ParallelConfig
    last_checkpoint: Callable[[], int | None]
    warn: Callable[[str], None]
    """Told a sentence, at most once, where its own sign cannot be written."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._own = Sign(self.index, platform.node(), os.getpid())
        self._others = {index: _Seen() for index in range(self.count) if index != self.index}
        self._every = min(5.0, self.config.lost_timeout / 6)
        self._still, self._last_beats, self._unwritten = 0.0, 0, False
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)

    def note(self, doing: str) -> None:
        """Progress: this process now does something else, or the same once more.

        Args:
            doing: reads after "it was", such as "reading data".
        """
        self._own.doing = doing
        self._own.beats += 1

    def began(self, step: int) -> None:
        """So many steps have been begun."""
        self._own.step = step
        self._own.beats += 1

    def noting(self, function: _Function, doing: str) -> _Function:
        """The same function, with a note of each call; the first one compiles."""
        if self.count == 1:
            return function
        called = False

        def noted(*args: Any) -> Any:
            nonlocal called
            self.note(doing if called else "compiling")
            called = True
            return function(*args)

        return noted  # type: ignore[return-value]

    def __enter__(self) -> Self:
        if self.count > 1:
            self._write()
            hold_aborts_back(self.config.lost_timeout + 3 * self._every + _GRACE)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.count == 1:
            return
        if _comes_from_jax(error):
            # As a rule another process is gone, and the thread ends this one when it knows which.
            self._own.state = "interrupted"
            time.sleep(self.config.lost_timeout + 2 * self._every)
        if error is not None:
            self._own.state, self._own.why = "failed", first_line(error)
            self._write()
            code = 2 if isinstance(error, CnnjaxError) else 130 if isinstance(error, KeyboardInterrupt) else 1
            threading.Thread(target=self._leave, args=(code,), name="leave", daemon=True).start()
            return
        self._stop.set()
        self._thread.join()
        hold_aborts_back(0.0)
        self._path(self.index).unlink(missing_ok=True)
        with suppress(OSError):  # not empty, but for the last of them
            (self.run_dir / FOLDER).rmdir()

    def _leave(self, code: int) -> None:
        """Ends this process once its main thread has told its error and ended.

        JAX would wait for the others then, which are in the middle of a step and do not come.
        """
        while threading.main_thread().is_alive():
            time.sleep(0.1)
        self._stay_for_the_others(2 * _GRACE)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _stay_for_the_others(self, seconds: float) -> None:
        """In process 0, without which JAX aborts them, until they have found out by themselves, or so many seconds."""
        alive = [index for index, seen in self._others.items() if seen.silent <= self.config.lost_timeout]
        end = time.monotonic() + seconds
        while self.index == 0 and time.monotonic() < end:
            signs = [self._read(index) for index in alive]
            if all(sign is None or sign.state == "failed" for sign in signs):
                return
            time.sleep(0.1)

    def _look_on(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(self._every):
            now = time.monotonic()
            elapsed, before = min(now - before, 2 * self._every), now
            self._own.looks += 1
            self._write()
            for index, seen in self._others.items():
                self._look_at(index, seen, elapsed)
            self._still = 0.0 if self._own.beats != self._last_beats else self._still + elapsed
            self._last_beats = self._own.beats
            sentence = self._failure() or self._loss() or self._hang()
            if sentence is not None and self._own.state != "failed":
                self._own.state, self._own.why = "failed", sentence
                self._write()
                self._stay_for_the_others(_GRACE)
                end_process(f"{sentence}; {self._advice()}", LOST)

    def _look_at(self, index: int, seen: _Seen, elapsed: float) -> None:
        sign = self._read(index)
        seen.gone = sign is None and seen.sign is not None and not self._path(index).exists()
        if sign is not None and sign != seen.sign:
            seen.sign, seen.silent = sign, 0.0
        else:
            seen.silent += elapsed
        seen.failed = seen.failed + elapsed if seen.sign is not None and seen.sign.state == "failed" else 0.0

    def _failure(self) -> str | None:
        for seen in self._others.values():
            patience = _GRACE if self._own.state == "running" else 0.0
            if seen.sign is not None and seen.sign.state == "failed" and seen.failed >= patience:
                return f"{seen.sign} has ended: {seen.sign.why.removesuffix('.')}"
        return None

    def _loss(self) -> str | None:
        lost = []
        for index, seen in self._others.items():
            if seen.gone or seen.failed or seen.silent <= self.config.lost_timeout:
                continue
            if seen.sign is None:
                where = self.run_dir / FOLDER
                lost.append(f"process {index} has left no sign in {where}, which all processes must share")
            else:
                lost.append(f"{seen.sign} is lost, it was {seen.sign.doing} at step {seen.sign.step}")
        if not lost:
            return None
        return f"{' and '.join(lost)}: no sign of life for {self.config.lost_timeout:g} s (parallel.lost_timeout)"

    def _hang(self) -> str | None:
        if self.config.hang_timeout is None:
            return None
        signs = [self._own, *(seen.sign for seen in self._others.values() if seen.sign is not None and not seen.gone)]
        patient = any(sign.doing in _AT_START for sign in signs)
        allowed = self.config.hang_timeout * (_PATIENCE_AT_START if patient else 1)
        if self._still <= allowed:
            return None
        # Whoever waits for the others has begun as many steps as can be; whoever they wait for has not.
        least = min(sign.step for sign in signs)
        behind = [sign for sign in signs if sign.step == least]
        what = " and ".join(f"{sign} is {sign.doing} at step {sign.step}" for sign in behind)
        if len(behind) < len(signs):
            what += ", and the others wait for it" if len(behind) == 1 else ", and the others wait for them"
        return f"nothing has gone on for {allowed:g} s (parallel.hang_timeout): {what}"

    def _advice(self) -> str:
        step = self.last_checkpoint()
        goes_on = "starts from the beginning" if step is None else f"continues from the checkpoint of step {step}"
        return f"run the same command again in all processes: it {goes_on}"

    def _path(self, index: int) -> Path:
        return self.run_dir / FOLDER / f"{index}.json"

    def _read(self, index: int) -> Sign | None:
        try:
            return Sign(**json.loads(self._path(index).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # not there, or just being replaced: as good as no news
            return None

    def _write(self) -> None:
        try:
            with self._writing:
                (self.run_dir / FOLDER).mkdir(exist_ok=True)
                write_whole(self._path(self.index), json.dumps(asdict(self._own)))
        except OSError as error:
            if not self._unwritten:
                self._unwritten = True
                self.warn(
                    f"warning: {self._path(self.index)} cannot be written ({error.strerror}); after "
                    f"{self.config.lost_timeout:g} s the other processes will take this one for lost"
                )


def _comes_from_jax(error: BaseException | None) -> bool:
    """Whether it is an error of JAX's, or was raised because of one, as Orbax does where another process is gone."""
    while error is not None and not isinstance(error, jax.errors.JaxRuntimeError):
        error = error.__cause__ or error.__context__
    return error is not None


def forget_signs(run_dir: Path) -> None:
    """Removes what an earlier start has left; to be called by one process before any of them watches.

    Raises:
        RunError: it cannot be removed.
    """
    try:
        if (run_dir / FOLDER).exists():
            shutil.rmtree(run_dir / FOLDER)
    except OSError as error:
        raise not_written(run_dir / FOLDER, error) from None
