"""What `cnnjax aot` shows."""

from typing import Any

from rich import box
from rich.table import Table

from cnnjax.terminal import numbers, show

_GIB = 2**30


def print_plan(told: dict[str, Any]) -> None:
    """The steps' memory, what they send, and how long they would take at least."""
    size = "x".join(map(str, told["input"]))
    print(
        f"{told['model']}, {told['precision']}, {told['batch']} images of {size} on {told['devices']} devices "
        f"({told['topology']}): {told['batch_a_device']} each"
    )
    for name in ("train", "eval"):
        if name in told:
            _print_step(name, told[name], told["memory_bytes"])
    if told.get("savings"):
        table = Table("change", numbers("peak (GiB)"), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name, step in told["savings"].items():
            table.add_row(name, f"{_needed(step) / _GIB:.2f}")
        show(table)
    if "largest" in told:
        found = told["largest"]
        if found is None:
            print("largest batch: no limit was found")
        elif found["batch"] is None:
            print(f"largest batch: not even {found['next_batch']} fits")
        else:
            print(f"largest batch: {found['batch']}; {found['next_batch']} does not fit")


def _print_step(name: str, step: dict[str, Any], memory: int | None) -> None:
    if step["fits"] is False:
        needed, available = step["needed"] / _GIB, step["available"] / _GIB
        print(f"{name}: does not fit: it needs {needed:.2f} GiB a device, and {available:.2f} are there")
        return
    parts = step["memory"]
    of = f" of {memory / _GIB:.0f}" if memory else ""
    shown = ", ".join(f"{part} {parts[part] / _GIB:.3f}" for part in ("arguments", "temporaries", "outputs", "code"))
    print(f"{name}: {parts['peak'] / _GIB:.2f}{of} GiB a device at its peak ({shown})")
    sent = ", ".join(
        f"{each['count']} {each['kind']} of {each['bytes'] / 2**20:.1f} MiB" for each in step["collectives"]
    )
    print(f"  sends {sent or 'nothing'}; {step['flops'] / 1e9:,.1f} GFLOP a device by XLA's count")
    print(
        f"  {step['padding']['share']:.0%} of its results' memory is padding; {step['operations']:,} operations, "
        f"compiled in {step['compile_seconds']:.0f} s"
    )
    if "estimate" in step:
        guess = step["estimate"]
        print(
            f"  an estimate by published peaks, not a measurement: {1000 * guess['seconds']:.2f} ms at least, bound by "
            f"{guess['bound']} (compute {1000 * guess['compute']:.2f}, memory {1000 * guess['memory']:.2f}, "
            f"interconnect {1000 * guess['interconnect']:.2f})"
        )


def _needed(step: dict[str, Any]) -> int:
    needed: int = step["needed"] if step["fits"] is False else step["memory"]["peak"]
    return needed
