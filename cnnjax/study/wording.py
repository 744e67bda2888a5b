"""Numbers and tables as a reader sees them."""

from collections.abc import Sequence


def number(value: float | None) -> str:
    """With as many digits as tell something; nothing for None."""
    if value is None:
        return ""
    return f"{value:.2f}" if 0.1 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


def between(interval: tuple[float, float] | None) -> str:
    """`1.20 to 1.40`; nothing for None."""
    return "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def p_value(value: float | None) -> str:
    """`0.031`, or `< 0.001`."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table's lines; bars in cells are kept from parting them."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
