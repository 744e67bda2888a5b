"""The picture of a run, or of several runs that differ in their seed."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from cnnjax.train.pictures import as_written, new_figure
from cnnjax.train.reporting import Record

# Okabe and Ito's palette: told apart by all kinds of colour vision.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"


def draw_learning_curve(history: list[Record], title: str, path: Path) -> None:
    """Writes a PNG: loss and error over epochs, on the training set and on the held-out set; nothing if no history."""
    draw_learning_curves([history], title, path)


def draw_learning_curves(histories: Sequence[list[Record]], title: str, path: Path) -> None:
    """The same for several runs of one config: a line a run, and the mean of their last values in the legend."""
    kinds = [
        ("training", _BLUE, "-", [[each for each in history if each["kind"] == "train"] for history in histories]),
        ("held-out", _ORANGE, "-", [_evaluations(history, "raw") for history in histories]),
        ("held-out, averaged weights", _GREEN, "--", [_evaluations(history, "ema") for history in histories]),
    ]
    if not any(any(runs) for *_, runs in kinds):
        return
    figure, panels = new_figure(9, 3.8, 1, 2)
    for axes, (metric, label) in zip(panels[0], (("loss", "loss"), ("accuracy", "error (%)")), strict=True):
        for name, color, style, runs in kinds:
            curves = [([each["epoch"] for each in records], _values(records, metric)) for records in runs if records]
            for index, (epochs, values) in enumerate(curves):
                last = fmean(values[-1] for _, values in curves)
                text = f"{name}: {last:.3g}" if index == 0 else None
                marker = "o" if len(values) < 30 else ""
                axes.plot(
                    epochs,
                    values,
                    color=color,
                    linestyle=style,
                    marker=marker,
                    markersize=2.5,
                    linewidth=1.2,
                    label=text,
                )
        axes.set(xlabel="epoch", ylabel=label)
        axes.set_xlim(left=0)
        _scale(axes, [value for *_, runs in kinds for records in runs for value in _values(records, metric)])
        axes.tick_params(which="both", labelsize=8)
        axes.grid(visible=True, which="both", alpha=0.25)
        title_of_legend = "last value" if len(histories) == 1 else "mean of last values"
        axes.legend(fontsize=8, title_fontsize=8, frameon=False, title=title_of_legend)
    figure.suptitle(as_written(title), fontsize=10)
    figure.savefig(path)


def _scale(axes: Any, values: list[float]) -> None:
    """Logarithmic where the values span more than a factor of 4; linear near zero, so that zeros are drawn too."""
    from matplotlib.ticker import FuncFormatter

    positive = [value for value in values if 0 < value < math.inf]
    if not positive or (0.0 not in values and max(positive) < 4 * min(positive)):
        return
    if 0.0 in values:
        axes.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(max(positive)) - 2))
        axes.set_ylim(0, 1.5 * max(positive))
    else:
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    # Of the ticks between powers of ten only some get numbers, or they would run into each other.
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "235" else ""))


def _values(records: list[Record], metric: str) -> list[float]:
    return [each[metric] if metric == "loss" else 100 * (1 - each[metric]) for each in records]


def _evaluations(history: list[Record], weights: str) -> list[Record]:
    return [record for record in history if record["kind"] == "eval" and record["weights"] == weights]
