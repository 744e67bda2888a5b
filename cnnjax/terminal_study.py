"""What people see of a study: its runs, its arms, its verdicts."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnjax.study.wording import between, number

_COLOURS = {"reproduced": "green", "not reproduced": "red", "undecided": "yellow", "failed": "red", "finished": "green"}


def print_status(study: Any, rows: list[dict[str, Any]]) -> None:
    """A line a run, and how many there are of each status."""
    table = _table(
        ("arm", "left"), ("seed", "right"), ("status", "left"), ("test error (%)", "right"), ("seconds", "right")
    )
    for row in rows:
        error = "" if row["test_error"] is None else f"{row['test_error']:.2f}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        table.add_row(row["arm"], str(row["seed"]), _coloured(row["status"]), error, seconds)
    console = _console()
    console.print(table)
    for row in rows:
        if row["error"]:
            console.print(
                f"{row['arm']}, seed {row['seed']} failed: {row['error']} (in {row['run_dir']})", markup=False
            )
    counts = {
        status: sum(row["status"] == status for row in rows)
        for status in ("finished", "interrupted", "failed", "waiting")
    }
    console.print(f"{len(rows)} runs: " + ", ".join(f"{count} {status}" for status, count in counts.items() if count))


def print_answers(study: Any, answers: Any) -> None:
    """The arms' means and the verdicts."""
    console = _console()
    table = _table(
        ("arm", "left"),
        ("runs", "right"),
        (f"{study.metric}", "right"),
        ("deviation", "right"),
        (f"{study.confidence:.0%} interval", "left"),
    )
    for result in answers.results:
        name = result.arm.name
        summary = answers.summaries.get(name)
        runs = f"{len(result.measures)} of {len(result.measures) + len(result.missing)}"
        if summary is None:
            table.add_row(name, runs, "", "", "")
            continue
        table.add_row(name, runs, number(summary.mean), number(summary.deviation), between(summary.interval))
    console.print(table)
    for each in answers.answers:
        found = (
            ""
            if each.value is None
            else f": {number(each.value)}, {study.confidence:.0%} interval {between(each.interval)}"
        )
        console.print(Text.assemble(_coloured(each.verdict), f"  {each.hypothesis.claim}{found} ({each.reason})"))
    if not answers.complete:
        console.print("not all runs are finished; see 'cnnjax study status'")


def print_computed(found: Any) -> None:
    """A line a claim, and how many hold."""
    from cnnjax.study.arithmetic import in_words

    console = _console()
    for each in found:
        numbers = in_words(each.computed)
        if each.verdict != "reproduced":
            numbers += f", not {in_words(each.expected)}"
        console.print(Text.assemble(_coloured(f"{each.verdict:14}"), f"  {each.claim}: {numbers}"))
    reproduced = sum(each.verdict == "reproduced" for each in found)
    console.print(f"{reproduced} of {len(found)} reproduced, {len(found) - reproduced} not")


def _coloured(text: str) -> Text:
    return Text(text, style=_COLOURS.get(text.strip(), ""))


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _table(*columns: tuple[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)
    return table
