"""Which pixels the positions of a map see along one axis, exactly: through strides, dilation and upsampling."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

Span = tuple[int, int]
"""The first and the last pixel; negative ones, and those beyond the size, lie in the padding."""

# Periods beyond this are told as "anything": they are no maps any more, but flattened ones.
_LONGEST_PERIOD = 4096


@dataclass(frozen=True)
class Windows:
    """Position `len(spans) * n + i` sees the pixels of `spans[i]`, moved by `shift * n`; None sees none.

    One span is enough for convolutions and pools; after an upsampling, neighbours see windows of different sizes.
    """

    shift: int = 1
    spans: tuple[Span | None, ...] = ((0, 0),)

    @property
    def stride(self) -> Fraction:
        """Pixels from one position to the next, on average."""
        return Fraction(self.shift, len(self.spans))

    @property
    def size(self) -> int:
        """Pixels of the largest window, from its first to its last."""
        return max((span[1] - span[0] + 1 for span in self.spans if span is not None), default=0)

    @property
    def first(self) -> int:
        """The first pixel of the first position that sees any; 0 where none does."""
        return next((span[0] for span in self.spans if span is not None), 0)

    def span(self, position: int) -> Span | None:
        """The first and last pixel that a position sees, which need not exist: the pattern goes on forever."""
        periods, index = divmod(position, len(self.spans))
        span = self.spans[index]
        return None if span is None else (span[0] + self.shift * periods, span[1] + self.shift * periods)

    def through(self, inputs: Sequence[Iterable[int]], advance: int) -> "Windows | None":
        """What those see whose position `len(inputs) * n + i` depends on positions `inputs[i]`, moved by `advance * n`.

        A convolution with stride 2 and a kernel of 3 is `through([(-1, 0, 1)], 2)`. None if the pattern is too long.
        """
        repeats = len(self.spans) // math.gcd(len(self.spans), advance)
        if repeats * len(inputs) > _LONGEST_PERIOD:
            return None
        spans = (
            _cover(self.span(position + advance * repeat) for position in positions)
            for repeat in range(repeats)
            for positions in inputs
        )
        return Windows(self.shift * advance * repeats // len(self.spans), tuple(spans))

    def dilate(self, factor: int) -> "Windows | None":
        """With `factor - 1` positions that see nothing after each position."""
        return self.through([(0,), *((),) * (factor - 1)], 1)

    def resample(self, inputs: Sequence[Sequence[int]], size: int) -> "Windows | None":
        """What positions see that depend on `inputs[i]` out of `size`, in a pattern that repeats as the sizes allow."""
        ratio = Fraction(size, len(inputs))
        period, advance = ratio.denominator, ratio.numerator
        pattern: list[set[int]] = [set() for _ in range(period)]
        # At the borders some of the pattern is cut off; elsewhere it is whole.
        for position, seen in enumerate(inputs):
            pattern[position % period].update(each - position // period * advance for each in seen)
        return self.through(pattern, advance)

    def union(self, other: "Windows") -> "Windows | None":
        """What sees both; None where the two have different strides, so that there is no such pattern."""
        period = math.lcm(len(self.spans), len(other.spans))
        if self.stride != other.stride or period > _LONGEST_PERIOD:
            return None
        spans = (_cover((self.span(index), other.span(index))) for index in range(period))
        return Windows(int(self.stride * period), tuple(spans))


def _cover(spans: Iterable[Span | None]) -> Span | None:
    known = [span for span in spans if span is not None]
    # JAX has some of the sizes as integers of NumPy's, which JSON does not take.
    return (int(min(first for first, _ in known)), int(max(last for _, last in known))) if known else None
