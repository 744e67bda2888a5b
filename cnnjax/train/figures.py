"""The picture of a run, or of several runs that differ in their seed."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from cnnjax.train.run_folder import Record

# Okabe and Ito's palette: told apart by all kinds of colour vision.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"


def draw_learning_curve(history: list[Record], title: str, path: Path) -> None:
    """Writes a PNG: loss and error over epochs, on the training set and on the held-out set; nothing if no history."""
    draw_learning_curves([history], title, path)


def draw_learning_curves(histories: Sequence[list[Record]], title: str, path: Path) -> None:
    """The same for several runs of one config: a line a run, and the mean of their last values in the legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    kinds = [
        ("training", _BLUE, "-", [[each for each in history if each["kind"] == "train"] for history in histories]),
        ("held-out", _ORANGE, "-", [_evaluations(history, "raw") for history in histories]),
        ("held-out, averaged weights", _GREEN, "--", [_evaluations(history, "ema") for history in histories]),
    ]
    if not any(any(runs) for *_, runs in kinds):
        return
    figure = Figure(figsize=(9, 3.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = zip(figure.subplots(1, 2), (("loss", "loss"), ("accuracy", "error (%)")), strict=True)
    for axes, (metric, label) in panels:
        for name, color, style, runs in kinds:
            curves = [
                ([each["epoch"] for each in records], [_value(each, metric) for each in records])
                for records in runs
                if records
            ]
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
        if metric == "loss":
            axes.set_yscale("log")
        else:  # logarithmic down to a tenth of a per cent, and zero can still be drawn
            axes.set_yscale("symlog", linthresh=0.1)
            axes.set_ylim(bottom=0)
        for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.tick_params(which="both", labelsize=8)
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend(fontsize=8, frameon=False, title="last value" if len(histories) == 1 else "mean of last values")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path)


def _value(record: Record, metric: str) -> float:
    return record[metric] if metric == "loss" else 100 * (1 - record[metric])


def _evaluations(history: list[Record], weights: str) -> list[Record]:
    return [record for record in history if record["kind"] == "eval" and record["weights"] == weights]
