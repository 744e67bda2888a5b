"""Many configs on many topologies, and the page of what they take; what it has already is not compiled again."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib

from cnnjax.aot.plan import Plan, chip_of, facts_of, largest, plan
from cnnjax.bench.pages import Row, add_row, read_rows
from cnnjax.config import Config
from cnnjax.config_files import config_hash
from cnnjax.errors import ConfigError

_GIB, _MIB = 2**30, 2**20


def survey(
    configs: Mapping[str, Config],
    topologies: Sequence[str],
    classes: int | None,
    *,
    multiple: int | None = None,
    folder: Path | None = None,
    say: Callable[[Plan], None],
) -> list[Plan]:
    """What each config's training step takes on each topology, and the largest batch of each.

    Args:
        configs: by name.
        classes: see `facts_of`.
        multiple: of images a device, for the largest batch; None to look for none.
        folder: of a page that every row is added to as soon as it is there.
        say: told of each row.

    Raises:
        ConfigError: of an arm, with its name.
        RunError: see `plan`, and the folder cannot be written.
    """
    rows: list[Plan] = []
    known = {_key(row): row for row in read_rows(folder)} if folder else {}
    for name, config in configs.items():
        limits: dict[str, int] = {}
        for topology in topologies:
            kind = topology.partition(":")[0]
            asked = {
                "name": name,
                "topology": topology,
                "multiple": multiple,
                "config": config_hash(config),
                "compiler": _compiler(),
            }
            row: Plan | None = known.get(_key(asked))
            if row is None:
                try:
                    row = asked | _row(config, classes, topology, multiple, limits.get(kind, 0))
                except ConfigError as error:
                    raise ConfigError(f"{name}: {error}") from None
                if folder:
                    add_row(row, folder, _key, page)
            found = row.get("largest", {})
            if found.get("batch"):
                limits[kind] = found["batch"] // row["devices"]
            rows.append(row)
            say(row)
    return rows


def _row(config: Config, classes: int | None, topology: str, multiple: int | None, likely: int) -> dict[str, Any]:
    facts = facts_of(config, classes)
    told = plan(config, facts, topology, evaluation=False)
    if multiple is not None and chip_of(topology) is not None:
        told["largest"] = largest(config, facts, topology, multiple=multiple, first=told, likely=likely)
    return told


def _key(row: Row) -> object:
    # As JSON has it, since some come from a file.
    return json.dumps([row["name"], row["topology"], row["multiple"], row["config"], row["compiler"]])


def _compiler() -> str:
    """What a program depends on beside the config."""
    import importlib.metadata
    import importlib.util

    libtpu = importlib.metadata.version("libtpu") if importlib.util.find_spec("libtpu") else "none"
    return f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, libtpu {libtpu}"


HEADER = (
    "",
    "topology",
    "images a device",
    "peak (GiB)",
    "of (GiB)",
    "state and batch",
    "temporaries",
    "collectives",
    "GFLOP (XLA)",
    "GMAC (counted)",
    "padding",
    "roofline (ms)",
    "compiled (s)",
    "largest batch a device",
)


def cells(row: Plan) -> list[str]:
    """A row as words, by `HEADER`; memory, FLOP and multiply-adds are of one device."""
    step, each = row["train"], row["batch_a_device"]
    memory, limit = step.get("memory"), row["memory_bytes"]
    if step["fits"] is False:
        peak, parts = f"needs {step['needed'] / _GIB:.2f}", ["-", "-"]
    elif memory is None:
        peak, parts = "-", ["-", "-"]
    else:
        peak = f"{memory['peak'] / _GIB:.3g}"
        parts = [f"{memory[part] / _GIB:.3g}" for part in ("arguments", "temporaries")]
    estimate = step.get("estimate")
    return [
        row["name"],
        row["topology"],
        str(each),
        peak,
        f"{limit / _GIB:.0f}" if limit else "-",
        *parts,
        describe_collectives(step.get("collectives")),
        f"{step['flops'] / 1e9:,.1f}" if step.get("flops") else "-",
        f"{row['macs_an_image'] * each / 1e9:,.1f}",
        f"{step['padding']['share']:.0%}" if step.get("padding") else "-",
        f"{1000 * estimate['seconds']:.1f} ({estimate['bound']})" if estimate else "-",
        f"{step['compile_seconds']:.0f}" if step["compile_seconds"] is not None else "lowered only",
        describe_largest(row),
    ]


def describe_collectives(collectives: Sequence[Mapping[str, Any]] | None) -> str:
    """Such as `99 all-reduce (97.6 MiB)`."""
    if collectives is None:
        return "-"
    return ", ".join(f"{each['count']} {each['kind']} ({each['bytes'] / _MIB:,.3g} MiB)" for each in collectives) or "0"


def describe_largest(row: Plan) -> str:
    """The largest batch of a device with the bytes that it takes, and that the next one does not fit."""
    if "largest" not in row:
        return "-"
    found, devices = row["largest"], row["devices"]
    if not found:
        return "no limit found"
    upper = found["next_batch"] // devices
    # From a file its keys are words.
    needed = {int(batch): size for batch, size in found["tried"].items()}
    if found["batch"] is None:
        return f"none; {upper} needs {needed[found['next_batch']] / _GIB:.2f}"
    return (
        f"{found['batch'] // devices} ({needed[found['batch']] / _GIB:.2f}); {upper} needs "
        f"{needed[found['next_batch']] / _GIB:.2f}"
    )


def page(rows: Sequence[Row], folder: Path) -> list[str]:
    """The lines of the page of all rows."""
    del folder
    compilers = sorted({row["compiler"] for row in rows})
    return [
        "# What training takes on TPUs, by their compiler, without one",
        "",
        "Each line is one training step (forward, backward, update), compiled for the topology and not run, by",
        f"{'; '.join(compilers)}.",
        "Memory is of one device, in GiB: its peak beside what the device has, the part of the state and the batch,",
        "and what the compiler needs between. Collectives are what each device takes part in, once a step, and the",
        "bytes of their results. GFLOP is XLA's count of the whole step on one device (without the padding of images),",
        "GMAC ours, of the forward pass alone: a training step does about three times as many, and one of them is two",
        "FLOP. Padding is the part of the results' memory that fills up tiles. *Roofline* is no measurement: it is the",
        "longest of arithmetic, traffic with memory (by the compiler's count, which has what stays on the chip too),",
        "and a ring of all devices, each at its published peak. The last column is the largest batch of a device that",
        "fits, to the multiple that was asked for, with its peak, and what the next one needs: both were compiled.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{'---|' * len(HEADER)}",
        *(f"| {' | '.join(cells(row))} |" for row in rows),
    ]
