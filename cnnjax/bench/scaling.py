"""Images per second as a network grows: deeper, wider, on larger images, in larger batches."""

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from cnnjax.analysis.count import count
from cnnjax.bench.contestants import Mode, our_step
from cnnjax.bench.pages import Row, add_row
from cnnjax.errors import ConfigError
from cnnjax.models import create_model
from cnnjax.train.pictures import new_figure

Axis = Literal["depth", "width", "resolution", "batch"]
AXES: tuple[Axis, ...] = get_args(Axis)
MODELS = ("resnet50", "efficientnet_b0")
_FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)
_SIZES = (64, 96, 128, 160, 192, 224, 256, 288)
_BATCHES = (1, 2, 4, 8, 16, 32)
_BATCH, _SIZE = 8, 224
_COLORS = {"depth": "#0072B2", "width": "#D55E00", "resolution": "#009E73", "batch": "#CC79A7"}


class Point(NamedTuple):
    """One size of a network."""

    axis: Axis
    value: float
    fields: dict[str, float]
    size: int
    batch: int


def points(axes: tuple[Axis, ...] = AXES) -> Iterator[Point]:
    """The sizes along each axis, the others as published, at batch 8 and 224x224 pixels."""
    for axis in axes:
        if axis in ("depth", "width"):
            yield from (Point(axis, factor, {axis: factor}, _SIZE, _BATCH) for factor in _FACTORS)
        elif axis == "resolution":
            yield from (Point(axis, size, {}, size, _BATCH) for size in _SIZES)
        else:
            yield from (Point(axis, batch, {}, _SIZE, batch) for batch in _BATCHES)


def measure_in_turns(model: str, mode: Mode, chosen: Sequence[Point], rounds: int = 5) -> list[dict[str, Any]]:
    """Times a network at several sizes, one step of each after the other: what else the machine does meets all alike.

    Returns:
        For each size what it is, `macs` (of one image, forward), `images_per_second`, `seconds` of a step (all rounds),
        and `compile_seconds`.

    Raises:
        ConfigError: the network has no such field, or takes no such image.
    """
    rows, steps = [], []
    for point in chosen:
        network, shape = create_model(model, **point.fields), (point.size, point.size, 3)
        if network.labels_pixels:
            raise ConfigError(f"bench scaling takes networks of images' classes; {model} labels pixels")
        macs = count(network, shape).macs
        step, facts = our_step(network, shape, mode, point.batch)
        step(1)
        steps.append(step)
        row = {"model": model, "mode": mode, **point._asdict(), "macs": macs}
        rows.append(row | {"seconds": [], "compile_seconds": facts["compile_seconds"]})
    for _ in range(rounds):
        for step, row in zip(steps, rows, strict=True):
            step(1)  # what the one before has left in the caches is not this one's
            start = time.perf_counter()
            step(1)
            row["seconds"].append(time.perf_counter() - start)
    return [row | {"images_per_second": row["batch"] / statistics.median(row["seconds"])} for row in rows]


def add_to_report(row: Row, folder: Path) -> Path:
    """Adds a point to a folder's page; an earlier one of the same size gives way; draws the curves anew."""
    return add_row(row, folder, _key, _page)


def _key(row: Row) -> tuple[Any, ...]:
    return row["model"], row["mode"], row["axis"], row["value"], row["environment"]["packages"]["jax"]


def _page(rows: Sequence[Row], folder: Path) -> list[str]:
    lines = [
        "# Does the cost grow as the work grows?",
        "",
        "Each network at other depths, widths, image sizes and batch sizes, the rest as published: at batch 8 and",
        "224x224 pixels. The points of an axis take turns, and the median of a point's steps counts: compare along an",
        "axis, not between axes. Work is multiply-accumulate operations of the forward pass; a train step takes about",
        "three times as many. Where speed is constant, points lie on a horizontal line.",
    ]
    for model, mode in sorted({(row["model"], row["mode"]) for row in rows}):
        chosen = sorted(
            (row for row in rows if (row["model"], row["mode"]) == (model, mode)),
            key=lambda row: (AXES.index(row["axis"]), row["value"]),
        )
        picture = f"{model}_{mode}.png"
        _draw(chosen, folder / picture)
        lines += ["", f"## `{model}`, {mode}", "", f"![speed against work]({picture})", ""]
        lines += [
            "| axis | value | GMACs of a batch | images/s | GMACs/s | compiling (s) |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['axis']} | {row['value']:g} | {_work(row):.2f} | {row['images_per_second']:,.1f} "
            f"| {_speed(row):.1f} | {row['compile_seconds']:.1f} |"
            for row in chosen
        ]
    return lines


def _work(row: Row) -> float:
    return float(row["macs"] * row["batch"] / 1e9)


def _speed(row: Row) -> float:
    return float(row["macs"] * row["images_per_second"] / 1e9)


def _draw(rows: list[Row], path: Path) -> None:
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure, panels = new_figure(9, 3.8, 1, 2)
    left, right = panels[0]
    for axis, color in _COLORS.items():
        chosen = [row for row in rows if row["axis"] == axis]
        if not chosen:
            continue
        style = {"color": color, "marker": "o", "markersize": 3, "linewidth": 1.2, "label": axis}
        work = [_work(row) for row in chosen]
        left.plot(work, [row["images_per_second"] for row in chosen], **style)
        right.plot(work, [_speed(row) for row in chosen], **style)
    left.set(xscale="log", yscale="log", xlabel="GMACs of a batch", ylabel="images per second")
    right.set(xscale="log", xlabel="GMACs of a batch", ylabel="GMACs per second (forward's)")
    right.set_ylim(bottom=0)
    for side in (left.xaxis, left.yaxis, right.xaxis):
        side.set_major_formatter(StrMethodFormatter("{x:g}"))
        side.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        side.set_minor_formatter(StrMethodFormatter("{x:g}"))
    for panel in (left, right):
        panel.grid(visible=True, which="both", alpha=0.25)
        panel.tick_params(labelsize=8)
        panel.tick_params(which="minor", labelsize=6)
    left.legend(fontsize=8, frameon=False)
    figure.savefig(path)
