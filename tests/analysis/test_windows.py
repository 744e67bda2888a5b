"""The arithmetic of windows along one axis, against lists of what every position sees."""

from fractions import Fraction

import pytest

from cnnjax.analysis.windows import Windows


def seen(windows, count):
    return [windows.span(position) for position in range(count)]


def test_pixels_see_themselves():
    assert seen(Windows(), 3) == [(0, 0), (1, 1), (2, 2)]
    assert (Windows().size, Windows().stride) == (1, 1)


def test_a_stack_of_strided_windows():
    first = Windows().through([(-3, -2, -1, 0, 1, 2, 3)], 2)  # 7x7, stride 2, padding 3
    assert (first.size, first.stride, first.span(0)) == (7, 2, (-3, 3))
    second = first.through([(-1, 0, 1)], 2)  # 3x3, stride 2, padding 1
    assert (second.size, second.stride, second.span(0), second.span(-1)) == (11, 4, (-5, 5), (-9, 1))


def test_dilation_leaves_gaps_that_see_nothing():
    spread = Windows().dilate(2)
    assert seen(spread, 4) == [(0, 0), None, (1, 1), None]
    # A 3x3 kernel on that, as in a transposed convolution: every second position has two entries to see.
    transposed = spread.through([(-1, 0, 1)], 1)
    assert seen(transposed, 4) == [(0, 0), (0, 1), (1, 1), (1, 2)]
    assert (transposed.size, transposed.stride) == (2, Fraction(1, 2))


def test_a_stride_after_an_upsampling_undoes_it():
    upsampled = Windows(4, ((0, 6),)).through([(0,), (0,)], 1)
    assert seen(upsampled, 4) == [(0, 6), (0, 6), (4, 10), (4, 10)]
    assert upsampled.through([(0,)], 2) == Windows(4, ((0, 6),))


def test_resampling_has_the_pattern_of_the_interior():
    # Bilinear to twice the size: at the ends, one of the two neighbours is missing.
    chosen = [(0,), (0, 1), (0, 1), (1, 2), (1, 2), (2, 3), (2, 3), (3,)]
    assert seen(Windows().resample(chosen, 4), 6) == [(-1, 0), (0, 1), (0, 1), (1, 2), (1, 2), (2, 3)]
    # Seven positions to four: no pattern repeats within, so that it is as given.
    assert seen(Windows(2).resample([(0, 1), (1, 3), (3, 5), (5, 6)], 7), 4) == [(0, 2), (2, 6), (6, 10), (10, 12)]


def test_union_of_a_coarse_and_a_fine_map():
    coarse = Windows(2, ((-4, 5),)).through([(0,), (0,)], 1)
    joined = Windows(1, ((-1, 1),)).union(coarse)
    assert seen(joined, 3) == [(-4, 5), (-4, 5), (-2, 7)]
    assert joined.size == 10


def test_union_of_unequal_strides_has_no_pattern():
    assert Windows(1).union(Windows(2)) is None


@pytest.mark.parametrize("factor", [5_000, 10_000])
def test_patterns_without_end_are_given_up(factor):
    assert Windows().through([(0,)] * factor, 1) is None
