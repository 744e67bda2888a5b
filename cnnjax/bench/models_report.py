"""A page with networks side by side: a table and a bar chart for each mode, and the raw numbers beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnjax.bench.models import best_of
from cnnjax.bench.pages import Row, add_row
from cnnjax.train.pictures import new_figure

_BLUE, _ORANGE = "#0072B2", "#D55E00"
_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)
_WHAT = {
    "forward": "logits of a batch that lies in memory",
    "train": "forward, backward and SGD with momentum on a batch that lies in memory",
    "loop": "a training loop over a shuffled data set in memory",
}
_HEAD = (
    "| network | images/s | of the best PyTorch | of the best other JAX | of XLA's own convolutions "
    "| compiling (s) | memory (MiB) |",
    "|---|---|---|---|---|---|---|",
)


def add_to_report(rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Adds one network's measurement to a folder; an earlier one with the same mode, batch and JAX gives way.

    Args:
        rows: of `cnnjax.bench.models.measure_models`.

    Returns:
        The page; beside it is a chart for each mode, batch size and JAX.

    Raises:
        RunError: the folder cannot be written, or holds results that cannot be read.
    """
    first = rows[0]
    row = {"network": str(first["name"]).partition("/")[2], "mode": first["mode"], "batch": first["batch"]}
    return add_row({**row, "contestants": rows}, folder, lambda each: (_setting(each), each["network"]), _page)


def _setting(row: Row) -> tuple[str, int, str]:
    return row["mode"], row["batch"], row["environment"]["packages"]["jax"]


def _page(rows: Sequence[Row], folder: Path) -> list[str]:
    lines = [
        "# How fast are the networks on a CPU, beside other libraries'?",
        "",
        "Each contestant is a process of its own; all take turns, and the median of a contestant's turns counts.",
        "PyTorch runs in both layouts, and the faster one counts. All in float32, on the same images. Ratios are ours",
        "by theirs; in brackets, who was best. Compiling and memory (what a step takes beside its arguments and",
        "results, as XLA plans it) are ours; behind the stroke, the same with XLA's own convolutions.",
    ]
    for setting in sorted({_setting(row) for row in rows}):
        mode, batch, jax = setting
        chosen = [row for row in rows if _setting(row) == setting]
        picture = f"{mode}_{batch}_jax_{jax}.png"
        _draw(chosen, folder / picture)
        lines += ["", f"## {mode}, batch {batch}, JAX {jax}: {_WHAT[mode]}", ""]
        lines += [*_HEAD, *(_line(row) for row in chosen), "", f"![images per second, by the best]({picture})"]
    return lines


def _line(row: Row) -> str:
    contestants = row["contestants"]
    ours = contestants[0]
    native = next((each for each in contestants[1:] if each["lowering"] == "native"), None)
    cells = [
        f"`{row['network']}`",
        f"{ours['images_per_second']:,.1f}",
        *(_ratio(ours, best_of(contestants, kind)) for kind in ("torch", "jax")),
        _ratio(ours, native, named=False),
        *(
            _pair(ours, native, name, scale)
            for name, scale in (("compile_seconds", 1.0), ("temporary_bytes", 1 / 2**20))
        ),
    ]
    return f"| {' | '.join(cells)} |"


def _ratio(ours: Row, other: Row | None, *, named: bool = True) -> str:
    if other is None:
        return "-"
    name = f"{other['name']} {other['lowering']}" if str(other["name"]).startswith("cnnjax/") else other["name"]
    return f"{ours['images_per_second'] / other['images_per_second']:.2f}" + (f" ({name})" if named else "")


def _pair(ours: Row, native: Row | None, name: str, scale: float) -> str:
    if name not in ours:
        return "-"
    return " / ".join(f"{each[name] * scale:,.1f}" for each in (ours, native) if each is not None)


def _draw(rows: Sequence[Row], path: Path) -> None:
    """A bar for each network: our images per second by those of the best PyTorch and of the best other JAX."""
    figure, panels = new_figure(9, 1.2 + 0.42 * len(rows))
    axes = panels[0, 0]
    found = []
    for offset, kind, label, color in ((-0.2, "torch", "PyTorch", _BLUE), (0.2, "jax", "JAX", _ORANGE)):
        for index, row in enumerate(rows):
            best = best_of(row["contestants"], kind)
            if best is None:
                continue
            ratio = row["contestants"][0]["images_per_second"] / best["images_per_second"]
            found.append(ratio)
            axes.barh(index + offset, ratio - 1, 0.38, left=1, color=color, label=f"by the best {label}")
            side = "left" if ratio >= 1 else "right"
            axes.text(ratio, index + offset, f" {ratio:.2f} ", va="center", ha=side, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    low, high = 0.7 * min([*found, 0.7]), 1.4 * max([*found, 1.4])
    axes.set_xlim(low, high)
    axes.set_xticks([tick for tick in _TICKS if low <= tick <= high])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [row["network"] for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # downwards
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("images per second, ours by theirs", fontsize=8)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), fontsize=8, frameon=False, loc="outside upper center", ncols=2)
    figure.savefig(path)
