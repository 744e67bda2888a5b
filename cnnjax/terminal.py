"""What people see: live progress on a terminal, plain lines elsewhere, tables."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Record = dict[str, Any]


def make_reporter(*, quiet_stdout: bool) -> "PlainReporter | LiveReporter":
    """Live progress if a person watches, else plain lines; on standard error if standard output is for a program."""
    stream = sys.stderr if quiet_stdout else sys.stdout
    console = Console(file=stream, highlight=False, soft_wrap=True)
    return LiveReporter(console) if console.is_terminal else PlainReporter(console)


class PlainReporter:
    """One line for each thing worth a line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total_steps = 0
        self.batch_size = 0

    def start(self, step: int, total_steps: int, batch_size: int) -> None:
        """Training begins at `step`."""
        self.total_steps, self.batch_size = total_steps, batch_size

    def message(self, text: str) -> None:
        """A sentence."""
        self.console.print(text, markup=False)

    def advance(self, step: int, latest: Record) -> None:
        """Nothing: the records tell enough."""

    def record(self, record: Record) -> None:
        """A line of the history, in a form for people."""
        self.console.print(_record_line(record, self.total_steps), markup=False)

    def stop(self) -> None:
        """Nothing is left open."""


class LiveReporter(PlainReporter):
    """The same lines, above a bar with loss, accuracy, speed and the time that is left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task("", total=None, numbers="")
        self._since, self._step = 0.0, 0

    def start(self, step: int, total_steps: int, batch_size: int) -> None:
        """Shows the bar."""
        super().start(step, total_steps, batch_size)
        self.progress.update(self.task, total=total_steps, completed=step)
        self._since, self._step = time.perf_counter(), step
        self.progress.start()

    def advance(self, step: int, latest: Record) -> None:
        """Moves the bar, a few times a second at most."""
        now = time.perf_counter()
        if now - self._since < 0.25:
            return
        rate = (step - self._step) * self.batch_size / (now - self._since)
        self._since, self._step = now, step
        numbers = f"loss {latest['loss']:.4f}  accuracy {latest['accuracy']:.2%}  {rate:,.0f} images/s"
        self.progress.update(self.task, completed=step, numbers=numbers)

    def stop(self) -> None:
        """Takes the bar away."""
        self.progress.stop()


def print_result(result: Record) -> None:
    """The outcome of a training or an evaluation."""
    console = Console(highlight=False, soft_wrap=True)
    if result.get("accuracy") is not None:
        error = 100 * (1 - result["accuracy"])
        console.print(f"held-out accuracy {result['accuracy']:.2%} (error {error:.2f} %), loss {result['loss']:.4f}")
    console.print(f"step {result['step']}, run folder {result['run_dir']}", markup=False)


def print_predictions(predictions: list[Any]) -> None:
    """A table with the likeliest classes of each image."""
    table = Table("image", "class", "probability")
    for prediction in predictions:
        for index, (name, probability) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True)):
            image = prediction.image if index == 0 else ""
            table.add_row(image, name, f"{probability:.1%}", end_section=index == len(prediction.classes) - 1)
    Console().print(table)


def print_models(rows: list[Record]) -> None:
    """A table of networks."""
    table = Table("name", "parameters", "multiply-adds", "input", "paper")
    for row in rows:
        shape = "x".join(map(str, row["input"]))
        table.add_row(row["name"], f"{row['params']:,}", f"{row['macs']:,}", shape, row["paper"])
    Console().print(table)


def print_summary(name: str, shape: tuple[int, int, int], summary: Any) -> None:
    """A table of layers, and the sums."""
    table = Table("layer", "kind", "output", "kernel", "stride", "parameters", "multiply-adds", "connections")
    for layer in summary.layers:
        table.add_row(
            layer.name,
            layer.kind,
            _by(layer.output_shape),
            _by(layer.kernel),
            _by(layer.stride),
            f"{layer.params:,}",
            f"{layer.macs:,}",
            f"{layer.connections:,}",
        )
    console = Console()
    console.print(f"{name}, input {_by(shape)}")
    console.print(table)
    console.print(
        f"{summary.params:,} parameters, {summary.batch_stats:,} batch statistics, {summary.macs:,} multiply-adds, "
        f"{summary.connections:,} connections"
    )


def _by(sizes: tuple[int, ...] | None) -> str:
    return "x".join(map(str, sizes)) if sizes else ""


def _record_line(record: Record, total_steps: int) -> str:
    where = f"step {record['step']}/{total_steps}, epoch {record['epoch']:.4g}"
    numbers = f"loss {record['loss']:.4f}, accuracy {record['accuracy']:.2%}"
    if record["kind"] == "train":
        return f"{where}: {numbers}, {record['images_per_second']:,.0f} images/s"
    weights = " (averaged weights)" if record["weights"] == "ema" else ""
    return f"{where}: held-out{weights} {numbers}"
