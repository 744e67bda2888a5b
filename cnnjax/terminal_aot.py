"""What `cnnjax aot` shows."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from cnnjax.aot.survey import HEADER, cells, describe_collectives, describe_largest
from cnnjax.terminal import numbers, show

_GIB = 2**30


def print_plan(told: Mapping[str, Any]) -> None:
    """The steps' memory, what they send, and how long they would take at least."""
    size = "x".join(map(str, told["input"]))
    print(
        f"{told['model']}, {told['precision']}, {told['batch']} images of {size} on {told['devices']} devices "
        f"({told['topology']}): {told['batch_a_device']} each; {told['params']:,} parameters, "
        f"{told['macs_an_image'] / 1e9:,.3g} GMAC an image"
    )
    for name in ("train", "eval"):
        _print_step(name, told[name], told["memory_bytes"])
    if "savings" in told:
        table = Table("change", numbers("peak (GiB)"), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_row("as it is", _peak(told["train"]))
        for name, step in told["savings"].items():
            table.add_row(name, step["refused"] if "refused" in step else _peak(step))
        show(table)
    if "largest" in told:
        print(f"largest batch a device, with its GiB: {describe_largest(told)}")
    if "predictions" in told:
        _print_predictions(told)


def _print_predictions(told: Mapping[str, Any]) -> None:
    columns = ("chips", "batch", "at best (ms)", "at worst (ms)", "images/s at best", "at worst")
    table = Table(*map(numbers, columns), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for each in told["predictions"]:
        batch = told["batch_a_device"] * each["devices"]
        times = (each["at_best"], each["at_worst"])
        table.add_row(
            f"{each['devices']:,}",
            f"{batch:,}",
            *(f"{1000 * seconds:.2f}" for seconds in times),
            *(f"{batch / seconds:,.0f}" for seconds in times),
        )
    print("by a model of published peaks, not measured (docs/scaling.md says how):")
    show(table)


def say_row(row: Mapping[str, Any]) -> None:
    """One line as soon as a row of a survey is there."""
    name, topology, *rest = cells(row)
    print(f"{name} on {topology}: {rest[1]} GiB; largest batch {rest[-1]}", file=sys.stderr, flush=True)


def print_survey(rows: Sequence[Mapping[str, Any]]) -> None:
    """One line a config and topology."""
    words = 2
    table = Table(
        *HEADER[:words],
        *(numbers(name) for name in HEADER[words:]),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for row in rows:
        table.add_row(*cells(row))
    show(table)


def _print_step(name: str, step: Mapping[str, Any], limit: int | None) -> None:
    if step["fits"] is False:
        needed, available = step["needed"] / _GIB, step["available"] / _GIB
        print(f"{name}: does not fit: it needs {needed:.2f} GiB a device, and {available:.2f} are there")
        return
    if step["memory"] is None:
        print(f"{name}: {step['operations']:,} operations, lowered in {step['lower_seconds']:.1f} s and not compiled")
        return
    parts = step["memory"]
    of = f" of {limit / _GIB:.0f}" if limit else ""
    shown = ", ".join(f"{part} {parts[part] / _GIB:.3g}" for part in ("arguments", "temporaries", "outputs", "code"))
    print(f"{name}: {parts['peak'] / _GIB:.3g}{of} GiB a device at its peak ({shown})")
    print(
        f"  collectives: {describe_collectives(step['collectives'])}; {step['flops'] / 1e9:,.5g} GFLOP a device (XLA)"
    )
    print(
        f"  {step['padding']['share']:.0%} of its results' memory is padding; {step['operations']:,} operations, "
        f"compiled in {step['compile_seconds']:.0f} s"
    )
    if "estimate" in step:
        guess = step["estimate"]
        print(
            f"  roofline by published peaks, not a measurement: {1000 * guess['seconds']:.2f} ms, bound by "
            f"{guess['bound']} (compute {1000 * guess['compute']:.2f}, memory {1000 * guess['memory']:.2f}, "
            f"interconnect {1000 * guess['interconnect']:.2f})"
        )


def _peak(step: Mapping[str, Any]) -> str:
    needed = step["needed"] if step["fits"] is False else step["memory"]["peak"]
    return f"{needed / _GIB:.2f}" + (", does not fit" if step["fits"] is False else "")
