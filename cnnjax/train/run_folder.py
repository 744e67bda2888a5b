"""A run's folder: who may write in it, which config it belongs to, and what it has recorded."""

import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from cnnjax.config import Config
from cnnjax.config_files import config_hash, diff, load_config, to_yaml
from cnnjax.errors import ConfigError, RunError
from cnnjax.train.environment import environment
from cnnjax.train.reporting import Record
from cnnjax.train.run_files import FACTS, LINE, parse_json, read_json
from cnnjax.train.run_files import RESULT as RESULT_SHAPE
from cnnjax.train.task import DataFacts

CONFIG, DATA, HISTORY, ENVIRONMENT, CHECKPOINTS, CURVE, RESULT, INIT_FROM = (
    "config.yaml",
    "data.json",
    "metrics.jsonl",
    "environment.json",
    "checkpoints",
    "learning_curve.png",
    "result.json",
    "init_from.json",
)
_LOCK = ".cnnjax.lock"

# Changes after which what was computed so far still stands. A schedule that spans the whole duration (cosine,
# polynomial) is followed as the new duration has it from then on.
_SAFE = (
    "name",
    "log.",
    "checkpoint.",
    "parallel.",
    "eval.",
    "data.prefetch",
    "data.workers",
    "train.duration.",
    "train.profile",
)


class InUse(RunError):
    """A run folder that another process holds."""


def in_use(path: Path) -> bool:
    """Whether a process holds the run folder at this moment."""
    if not (path / _LOCK).exists():
        return False
    with open(path / _LOCK, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _hold(lock: IO[bytes], after: float = 0.0) -> bool:
    time.sleep(after)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def default_run_dir(config: Config) -> Path:
    """runs/NAME-HASH under the current folder."""
    return Path("runs") / f"{config.name}-{config_hash(config)}"


class RunFolder:
    """One process's hold on a run folder; a context manager that gives the lock back."""

    def __init__(self, path: Path, lock: IO[bytes]) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(
        cls, path: Path, config: Config, facts: DataFacts, *, force: bool = False
    ) -> tuple["RunFolder", dict[str, tuple[Any, Any]]]:
        """Creates the folder or takes up the run in it, and locks it.

        Returns:
            The folder, and how `config` differs from that of the run so far, by dotted path.

        Raises:
            InUse: the folder is another process's at the moment.
            RunError: it belongs to another config (and `force` is not given), holds something else, or cannot be
                written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            # Unbuffered, or what a full disk refuses would be tried again on closing.
            lock = open(path / _LOCK, "a+b", buffering=0)  # noqa: SIM115 -- held as long as the run
        except FileExistsError:
            raise RunError(f"{path} is a file, not a run folder; choose another --run-dir") from None
        except OSError as error:
            raise not_written(path, error) from None
        if not (_hold(lock) or _hold(lock, after=0.1)):  # whoever only asked, by `in_use`, is gone by then
            lock.seek(0)
            holder = lock.read().decode(errors="replace").strip() or "another process"
            lock.close()
            raise InUse(f"run folder {path} is in use by {holder}; wait for it or choose another --run-dir")
        folder = cls(path, lock)
        try:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {platform.node()}\n".encode())
            changes = folder._compare(config, facts, force)
            if not (path / CONFIG).exists():
                folder.adopt(config, facts)
            folder._note_environment()
        except OSError as error:
            folder.close()
            raise not_written(path, error) from None
        except RunError:
            folder.close()
            raise
        return folder, changes

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes have the folder."""
        self._lock.close()

    def adopt(self, config: Config, facts: DataFacts) -> None:
        """Makes them what the run is of; for a run that goes on, only once its checkpoint is known to fit them.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            write_whole(self.path / DATA, json.dumps(asdict(facts), indent=1) + "\n")
            write_whole(self.path / CONFIG, to_yaml(_without_place(config)))
        except OSError as error:
            raise not_written(self.path, error) from None

    def append(self, record: Record) -> None:
        """Adds a line to the history; RunError where it cannot be written."""
        try:
            with open(self.path / HISTORY, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise not_written(self.path / HISTORY, error) from None

    def write(self, name: str, record: Record) -> None:
        """Keeps facts in a file of that name, RESULT what `fit` returns; RunError where it cannot be written."""
        try:
            write_whole(self.path / name, json.dumps(record, indent=1) + "\n")
        except OSError as error:
            raise RunError(f"{self.path / name} cannot be written: {error.strerror}; make room") from None

    def result_step(self) -> int | None:
        """The step that the kept result is of; None where there is none that can be read."""
        try:
            return int(parse_json((self.path / RESULT).read_text(encoding="utf-8"), RESULT_SHAPE)["step"])
        except (OSError, ValueError):
            return None

    def rewind(self, step: int) -> list[Record]:
        """Drops what the history tells of later steps, which will be made again; returns the rest."""
        records = [record for record in read_history(self.path) if record["step"] <= step]
        try:
            write_whole(self.path / HISTORY, "".join(json.dumps(record) + "\n" for record in records))
        except OSError as error:
            raise not_written(self.path / HISTORY, error) from None
        return records

    def _compare(self, config: Config, facts: DataFacts, force: bool) -> dict[str, tuple[Any, Any]]:
        if not (self.path / CONFIG).exists():
            # A start that was cut off may have left the first of its files.
            strangers = sorted(name for name in os.listdir(self.path) if not name.startswith(".") and name != DATA)
            if strangers:
                (self.path / _LOCK).unlink()
                raise RunError(
                    f"{self.path} is not empty and holds no run (there is {strangers[0]}, but no {CONFIG}); "
                    "choose another --run-dir"
                )
            return {}
        changes = diff(read_config(self.path), _without_place(config))
        unsafe = {key: change for key, change in changes.items() if not key.startswith(_SAFE)}
        if unsafe and not force:
            raise RunError(
                f"{self.path} holds a run of another config ({describe_changes(unsafe)}); "
                "choose another --run-dir, undo the change, or continue all the same with --force"
            )
        if not force and read_facts(self.path) != facts:
            raise RunError(
                f"the data is not what {self.path} was trained on (see its {DATA}); restore it, choose another "
                "--run-dir, or continue all the same with --force"
            )
        return changes

    def _note_environment(self) -> None:
        path = self.path / ENVIRONMENT
        try:
            starts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
            if not isinstance(starts, list):
                raise ValueError("expected a list")
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path} cannot be read ({error}); remove it, only the run's own log is in it") from None
        write_whole(path, json.dumps([*starts, environment()], indent=1) + "\n")


def _without_place(config: Config) -> Config:
    """Without this process's number and its coordinator's address: they belong to one start, not to the run."""
    nowhere = {"coordinator": None, "processes": None, "process_id": None}
    return config.model_copy(update={"parallel": config.parallel.model_copy(update=nowhere)})


def describe_changes(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """`a.b: 1 -> 2, c: 3 -> 4`."""
    return ", ".join(f"{key}: {json.dumps(old)} -> {json.dumps(new)}" for key, (old, new) in changes.items())


def read_config(run_dir: Path) -> Config:
    """The config of a run; RunError where the folder holds none that can be read."""
    if not run_dir.is_dir():
        raise RunError(
            f"{run_dir} is a file, not a run folder" if run_dir.exists() else f"there is no run folder {run_dir}"
        )
    if not (run_dir / CONFIG).is_file():
        raise RunError(f"{run_dir} is not a run folder: it has no {CONFIG}")
    try:
        return load_config(run_dir / CONFIG)
    except ConfigError as error:
        raise RunError(f"the config of {run_dir} cannot be read: {error}") from None


def read_facts(run_dir: Path) -> DataFacts:
    """What a run's network knows of its data; RunError where that cannot be read."""
    facts = read_json(run_dir / DATA, FACTS, "restore it, or train the run again with --force")
    return DataFacts(
        tuple(facts["class_names"]),
        tuple(facts["input_shape"]),
        facts["train_examples"],
        facts["test_examples"],
        facts.get("segmentation", False),
    )


def read_history(run_dir: Path) -> list[Record]:
    """The lines of metrics.jsonl; a last line that was cut off by a crash is left out."""
    path = run_dir / HISTORY
    try:
        return list(_records(path)) if path.exists() else []
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None


def _records(path: Path) -> Iterator[Record]:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line, LINE)
        except ValueError:
            if number == len(lines):  # a line that a crash cut off, or the nothing behind the last line's end
                continue
            raise RunError(f"{path} line {number} is not a record; mend or remove it") from None
        yield record


def not_written(path: Path, error: OSError, option: str = "--run-dir") -> RunError:
    """The error for a file or folder that could not be written, with what to do; `option` is what it was named by."""
    remedy = "make room and run it again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"choose another {option}"
    return RunError(f"{path} cannot be written: {error.strerror}; {remedy}")


def write_whole(path: Path, text: str) -> None:
    """All or nothing, whatever happens in between."""
    # Its own for each process: two may be at one file, such as the list of all studies.
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
