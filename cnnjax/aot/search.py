"""The largest batch that fits, found by compiling few programs: memory grows nearly in proportion to the batch."""

from collections.abc import Callable
from dataclasses import dataclass, field

# After so many trials no line leads to the end, and what is left is halved.
_BY_LINE = 6

Peak = Callable[[int], tuple[int, bool]]
"""From a batch to the bytes of a device that it needs, and whether the compiler took it."""


@dataclass
class Largest:
    """What a search has found."""

    batch: int | None
    """The largest that fits, None where not even the smallest does."""
    next_batch: int
    """The next one, which was tried and does not fit."""
    tried: dict[int, int] = field(default_factory=dict)
    """Bytes of a device by batch."""


def largest_batch(
    peak: Peak, unit: int, *, available: int, start: int, likely: bool = False, fixed: int = 0, most: int = 2**24
) -> Largest | None:
    """The largest multiple of `unit` that fits while the next one does not, both compiled.

    Args:
        peak: compiles a batch.
        available: bytes of a device, to guess by.
        start: the first batch to try; a multiple of `unit`.
        likely: whether that is likely to be the answer, so that the one after it is tried next.
        fixed: bytes that no batch would need, to guess by after the first trial; 0 for unknown.
        most: where to give up.

    Returns:
        None where `most` fits.
    """
    tried: dict[int, int] = {}
    fits: dict[int, bool] = {}

    def try_out(count: int) -> bool:
        if count not in fits:
            tried[count * unit], fits[count] = peak(count * unit)
        return fits[count]

    first = count = max(start // unit, 1)
    below, above = 0, most // unit + 1
    while above - below > 1:
        if try_out(count):
            below = count
        else:
            above = count
        if below >= most // unit:
            return None
        known = ({0: fixed} if fixed else {}) | tried
        beside = likely and len(tried) == 1
        count = first + (1 if below else -1) if beside else _guess(known, unit, available, below, above)
    return Largest(below * unit if below else None, above * unit, tried)


def _guess(tried: dict[int, int], unit: int, available: int, below: int, above: int) -> int:
    """Between what fits and what does not, where a line through the two nearest trials meets what is available."""
    known = sorted(tried.items())
    upper = [each for each in known if each[0] >= above * unit]
    lower = [each for each in known if each[0] <= below * unit]
    # Of both sides the nearest; of one side alone its two nearest.
    nearest = [*lower[-1:], *upper[:1]] if lower and upper else [*lower[-2:], *upper[:2]]
    (batch, size), (other, other_size) = nearest[0], nearest[-1]
    if len(tried) > _BY_LINE or other == batch or other_size <= size:
        guess = (below + above) // 2 if upper else 2 * below
    else:
        guess = int((batch + (available - size) * (other - batch) / (other_size - size)) / unit)
    return min(max(guess, below + 1), above - 1)
