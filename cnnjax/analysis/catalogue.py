"""One line a registered network, ours or another library's.

Run as a program it writes `cnnjax/analysis/counts.py`, with which the lines of all networks are there at once.
"""

from pathlib import Path
from typing import Any

from cnnjax.analysis import counts
from cnnjax.analysis.count import Known, count
from cnnjax.models import ALIASES, create_model, get_peer, get_variant, list_models


def describe_model(name: str) -> dict[str, Any]:
    """name, aliases, params, batch_stats, macs (for one image of the variant's own size), input and paper of a variant.

    The counts are those of `cnnjax.analysis.counts`; what is not in there is counted now.
    """
    variant = get_variant(name)
    params, batch_stats, macs = counts.COUNTS.get(name) or count_named(name)
    return {
        "name": name,
        "aliases": [alias for alias, original in ALIASES.items() if original == name],
        "params": params,
        "batch_stats": batch_stats,
        "macs": macs,
        "input": list(variant.input_shape),
        "paper": variant.paper,
    }


def describe_peer(name: str) -> dict[str, Any]:
    """name, variant (of ours), fields (that make the variant what the other library has), input and paper."""
    ours, fields = get_peer(name)
    variant = get_variant(name)
    return {
        "name": name,
        "variant": ours,
        "fields": dict(fields),
        "input": list(variant.input_shape),
        "paper": variant.paper,
    }


def count_named(name: str, known: Known | None = None) -> tuple[int, int, int]:
    """Parameters, batch statistics and multiply-adds of a network, for one image of its own size."""
    counted = count(create_model(name), get_variant(name).input_shape, known)
    return (counted.params, counted.batch_stats, counted.macs)


def table_of_counts() -> str:
    """The source of `cnnjax/analysis/counts.py`, counted now."""
    known: Known = {}
    rows = {name: count_named(name, known) for name in list_models()}
    lines = [f'    "{name}": ({params:_}, {stats:_}, {macs:_}),' for name, (params, stats, macs) in rows.items()]
    return "\n".join(
        [
            '"""Parameters, batch statistics and multiply-adds of every variant, since counting takes a while.',
            "",
            "Written by `python -m cnnjax.analysis.catalogue`, and not to be edited by hand; a test counts it again.",
            '"""',
            "",
            "COUNTS: dict[str, tuple[int, int, int]] = {",
            *lines,
            "}",
            "",
        ]
    )


if __name__ == "__main__":
    Path(counts.__file__).write_text(table_of_counts(), encoding="utf-8")
