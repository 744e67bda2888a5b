"""A page with the measurements of compilation, and the raw numbers beside it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnjax.errors import RunError
from cnnjax.train.report import commit_of, portable
from cnnjax.train.run_folder import environment

RAW = "results.jsonl"
_KEY = ("model", "fields", "batch_size", "input_size", "backend")


def add_to_report(result: Mapping[str, Any], folder: Path) -> Path:
    """Adds a measurement to a folder's page; an earlier one of the same network at the same size gives way.

    Args:
        result: of `cnnjax.bench.compile_time.measure_compile_time`.

    Returns:
        The page.

    Raises:
        RunError: the folder cannot be written, or holds results that cannot be read.
    """
    row = {**result, "environment": portable(environment())}
    rows = [each for each in _read(folder / RAW) if any(each[name] != row[name] for name in _KEY)] + [row]
    page = folder / "README.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RAW).write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
        page.write_text(_page(rows), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}); choose another --report") from None
    return page


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); name another folder, or move it away") from None


def _page(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "# What do `scan` and `remat` do to the compilation of a train step?",
        "",
        "`scan` writes the equal blocks of a stage once, as a loop; `remat` forgets activations and computes them",
        "again in the backward pass. A train step (forward, backward, SGD with momentum) is lowered and compiled with",
        "each; it is not run. Operations are lines of what Python hands to XLA; memory is what the step takes beside",
        "its arguments and results, as XLA plans it. Ratios are to the network's first line, in the same process.",
        "",
        "| network | batch | input | for | scan | remat | operations | lowering (s) | compiling (s) | ratio of time "
        "| memory (MiB) | ratio of memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        fields = "".join(f" {name}={json.dumps(value)}" for name, value in row["fields"].items())
        for setting in row["settings"]:
            switches = " | ".join({True: "on", False: "off"}.get(setting.get(name), "-") for name in ("scan", "remat"))
            lines.append(
                f"| `{row['model']}{fields}` | {row['batch_size']} | {row['input_size']} | {row['backend']} "
                f"| {switches} | {setting['operations']:,} | {setting['lower_seconds']:.1f} "
                f"| {setting['compile_seconds']:.1f} | {setting['time_ratio']:.2f} "
                f"| {setting['temporary_bytes'] / 2**20:,.0f} | {setting['memory_ratio']:.2f} |"
            )
    lines += ["", "## Origin", "", "```", *(shlex.join(row["environment"]["command"]) for row in rows), "```", ""]
    origins: dict[str, None] = {}
    for row in rows:
        packages = ", ".join(f"{name} {row['environment']['packages'][name]}" for name in ("jax", "jaxlib", "flax"))
        machine = f"{row['environment']['system']}, {row['environment']['cpus']} CPUs"
        commit = commit_of(row["environment"]["git"])
        origins[f"Python {row['environment']['python']}, {packages}; {machine}; commit {commit}."] = None
    return "\n".join([*lines, *origins, "", f"Raw numbers: [{RAW}]({RAW}).", ""])
