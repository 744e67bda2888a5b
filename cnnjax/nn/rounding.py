"""EfficientNet's rounding of scaled widths and depths (Tan and Le 2019; the authors' release)."""

import math
from collections.abc import Sequence


def round_channels(channels: float, multiplier: float = 1.0, divisor: int = 8) -> int:
    """`channels * multiplier` to the nearest multiple of `divisor`, but not below 90 % of it.

    A multiplier of 1 leaves the published width as it is.
    """
    if multiplier == 1:
        return int(channels)
    scaled = channels * multiplier
    rounded = round_to_multiple(scaled, divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def round_to_multiple(value: float, divisor: int) -> int:
    """The nearest multiple of `divisor`, but at least `divisor` itself; halves go up."""
    return max(divisor, int(value + divisor / 2) // divisor * divisor)


def round_repeats(repeats: int, multiplier: float = 1.0) -> int:
    """`repeats * multiplier`, rounded up."""
    # 3 * 1.1 / 1.1 and the like must not become one more through floating point.
    return math.ceil(round(repeats * multiplier, 9))


def stretch(published: Sequence[str], multiplier: float = 1.0) -> dict[str, str]:
    """A stage of modules that differ, `multiplier` times as long.

    Args:
        published: the names of its modules, in their order.

    Returns:
        For each module its name and the published one that it is like, in their order: twice (a, b) is a, a_2, b, b_2.
        A shorter stage leaves out modules evenly, but never the last.
    """
    count = round_repeats(len(published), multiplier)
    like = [published[((index + 1) * len(published) - 1) // count] for index in range(count)]
    repeats = [like[:index].count(name) for index, name in enumerate(like)]
    return {f"{name}_{repeat + 1}" if repeat else name: name for name, repeat in zip(like, repeats, strict=True)}
