"""The receptive field: which pixels of the image a position of a map depends on, read off a function's equations.

The size is the theoretical one: from the first to the last pixel along a chain of windows, whatever the weights; it
counts padding, and may exceed the image. A mean over all positions and a dense layer see the whole image. Where their
result is joined with a map, as squeeze-and-excitation does, the map's windows are told, and that it sees the rest too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax

from cnnjax.analysis.equations import Trace, Value, trace
from cnnjax.analysis.seen import seen_along


@dataclass(frozen=True)
class ReceptiveField:
    """What the positions of a map see of the image; pairs are (vertical, horizontal), in pixels."""

    size: tuple[int, int] | None
    """Height and width of a position's window, padding counted; None where no position is left, as in logits."""
    stride: tuple[float, float] | None
    """From a position's window to the next one's; whole numbers unless the map is finer than the image."""
    start: tuple[int, int] | None
    """First row and column that position (0, 0) sees; negative in the padding."""
    whole_image: bool
    """Whether it also, or only, sees the whole image."""


def receptive_fields(function: Callable[..., Any], *args: Any) -> Any:
    """The receptive field of everything that a pure function computes from images.

    Args:
        function: returns a tree of arrays.
        args: its arguments, arrays or `jax.ShapeDtypeStruct`, the last of them images (batch, height, width, channels).

    Returns:
        The same tree with a `ReceptiveField` for each array; None for what does not depend on the images.
    """
    traced = trace(function, *args)
    field_of = fields_of_values(traced)
    return jax.tree.map(field_of, traced.outputs)


def fields_of_values(traced: Trace) -> Callable[[Value], ReceptiveField | None]:
    """Tells the receptive field of any value of a function whose last argument is images, as `receptive_fields`."""
    vertical, horizontal = (seen_along(traced, axis) for axis in (1, 2))

    def field_of(value: Value) -> ReceptiveField | None:
        if value not in vertical:
            return None
        pair = (vertical[value], horizontal[value])
        whole = any(seen.whole for seen in pair)
        rows, columns = (seen.windows for seen in pair)
        if rows is None or columns is None:
            return ReceptiveField(None, None, None, True)
        return ReceptiveField(
            size=(rows.size, columns.size),
            stride=(_number(rows.stride), _number(columns.stride)),
            start=(rows.first, columns.first),
            whole_image=whole,
        )

    return field_of


def _number(stride: Fraction) -> float:
    return stride.numerator if stride.denominator == 1 else float(stride)
