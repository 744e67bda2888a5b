"""A page with the measurements of compilation, and the raw numbers beside it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnjax.bench.pages import Row, add_row

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
    return add_row(result, folder, lambda row: [row[name] for name in _KEY], _page)


def _page(rows: Sequence[Row], folder: Path) -> list[str]:
    del folder
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
    return lines
