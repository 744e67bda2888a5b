"""Padding rules against the definition of the windows that they make room for."""

import jax
import numpy as np
import pytest

from cnnjax.ops.padding import output_size, pad_amounts


def windows_as_defined(rule, size, window, stride):
    """(first row of the first window, how many windows), from what each rule is for."""
    if rule == "valid":
        return 0, sum(start + window <= size for start in range(0, size, stride))
    if rule == "symmetric":
        around = (window - 1) // 2
        return -around, len(range(-around, size + around - window + 1, stride))
    if rule == "same":
        count = -(-size // stride)
        missing = max((count - 1) * stride + window - size, 0)
        return -(missing // 2), count
    # Caffe: until a window reaches the last row, as long as it starts inside the image.
    count = 1
    while (count - 1) * stride + window < size and count * stride < size:
        count += 1
    return 0, count


@pytest.mark.parametrize("rule", ["valid", "symmetric", "same", "ceil"])
@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 2), (3, 1), (3, 2), (4, 2), (5, 3), (2, 3), (7, 4)])
def test_rules_make_the_windows_that_they_stand_for(rule, window, stride):
    for size in range(max(window, 4), 20):
        (low, high), other = pad_amounts(rule, (size, size), (window, window), (stride, stride))
        assert other == (low, high)
        first, count = windows_as_defined(rule, size, window, stride)
        assert -low == first
        assert output_size(size, window, stride, rule) == count
        # No row or column more than the last window needs.
        assert (size + low + high - window) // stride + 1 == count
        if rule in ("same", "ceil"):
            assert high == max((count - 1) * stride + window - size - low, 0)


def test_same_is_tensorflows():
    for size, window, stride in ((224, 3, 2), (224, 7, 2), (13, 5, 3), (8, 2, 2), (9, 1, 2)):
        expected = jax.lax.padtype_to_pads((size, size), (window, window), (stride, stride), "SAME")
        assert list(pad_amounts("same", (size, size), (window, window), (stride, stride))) == expected


def test_published_sizes():
    assert output_size(227, 11, 4) == 55  # AlexNet's first convolution
    assert output_size(224, 7, 2, 3) == 112  # ResNet's
    assert output_size(112, 3, 2, "ceil") == 56  # GoogLeNet's first pool
    assert output_size(112, 3, 2) == 55
    assert [output_size(size, 3, 2, "ceil") for size in (32, 16)] == [16, 8]  # Network in Network's


def test_height_and_width_are_padded_each_by_its_own_size():
    assert pad_amounts("ceil", (6, 7), (3, 3), (2, 2)) == ((0, 1), (0, 0))
    assert pad_amounts("same", (6, 7), (3, 5), (2, 1)) == ((0, 1), (2, 2))
    assert pad_amounts("symmetric", (6, 7), (3, 7), (1, 1)) == ((1, 1), (3, 3))


def test_amounts_are_passed_on():
    assert pad_amounts(2, (9, 9), (3, 3), (1, 1)) == ((2, 2), (2, 2))
    assert pad_amounts(((0, 1), (2, 3)), (9, 9), (3, 3), (1, 1)) == ((0, 1), (2, 3))
    assert output_size(9, 3, 2, 1) == len(np.arange(0, 9 + 2 - 3 + 1, 2))
