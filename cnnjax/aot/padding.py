"""What a compiled program wastes on padding: TPUs keep arrays in tiles, and fill those up."""

import math
import re
from dataclasses import dataclass

from cnnjax.aot.collectives import element_bits

# `bf16[8,56,56,64]{3,0,2,1:T(8,128)(2,1)}`: sizes, the order from the fastest dimension on, and the first tile.
_TILED = re.compile(
    r"\b(?P<type>pred|[a-z]+\d+\w*)\[(?P<sizes>[\d,]+)\]\{(?P<order>[\d,]+):[^}]*?T\((?P<tile>[\d,]+)\)"
)


@dataclass(frozen=True)
class Padding:
    """Of the results of a program's operations, each counted once."""

    bytes: int
    """That their numbers take."""
    padded_bytes: int
    """That they take with their tiles filled up."""

    @property
    def share(self) -> float:
        """Of what they take, the part that is padding."""
        return 1 - self.bytes / self.padded_bytes if self.padded_bytes else 0.0


def find_padding(text: str) -> Padding:
    """Over the results of the program's main computation.

    Args:
        text: as `compiled.as_text()` prints it.
    """
    plain = padded = 0
    for line in _main(text):
        _, is_result, rest = line.partition(" = ")
        for array in _TILED.finditer(rest.partition("(%")[0] if is_result else ""):
            sizes = [int(size) for size in array["sizes"].split(",")]
            order = [int(place) for place in array["order"].split(",")]
            tile = [int(size) for size in array["tile"].split(",")]
            width = element_bits(array["type"])
            plain += math.prod(sizes) * width // 8
            padded += padded_size(sizes, order, tile) * width // 8
    return Padding(plain, padded)


def padded_size(sizes: list[int], order: list[int], tile: list[int]) -> int:
    """Elements of an array whose fastest dimensions are filled up to a tile.

    Args:
        order: its dimensions from the fastest to the slowest.
        tile: of the fastest dimensions, the fastest last.
    """
    total = 1
    for place, dimension in enumerate(order):
        unit = tile[-1 - place] if place < len(tile) else 1
        total *= -(-sizes[dimension] // unit) * unit
    return total


def _main(text: str) -> list[str]:
    """The lines of the computation that is run first."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines) if line.startswith("ENTRY ")), len(lines))
    end = next((place for place in range(start, len(lines)) if lines[place] == "}"), len(lines))
    return lines[start + 1 : end]
