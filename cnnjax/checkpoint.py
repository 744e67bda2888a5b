"""Checkpoints: the only place for Orbax. Written beside the run, checked when read, kept by age and by accuracy."""

import functools
import json
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from cnnjax.checkpoint_faults import attempt, drop_echoes, reason_of
from cnnjax.config import CheckpointConfig
from cnnjax.errors import RunError, TrainingError
from cnnjax.parallel import broadcast, everywhere, to_host
from cnnjax.train.reporting import telling
from cnnjax.train.state import TrainState

_STATE, _PROGRESS = "state", "progress"


class Restored(NamedTuple):
    """What one checkpoint held."""

    step: int
    state: TrainState
    progress: dict[str, Any]
    warnings: tuple[str, ...]
    """One sentence for each newer checkpoint that could not be read."""


class Checkpoints:
    """The checkpoints of one run folder.

    A save copies nothing that training goes on to change: hand it a copy. It returns before the files are written;
    the next call, `wait` or `close` tells if writing failed.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        *,
        read_only: bool = False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        # Orbax logs every phase of every save, and with a traceback whatever it then raises here as well.
        absl_logging.set_verbosity(absl_logging.FATAL)
        drop_echoes()
        self._folder = folder.absolute()
        self._config = config
        self._read_only = read_only
        self._tell = tell
        self._saving: int | None = None
        self._accuracy: dict[int, float | None] = {}
        self._unrated: dict[int, str] = {}
        self._keep_all = read_only
        options = ocp.CheckpointManagerOptions(
            create=not read_only,
            read_only=read_only,
            max_to_keep=None,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=not read_only,
        )
        try:
            self._manager = ocp.CheckpointManager(self._folder, options=options, item_names=(_STATE, _PROGRESS))
        except Exception as error:  # Orbax reads a file there, and raises whatever it meets.
            advice = "" if isinstance(error, OSError) else "; move what is damaged out of that folder"
            raise RunError(f"checkpoints in {folder} cannot be used: {reason_of(error)}{advice}") from error

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, oldest first."""
        return sorted(self._manager.all_steps(read=False))

    def best(self) -> int | None:
        """The step with the highest evaluation accuracy, the later one of equals; None where none was evaluated.

        Raises:
            RunError: a checkpoint's accuracy cannot be read, so nobody knows which is the best.
        """
        for step in self.steps():
            self._rating(step)
            if step in self._unrated:
                raise RunError(
                    f"checkpoint {step} in {self._folder} cannot be read ({self._unrated[step]}), so the best one is "
                    "unknown; name a step"
                )
        rated = [(self._rating(step), step) for step in self.steps()]
        return max(((rating, step) for rating, step in rated if rating is not None), default=(0.0, None))[1]

    def save(self, state: TrainState, progress: dict[str, Any], accuracy: float | None) -> None:
        """Starts writing a checkpoint, after waiting for the one before.

        Args:
            state: a copy, replicated over the mesh.
            progress: JSON values that go with it.
            accuracy: of the last evaluation at this very step, if there was one; decides what is kept as best.

        Raises:
            TrainingError: the state holds a number that is not finite, so it is not worth keeping.
            RunError: this or the previous checkpoint cannot be written.
        """
        step = int(to_host(state.step))
        self.wait()
        self._prune()
        try:
            arrays = _describe(state, finite=True)
        except TrainingError as error:
            raise TrainingError(f"{error}; {self._last_good()}") from None
        contents = _sealed({"step": step, "accuracy": accuracy, "arrays": arrays, "progress": progress})
        args = ocp.args.Composite(**{_STATE: ocp.args.StandardSave(state), _PROGRESS: ocp.args.JsonSave(contents)})
        self._saving = step
        try:
            with self._telling():
                self._manager.save(step, args=args, force=True)
        except Exception as error:  # Orbax and TensorStore raise whatever the file system made of it.
            raise self._not_saved(error) from error
        self._accuracy[step] = accuracy

    def wait(self) -> None:
        """Returns once everything is on disk; RunError if it could not be written."""
        try:
            with self._telling():
                self._manager.wait_until_finished()
        except Exception as error:  # As in `save`.
            raise self._not_saved(error) from error

    def close(self) -> None:
        """Waits, deletes what need not be kept, and lets go of the folder."""
        try:
            self.wait()
            if not self._keep_all:
                self._prune()
        finally:
            try:
                self._manager.close()
            except Exception as error:  # As in `save`, once more.
                raise self._not_saved(error) from error

    def restore(self, like: TrainState, step: int | None = None) -> Restored | None:
        """The newest readable checkpoint, or that of one step; None if the folder has none at all.

        Where a checkpoint cannot be read, or its arrays are not those that were saved, the one before is taken, and
        the broken one set aside in `broken/` (unless read-only).

        Args:
            like: a state with the shapes, types and shardings to restore into; they may be other devices than those
                that saved it.

        Raises:
            RunError: there are checkpoints, and none can be read.
        """
        abstract = jax.tree.map(_abstract, like)
        candidates = self.steps()[::-1] if step is None else [step]
        told: list[str] = []
        for candidate in candidates:
            with telling(self._tell, f"checkpoint {candidate} is still being read from {self._folder}"):
                found, fault = attempt(functools.partial(self._read, candidate, abstract))
            # All go on or none, since what comes next may need the parts of all.
            complete = everywhere(found is not None)
            if found is not None and complete:
                arrays = _describe(found[0])
                changed = [name for name, saved in found[1]["arrays"].items() if saved != arrays[name]]
                if changed:
                    found, fault = None, f"{changed[0]} is not what was saved"
                complete = everywhere(not changed)
            if found is not None and complete:
                if not self._read_only:
                    self._set_aside(candidates[: len(told)])
                return Restored(candidate, found[0], found[1]["progress"], tuple(told))
            if broadcast(int(found is not None)):
                where = (
                    "in another process, whose message says why" if found else f"here ({fault}), although process 0 can"
                )
                raise RunError(f"checkpoint {candidate} cannot be read {where}")
            told.append(f"checkpoint {candidate} cannot be read ({fault or 'by process 0'})")
        if not candidates:
            return None
        others = f", nor can {', '.join(map(str, candidates[1:]))}" if len(candidates) > 1 else ""
        # Nothing is set aside or deleted: the next start must find them, and not begin from zero.
        self._keep_all = True
        advice = "" if self._read_only else "; restore it, or choose another --run-dir to start from zero"
        raise RunError(f"{told[0]}{others}, in {self._folder}{advice}")

    def _read(self, step: int, abstract: Any) -> tuple[TrainState, dict[str, Any]]:
        """The state, whose numbers are still to be compared, and what was said of them."""
        contents = self._read_contents(step)
        saved = contents["arrays"]
        wanted = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
        misfits = [f"it lacks {name}" for name in wanted if name not in saved]
        misfits += [f"it holds {name} besides" for name in saved if name not in wanted]
        misfits += [
            f"its {name} is {_by(saved[name]['shape'])}, expected {_by(leaf.shape)}"
            for name, leaf in wanted.items()
            if name in saved and tuple(saved[name]["shape"]) != leaf.shape
        ]
        if misfits:
            raise ValueError(f"it is of another network or optimizer: {misfits[0]}")
        args = ocp.args.Composite(**{_STATE: ocp.args.StandardRestore(abstract)})
        return self._manager.restore(step, args=args)[_STATE], contents

    def _read_contents(self, step: int) -> dict[str, Any]:
        args = ocp.args.Composite(**{_PROGRESS: ocp.args.JsonRestore()})
        contents = self._manager.restore(step, args=args)[_PROGRESS]
        if not isinstance(contents, dict) or contents != _sealed(contents):
            raise ValueError("its progress is not what was saved")
        if contents["step"] != step:  # whole and in the wrong place
            raise ValueError(f"it is that of step {contents['step']}")
        self._accuracy[step] = contents["accuracy"]
        return contents

    def _rating(self, step: int) -> float | None:
        if step not in self._accuracy:
            contents, fault = attempt(functools.partial(self._read_contents, step))
            if contents is None:  # Not kept as the best; `best` tells of it.
                self._accuracy[step], self._unrated[step] = None, fault
        return self._accuracy[step]

    def _prune(self) -> None:
        steps = self.steps()
        rated = sorted((rating, step) for step in steps if (rating := self._rating(step)) is not None)
        best = {step for _, step in rated[-self._config.keep_best :]} if self._config.keep_best else set()
        for step in set(steps) - set(steps[-self._config.keep_last :]) - best:
            self._manager.delete(step)

    def _set_aside(self, steps: list[int]) -> None:
        if not steps:
            return
        if jax.process_index() == 0:
            aside = self._folder.parent / "broken"
            aside.mkdir(exist_ok=True)
            for step in steps:
                attempt = len(os.listdir(aside))
                (self._folder / str(step)).rename(aside / f"{step}-{attempt}")
        broadcast(0)  # Nobody looks again before they are gone.
        self._manager.reload()

    def _telling(self) -> AbstractContextManager[None]:
        return telling(self._tell, f"checkpoint {self._saving} is still being written to {self._folder}")

    def _not_saved(self, error: Exception) -> RunError:
        return RunError(
            f"a checkpoint could not be written to {self._folder}: {reason_of(error)}; {self._last_good()}; "
            "make room or choose another --run-dir, then run the same command again"
        )

    def _last_good(self) -> str:
        good = self.steps()
        return f"the last good checkpoint is that of step {good[-1]}" if good else "there is no earlier checkpoint"


def newest_step(folder: Path) -> int | None:
    """The step of the newest finished checkpoint that a folder's names tell of; None where there is none."""
    try:
        steps = [int(name) for name in os.listdir(folder) if name.isdigit()]
    except OSError:
        return None
    return max(steps, default=None)


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _describe(state: TrainState, *, finite: bool = False) -> dict[str, dict[str, Any]]:
    """Shape and CRC-32 by array; with `finite`, TrainingError where a number is none."""
    described = {}
    # One at a time: of a state that lies in parts, a host may not have room for all.
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name, array = jax.tree_util.keystr(path), np.ascontiguousarray(to_host(leaf))
        numbers = array.astype(np.float32) if array.dtype.kind == "V" else array  # V: bfloat16 and its like
        if finite and not np.isfinite(numbers).all():
            step = int(to_host(state.step))
            raise TrainingError(f"the state is not finite after step {step}: {name} holds NaN or Inf")
        described[name] = {"shape": list(leaf.shape), "checksum": zlib.crc32(array.view(np.uint8).data)}
    return described


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _sealed(contents: dict[str, Any]) -> dict[str, Any]:
    """A copy, since it is written while training goes on, with a checksum by which a changed digit is found out."""
    text = json.dumps({name: value for name, value in contents.items() if name != "checksum"}, sort_keys=True)
    return {**json.loads(text), "checksum": zlib.crc32(text.encode())}
