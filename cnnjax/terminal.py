"""What people see: live progress on a terminal, plain lines elsewhere, tables."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from cnnjax.train.reporting import Record, Reporter


def make_reporter(*, quiet_stdout: bool) -> "PlainReporter | LiveReporter":
    """Live progress if a person watches, else plain lines; on standard error if standard output is for a program."""
    stream = sys.stderr if quiet_stdout else sys.stdout
    console = Console(file=stream, highlight=False, soft_wrap=True)
    return LiveReporter(console) if console.is_terminal else PlainReporter(console)


class PlainReporter(Reporter):
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
            TextColumn("step", table_column=Column(no_wrap=True)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            BarColumn(),
            TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
            TextColumn("ETA", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task("", total=None, numbers="")
        self._since, self._step = 0.0, 0
        self._compiling = False

    def start(self, step: int, total_steps: int, batch_size: int) -> None:
        """Shows the bar."""
        super().start(step, total_steps, batch_size)
        self._compiling = True
        self.progress.reset(self.task, total=total_steps, completed=step, numbers="compiling")
        self.progress.start()

    def advance(self, step: int, latest: Record) -> None:
        """Moves the bar, a few times a second at most."""
        now = time.perf_counter()
        numbers = f"loss {latest['loss']:.4f} accuracy {latest['accuracy']:.2%}"
        if self._compiling:  # what went before says nothing of the speed
            self._compiling = False
            self._since, self._step = now, step
            self.progress.reset(self.task, completed=step, total=self.total_steps, numbers=numbers)
        elif now - self._since >= 0.25:
            rate = (step - self._step) * self.batch_size / (now - self._since)
            self._since, self._step = now, step
            self.progress.update(self.task, completed=step, numbers=f"{numbers} {rate:,.0f} images/s")

    def record(self, record: Record) -> None:
        """A line of the history, after which the speed is measured anew: an evaluation is no part of it."""
        super().record(record)
        self._since, self._step = time.perf_counter(), record["step"]
        self.progress.update(self.task, completed=record["step"])

    def stop(self) -> None:
        """Takes the bar away."""
        self.progress.stop()


def print_result(result: Record) -> None:
    """The outcome of a training or an evaluation."""
    console = Console(highlight=False, soft_wrap=True)
    if result.get("accuracy") is not None:
        error = 100 * (1 - result["accuracy"])
        console.print(f"held-out accuracy {result['accuracy']:.2%} (error {error:.2f} %), loss {result['loss']:.4f}")
        if "mean_iou" in result:
            console.print(f"mean intersection over union {result['mean_iou']:.2%}")
        if "accuracy_interval" in result:
            low, high = result["accuracy_interval"]
            examples = result["examples"]
            console.print(f"95 % interval {low:.2%} to {high:.2%}, as {examples:,} examples can tell", markup=False)
    console.print(f"step {result['step']}, run folder {result['run_dir']}", markup=False)


def print_predictions(predictions: list[Any]) -> None:
    """A table with the likeliest classes of each image."""
    table = Table(
        _words("image"), _words("class"), numbers("probability"), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for prediction in predictions:
        for index, (name, probability) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True)):
            image = Text(prediction.image if index == 0 else "")
            last = index == len(prediction.classes) - 1
            table.add_row(image, Text(name), f"{probability:.1%}", end_section=last)
    show(table)


def print_data(described: Record) -> None:
    """A table of how many examples of each class there are, and their sums."""
    counts, sums = described["classes"], described["examples"]
    table = Table(_words("class"), numbers("train"), numbers("held out"), box=box.SIMPLE_HEAD, show_edge=False)
    for index, name in enumerate(described["class_names"]):
        cells = ("" if each is None else f"{each[index]:,}" for each in counts.values())
        table.add_row(Text(name), *cells)
    table.add_section()
    table.add_row("all", *(f"{each:,}" for each in sums.values()))
    show(table)
    print(f"images of {by(described['image_shape'])}")


def print_converted(described: Record) -> None:
    """What a conversion wrote, and the source that reads it."""
    for split, title in (("train", "training"), ("test", "held-out")):
        count, shards, size = (described[name][split] for name in ("examples", "shards", "bytes"))
        skipped = described["skipped"][split]
        left_out = f"; left out {skipped:,} that cannot be read" if skipped else ""
        files = f"{shards:,} file{'s' if shards > 1 else ''}"
        print(f"{count:,} {title} examples in {files} of {size / 1e6:,.1f} MB together{left_out}")
    print(f"data.source: {{kind: arrayrecord, path: {described['path']}}}")


def print_arrays(arrays: Mapping[str, Any]) -> None:
    """A table of names, shapes and types."""
    columns = _words("name"), _words("shape"), _words("type")
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, array in arrays.items():
        table.add_row(Text(name), by(array.shape), str(array.dtype))
    show(table)


def print_models(rows: list[Record]) -> None:
    """A table of networks, and below it their other names and their papers."""
    columns = _words("name"), numbers("parameters"), numbers("multiply-adds"), _words("input"), numbers("paper")
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    papers = list(dict.fromkeys(row["paper"] for row in rows))
    for row in rows:
        paper = Text(f"[{papers.index(row['paper']) + 1}]")
        table.add_row(row["name"], f"{row['params']:,}", f"{row['macs']:,}", by(row["input"]), paper)
    show(table)
    for row in rows:
        if row["aliases"]:
            print(f"{row['name']} is also called {', '.join(row['aliases'])}")
    for number, paper in enumerate(papers, 1):
        print(f"[{number}] {paper}")


def print_peers(rows: list[Record]) -> None:
    """A table of other libraries' networks: which variant each of them is, and with which fields."""
    columns = _words("name"), _words("variant"), _words("input"), _words("fields")
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        fields = " ".join(f"{key}={json.dumps(value)}" for key, value in row["fields"].items())
        table.add_row(row["name"], row["variant"], by(row["input"]), Text(fields))
    show(table)


def print_summary(name: str, shape: tuple[int, int, int], summary: Any) -> None:
    """A table of layers, one of feature maps, and the sums."""
    print(f"{name}, input {by(shape)}")
    _print_layers(summary.layers)
    print()
    _print_features(summary.features)
    fields = [each.receptive_field for each in (*summary.layers, *summary.features) if each.receptive_field is not None]
    print()
    if any(field.whole_image for field in fields):
        print("image: sees all of it, through a mean over all positions or a dense layer")
    if any(layer.training_only for layer in summary.layers):
        print("*: computed in training alone, and so in no sum but that of the parameters and batch statistics")
    print(
        f"{summary.activation_bytes:,} bytes of activations, {summary.largest_activation_bytes:,} in the largest layer"
    )
    print(
        f"{summary.params:,} parameters, {summary.batch_stats:,} batch statistics, {summary.macs:,} multiply-adds, "
        f"{summary.connections:,} connections"
    )


def _print_layers(layers: Sequence[Any]) -> None:
    # Elsewhere a connection is a multiply-add or a bias, and the column would say nothing new.
    tell_connections = any(
        layer.params and layer.connections - layer.macs not in (0, math.prod(layer.output_shape)) for layer in layers
    )
    table = Table(
        *(_words(title) for title in ("layer", "kind", "output", "kernel", "stride")),
        *(numbers(title) for title in ("parameters", "multiply-\nadds")),
        *([numbers("connec-\ntions")] if tell_connections else []),
        *(numbers(title) for title in ("activation\nbytes", "receptive\nfield")),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for layer in layers:
        table.add_row(
            layer.name + (" *" if layer.training_only else ""),
            layer.kind,
            by(layer.output_shape),
            by(layer.kernel),
            by(layer.stride),
            f"{layer.params:,}",
            f"{layer.macs:,}",
            *([f"{layer.connections:,}"] if tell_connections else []),
            f"{layer.activation_bytes:,}",
            _field(layer.receptive_field),
        )
    show(table)


def _print_features(features: Sequence[Any]) -> None:
    columns = (
        _words("feature map"),
        numbers("stride"),
        numbers("channels"),
        _words("size"),
        numbers("receptive field"),
    )
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for each in features:
        stride = by([f"{size:g}" for size in each.stride]) if each.stride else ""
        table.add_row(each.name, stride, str(each.channels), by(each.size), _field(each.receptive_field))
    show(table)


def _field(field: Any) -> str:
    """What a position sees: a window, the image, or both."""
    if field is None:
        return ""
    return " + ".join(([by(field.size)] if field.size else []) + (["image"] if field.whole_image else []))


def _words(title: str) -> Column:
    return Column(title, overflow="fold")


def numbers(title: str) -> Column:
    """A table's column of numbers."""
    return Column(title, justify="right", no_wrap=True)


def show(table: Table) -> None:
    """Prints a table as wide as where it goes."""
    console = Console(highlight=False)
    # A file or a pipe is as wide as it needs to be; a terminal folds words, but not into single letters.
    console.width = max(80, console.width) if console.is_terminal else 10_000
    console.print(table)


def by(sizes: Sequence[object] | None) -> str:
    """Sizes such as 224x224; empty without any."""
    return "x".join(map(str, sizes)) if sizes else ""


def _record_line(record: Record, total_steps: int) -> str:
    where = f"step {record['step']}/{total_steps}, epoch {record['epoch']:.4g}"
    told = f"loss {record['loss']:.4f}, accuracy {record['accuracy']:.2%}"
    if "mean_iou" in record:
        told += f", mean IoU {record['mean_iou']:.2%}"
    if "skipped" in record:
        told += f", left out {record['skipped']} that cannot be read"
    if record["kind"] == "train":
        rate = record["images_per_second"]
        return f"{where}: {told}" + (f", {rate:,.0f} images/s" if rate is not None else "")
    weights = " (averaged weights)" if record["weights"] == "ema" else ""
    return f"{where}: held-out{weights} {told}"
