"""Runs the command line in this process, and looks at what a run has left behind."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cnnjax.cli import main
from cnnjax.train.run_folder import read_history

STEPS = (2, 4, 6)


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    def __post_init__(self) -> None:
        said = self.out + self.err
        assert not any(word in said for word in ("Traceback", "Exception ignored", "\x1b")), said

    @property
    def json(self) -> Any:
        """The JSON value on the last line of the output."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def error(self) -> str:
        """The sentence with which the command was refused."""
        assert self.code == 2, self
        assert self.err.startswith("error: "), self
        assert self.err.count("\n") == 1, self
        return self.err.removeprefix("error: ").strip()

    @property
    def done(self) -> "Outcome":
        """Itself, if all went well."""
        assert self.code == 0, self
        return self


def in_this_process(*words: str | Path) -> Outcome:
    """`cnnjax WORDS...`, in this very process."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["cnnjax", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_info:
            main()
    finally:
        sys.argv = before
    return Outcome(exit_info.value.code or 0, out.getvalue(), err.getvalue())


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder, and when it was changed."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def history(run_dir: Path) -> list[dict[str, Any]]:
    """What was recorded, but for the speed of the machine."""
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in read_history(run_dir)]


def final_state(run_dir: Path, step: int = STEPS[-1]) -> dict[str, Any]:
    """The checksum of each array of a checkpoint, with the position in the data and the sums under way."""
    contents = json.loads((run_dir / "checkpoints" / str(step) / "progress" / "metadata").read_text())
    del contents["progress"]["seconds"]
    return {key: contents[key] for key in ("arrays", "progress", "accuracy")}


@dataclass(frozen=True)
class Disk:
    """A mounted file system."""

    folder: Path

    def fill(self, leave: int) -> None:
        """Takes all of its room but so many bytes."""
        status = os.statvfs(self.folder)
        (self.folder / "filler").write_bytes(bytes(status.f_bavail * status.f_bsize - leave))

    def make_room(self) -> None:
        """Gives it back."""
        (self.folder / "filler").unlink()

    def make_read_only(self) -> None:
        """Lets nobody write any more."""
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)
