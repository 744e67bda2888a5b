"""Folders of measurements: raw numbers, one a line, and a page that is written anew from all of them."""

import json
import platform
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cnnjax.errors import RunError
from cnnjax.train.environment import commit_of, environment, portable

RAW, PAGE = "results.jsonl", "README.md"
Row = Mapping[str, Any]


# What a measurement may depend on, where it is installed.
_LIBRARIES = ("torch", "torchvision", "timm", "keras", "flaxmodels", "libtpu")


def add_row(
    row: Row, folder: Path, key: Callable[[Row], object], write: Callable[[Sequence[Row], Path], Iterable[str]]
) -> Path:
    """Adds a measurement, with where it was made, to a folder; an earlier one with the same key gives way.

    Args:
        write: draws what it likes into the folder, and returns the lines of the page for all rows.

    Returns:
        The page.

    Raises:
        RunError: the folder cannot be written, or holds results that cannot be read.
    """
    row = {**row, "environment": _environment()}
    rows = [each for each in read_rows(folder) if key(each) != key(row)] + [row]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RAW).write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
        lines = [*write(rows, folder), *_origin(rows)]
        (folder / PAGE).write_text("\n".join(lines), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}); choose another --report") from None
    return folder / PAGE


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """What a folder holds; nothing, if it is new."""
    path = folder / RAW
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); name another folder, or move it away") from None


def _environment() -> dict[str, Any]:
    found = portable(environment())
    versions = {name: metadata.version(name) for name in _LIBRARIES if find_spec(name) is not None}
    return {**found, "packages": {**found["packages"], **versions}, "processor": _processor()}


def _of(environment: Row) -> str:
    return f" ({environment['processor']})" if "processor" in environment else ""


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "an unnamed processor"


def _origin(rows: Sequence[Row]) -> list[str]:
    commands: dict[str, None] = {}
    origins: dict[str, None] = {}
    for each in (row["environment"] for row in rows):
        commands[shlex.join(each["command"])] = None
        names = [name for name in ("jax", "jaxlib", "flax", *_LIBRARIES) if each["packages"].get(name)]
        packages = ", ".join(f"{name} {each['packages'][name]}" for name in names)
        commit = commit_of(each["git"])
        origins[
            f"Python {each['python']}, {packages}; {each['system']}, {each['cpus']} CPUs{_of(each)}; commit {commit}."
        ] = None
    return ["", "## Origin", "", "```", *commands, "```", "", *origins, "", f"Raw numbers: [{RAW}]({RAW}).", ""]
