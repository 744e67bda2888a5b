"""The collectives of a compiled program, read from its text."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}
# `%name = SHAPE kind(`, and `kind-start(` where it runs beside other work; its `-done` is the same one.
_COLLECTIVE = re.compile(rf"= (?P<shape>.+?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_LINK = re.compile(r"channel_id=(\d+).*\bchain_id=")
_ARRAY = re.compile(r"\b(?P<type>pred|[a-z]+\d+\w*)\[(?P<sizes>[\d,]*)\]")


@dataclass(frozen=True)
class Collectives:
    """All of one kind in a program."""

    kind: str
    count: int
    bytes: int
    """That a device brings to them, or takes from them where that is more."""


def find_collectives(text: str) -> list[Collectives]:
    """What devices send one another in one run of a program, by kind.

    Args:
        text: the program after compilation, as `compiled.as_text()` prints it.
    """
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for kind, size in _each(text):
        counts[kind] = counts.get(kind, 0) + 1
        sizes[kind] = sizes.get(kind, 0) + size
    return [Collectives(kind, counts[kind], sizes[kind]) for kind in KINDS if kind in counts]


def _each(text: str) -> Iterator[tuple[str, int]]:
    computation = ""
    seen: set[tuple[str, str]] = set()
    for line in text.splitlines():
        if line[:1] in ("%", "E") and line.endswith("{"):
            computation = line.removeprefix("%")
        found = _COLLECTIVE.search(line)
        if found is None:
            continue
        # TPUs' compiler cuts one that runs beside other work into a chain, whose links have the same channel.
        link = _LINK.search(line)
        if link and (found["kind"], link[1]) in seen:
            continue
        seen |= {(found["kind"], link[1])} if link else set()
        arrays = [array_bytes(match) for match in _ARRAY.finditer(found["shape"])]
        # A started gather's shape has what goes in and what comes out; a reduction's parts are all of them both.
        pair = found["start"] and found["kind"] != "all-reduce"
        # And it writes a reduction whose parts stay where they are as one of these, with a slice after it.
        kind = "reduce-scatter" if computation.startswith("all-reduce-scatter") else found["kind"]
        yield kind, max(arrays) if pair else sum(arrays)


def array_bytes(match: re.Match[str]) -> int:
    """Of an array type as programs write them, such as `f32[64,3,3]`."""
    return math.prod(int(size) for size in match["sizes"].split(",") if size) * element_bits(match["type"]) // 8


def element_bits(name: str) -> int:
    """Of a number's type, such as `s32` or `bf16`."""
    digits = re.match(r"[a-z]+(\d+)", name)
    return _BITS[name] if name in _BITS else int(digits[1]) if digits else 8
