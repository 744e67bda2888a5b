"""A study's pictures: each arm with its error bar, differences, learning curves, cost, gradients by module."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from cnnjax.study.answers import Answers, ArmResult
from cnnjax.study.question import COSTS, Study
from cnnjax.study.statistics import PowerFit
from cnnjax.train.pictures import as_written, new_figure
from cnnjax.train.reporting import Record

# Okabe and Ito's palette: told apart by all kinds of colour vision. Beyond it, other strokes and markers tell.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STROKES = ("-", "--", ":", "-.")
_MARKERS = "osD^vP*X"

LABELS = {
    "test_error": "held-out error (%)",
    "training_error": "training error (%)",
    "gap": "held-out less training error (points)",
    "test_loss": "held-out loss",
    "training_loss": "training loss",
    "mean_iou": "mean intersection over union (%)",
    "macs": "multiply-adds for an image",
    "params": "parameters",
    "seconds": "seconds of a run",
}


def label_of(metric: str) -> str:
    """A metric in words."""
    return LABELS.get(metric, metric.replace("_", " "))


def draw_arms(study: Study, answers: Answers, path: Path) -> None:
    """A row for each arm: its runs, their mean, and its t interval."""
    finished = [result for result in answers.results if result.measures]
    figure, axes = _figure(8, 1.1 + 0.38 * len(finished))
    for index, result in enumerate(finished):
        summary = answers.summaries[result.arm.name]
        _spread(axes, list(result.values(study.metric).values()), index, summary.mean, summary.interval)
    _rows(axes, [result.arm.name for result in finished])
    axes.set_xlabel(f"{label_of(study.metric)}: runs, mean and its {study.confidence:.0%} interval")
    figure.savefig(path)


def draw_differences(study: Study, answers: Answers, baseline: str, path: Path) -> None:
    """A row for each comparison: the differences by seed where they are paired, their mean, and its interval."""
    figure, axes = _figure(8, 1.1 + 0.38 * len(answers.comparisons))
    by_name = {result.arm.name: result.values(study.metric) for result in answers.results}
    for index, each in enumerate(answers.comparisons):
        own, other = by_name[each.arm], by_name[baseline]
        differences = [own[seed] - other[seed] for seed in own if seed in other] if study.design == "paired" else []
        _spread(axes, differences, index, each.estimate.value, each.interval)
    axes.axvline(0, color="#666666", linewidth=1)
    _rows(axes, [each.arm for each in answers.comparisons])
    pairs = "pairs, " if study.design == "paired" else ""
    less = f"{label_of(study.metric)}, less '{as_written(baseline)}'"
    axes.set_xlabel(f"{less}: {pairs}mean and its {study.confidence:.0%} interval")
    figure.savefig(path)


def draw_curves(histories: Mapping[str, Sequence[Sequence[Record]]], path: Path) -> None:
    """Training loss and held-out error over epochs: each arm's mean over its seeds, and the range of these."""
    figure, (left, right) = _figure(10, 4.2, 2)
    panels: list[tuple[Any, str, str, Callable[[Record], float]]] = [
        (left, "train", "training loss (mean of an interval)", lambda record: record["loss"]),
        (right, "eval", "held-out error (%)", lambda record: 100 * (1 - record["accuracy"])),
    ]
    for axes, kind, label, value in panels:
        for index, (name, runs) in enumerate(histories.items()):
            kept = [[record for record in run if record["kind"] == kind] for run in runs]
            kept = [_last_weights(records) if kind == "eval" else _whole_intervals(records) for records in kept]
            steps = min(map(len, kept), default=0)
            if not steps:
                continue
            epochs = [record["epoch"] for record in kept[0][:steps]]
            values = np.array([[value(record) for record in records[:steps]] for records in kept])
            style = _style(index)
            axes.plot(epochs, values.mean(0), label=as_written(name), linewidth=1.5, markersize=3, **style)
            axes.fill_between(epochs, values.min(0), values.max(0), color=style["color"], alpha=0.12, linewidth=0)
        axes.set(xlabel="epoch", ylabel=label)
        axes.set_xlim(left=0)
        axes.grid(visible=True, alpha=0.25)
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(3, max(1, len(histories))),
        fontsize=8,
        frameon=False,
    )
    figure.savefig(path)


def draw_costs(study: Study, answers: Answers, path: Path) -> None:
    """The metric against multiply-adds, parameters and seconds, with the Pareto front and the fitted power laws."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure, panels = _figure(12, 4.2, len(COSTS))
    for axes, cost in zip(panels, COSTS, strict=True):
        points = {}
        for index, result in enumerate(answers.results):
            name = result.arm.name
            if name in answers.summaries:
                summary = answers.summaries[name]
                x = fmean(result.values(cost).values())
                points[name] = (x, summary.mean)
                low, high = summary.interval or (summary.mean, summary.mean)
                bars = [[summary.mean - low], [high - summary.mean]]
                style = _style(index)
                axes.errorbar(
                    [x],
                    [summary.mean],
                    yerr=bars,
                    capsize=3,
                    markersize=5,
                    label=as_written(name),
                    **{**style, "linestyle": ""},
                )
        front = [points[name] for name in answers.fronts[cost]]
        axes.step(*zip(*front, strict=True), where="post", color="#888888", linewidth=1, label="Pareto front")
        for index, (name, fit) in enumerate(answers.power_laws.items()):
            if isinstance(fit, PowerFit) and study.power_laws[name].cost == cost:
                _draw_fit(axes, name, fit, points.values(), index)
        axes.set(xlabel=label_of(cost), ylabel=label_of(study.metric))
        if max(x for x, _ in points.values()) > 5 * min(x for x, _ in points.values()):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.grid(visible=True, alpha=0.25)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path)


def draw_gradients(results: Sequence[ArmResult], path: Path) -> None:
    """Gradient norms by module, from the image to the head, before the first step and after the last one."""
    figure, panels = _figure(12, 4.8, 2)
    for axes, moment in zip(panels, ("start", "end"), strict=True):
        for index, result in enumerate(each for each in results if each.measures):
            runs = [measures["gradient_norm"][moment] for measures in result.measures.values()]
            modules = list(runs[0])
            # No place on a logarithmic axis for the zeros of what a loss without weight feeds.
            means = [fmean(run[module] for run in runs) or np.nan for module in modules]
            axes.plot(modules, means, label=as_written(result.arm.name), linewidth=1.5, markersize=4, **_style(index))
        axes.set_yscale("log")
        axes.set_title({"start": "before the first step", "end": "after the last step"}[moment], fontsize=10)
        axes.set_ylabel("norm of the gradient, mean over seeds")
        axes.tick_params(axis="x", rotation=90, labelsize=8)
        axes.grid(visible=True, alpha=0.25)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    figure.savefig(path)


def _figure(width: float, height: float, panels: int = 1) -> tuple[Any, Any]:
    """One panel, or a row of them."""
    figure, row = new_figure(width, height, 1, panels, dpi=110)
    return figure, row[0] if panels > 1 else row[0, 0]


def _style(index: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "linestyle": _STROKES[index // len(_COLOURS) % len(_STROKES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def _spread(axes: Any, values: Sequence[float], row: int, mean: float, interval: tuple[float, float] | None) -> None:
    axes.plot(values, [row + 0.16] * len(values), "o", color=_COLOURS[0], alpha=0.45, markersize=4, markeredgewidth=0)
    axes.plot([mean], [row], "D", color=_COLOURS[1], markersize=5)
    if interval is not None:
        axes.plot(interval, [row, row], "-", color=_COLOURS[1], linewidth=2)


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [as_written(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.grid(visible=True, axis="x", alpha=0.25)


def _last_weights(records: Sequence[Record]) -> list[Record]:
    """Of each evaluation the record of the weights that count: the averaged ones where a run has some."""
    return list({record["step"]: record for record in records}.values())


def _whole_intervals(records: Sequence[Record]) -> list[Record]:
    """Without a last one that ends early, whose mean is over fewer steps than the others'."""
    if len(records) > 2 and records[-1]["step"] - records[-2]["step"] < records[0]["step"] / 2:
        return list(records[:-1])
    return list(records)


def _draw_fit(axes: Any, name: str, fit: PowerFit, points: Any, index: int) -> None:
    costs = [x for x, _ in points]
    x = np.geomspace(min(costs), max(costs), 50)
    label = f"{as_written(name)}: cost ** {fit.exponent.value:.3f}"
    axes.plot(
        x,
        fit.factor * x**fit.exponent.value,
        linewidth=1,
        label=label,
        color=_COLOURS[(index + 1) % len(_COLOURS)],
        linestyle=":",
    )
