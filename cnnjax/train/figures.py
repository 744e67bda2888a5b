"""The picture of a run."""

from pathlib import Path

from cnnjax.train.run_folder import Record

# Okabe and Ito's palette: told apart by all kinds of colour vision.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"


def draw_learning_curve(history: list[Record], title: str, path: Path) -> None:
    """Writes a PNG: loss and error over epochs, on the training set and on the held-out set; nothing if no history."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [
        ("training", _BLUE, "-", [record for record in history if record["kind"] == "train"]),
        ("held-out", _ORANGE, "-", _evaluations(history, "raw")),
        ("held-out, averaged weights", _GREEN, "--", _evaluations(history, "ema")),
    ]
    if not any(records for *_, records in lines):
        return
    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (metric, label) in zip(
        figure.subplots(1, 2), (("loss", "loss (nats)"), ("accuracy", "error (%)")), strict=True
    ):
        for name, color, style, records in lines:
            values = [record[metric] if metric == "loss" else 100 * (1 - record[metric]) for record in records]
            if values:
                epochs = [record["epoch"] for record in records]
                marker = "o" if len(values) < 30 else ""
                axes.plot(epochs, values, color=color, linestyle=style, marker=marker, markersize=3, label=name)
                if metric == "accuracy" and name.startswith("held-out"):
                    axes.annotate(
                        f"{values[-1]:.2f}", (epochs[-1], values[-1]), fontsize=8, color=color, ha="right", va="bottom"
                    )
        axes.set(xlabel="epoch", ylabel=label)
        axes.set_yscale(
            "symlog" if metric == "accuracy" else "log", **({"linthresh": 0.1} if metric == "accuracy" else {})
        )
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path)


def _evaluations(history: list[Record], weights: str) -> list[Record]:
    return [record for record in history if record["kind"] == "eval" and record["weights"] == weights]
