"""Which form of a convolution is fastest on a CPU: what was measured for the most similar one.

`conv_table.json` is written by `cnnjax bench ops --write-table`: for programs with XLA's own routines and with
oneDNN's, a row for each of the networks' convolutions that was measured, with the form that won.
"""

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from cnnjax.ops.conv_forms import admitted
from cnnjax.ops.conv_geometry import Geometry, Map, lie_side_by_side
from cnnjax.ops.onednn import Library

TABLE = Path(__file__).with_suffix(".json")

Kind = Literal["pointwise", "depthwise", "grouped", "tiled", "dense", "small"]
"""Small is a dense one whose outputs are fewer, in rows or columns, than its window: oneDNN has no fast routine."""


class Case(NamedTuple):
    """What decides how fast a form is."""

    kind: Kind
    strided: bool
    window: int
    """Rows times columns of the kernel."""
    channels: int
    features: int
    groups: int
    positions: int
    """Images times rows times columns of the outputs."""


def case_of(geometry: Geometry, batch: int, channels: int, features: int) -> Case:
    """The case of a convolution of `channels` to `features` channels."""
    kind: Kind = "dense"
    if geometry.groups == channels and features % channels == 0 and channels > 1:
        kind = "depthwise"
    elif geometry.groups > 1:
        kind = "grouped"
    elif geometry.window == (1, 1):
        kind = "pointwise"
    elif lie_side_by_side(geometry):
        kind = "tiled"
    elif any(outputs < window for outputs, window in zip(geometry.outputs, geometry.window, strict=True)):
        kind = "small"
    return Case(
        kind,
        geometry.strides != (1, 1),
        math.prod(geometry.window),
        channels,
        features,
        geometry.groups,
        batch * math.prod(geometry.outputs),
    )


@functools.cache
def choose(library: Library, which: Map, geometry: Geometry, batch: int, channels: int, features: int) -> str:
    """The form that won for the most similar case that was measured, of those that can compute this one.

    `native` where there is none of its kind.
    """
    possible = admitted(geometry, channels, features)
    rows = [(case, form) for case, form in _table(library)[which] if form in possible]
    return similar(case_of(geometry, batch, channels, features), rows)


# Say eight times as many positions, or twice the channels, the features and the positions with some to spare.
_FAR = 4.0


def similar(case: Case, rows: Sequence[tuple[Case, str]]) -> str:
    """The form of the row whose case is nearest; `native` where none is of its kind, with strides or without.

    Dense convolutions unlike all that was measured are native too: XLA is never very slow there, others may be.
    Small ones are as dense ones are where no small one was measured.
    """
    alike = [(_distance(case, other), form) for other, form in rows if other[:2] == case[:2]]
    if not alike and case.kind == "small":
        return similar(case._replace(kind="dense"), rows)
    distance, form = min(alike, default=(0.0, "native"))
    return "native" if case.kind == "dense" and distance > _FAR else form


def _distance(one: Case, other: Case) -> float:
    """How many times larger or smaller one is than the other, in all its sizes."""
    sizes = zip(one[2:], other[2:], strict=True)
    return sum(math.log(max(here, 1) / max(there, 1)) ** 2 for here, there in sizes)


@functools.cache
def _table(library: Library) -> dict[str, list[tuple[Case, str]]]:
    rows = json.loads(TABLE.read_text(encoding="utf-8"))[library]["rows"]
    table: dict[str, list[tuple[Case, str]]] = {"forward": [], "by_input": [], "by_kernel": []}
    for row in rows:
        table[row["map"]].append((Case(**row["case"]), row["form"]))
    return table
