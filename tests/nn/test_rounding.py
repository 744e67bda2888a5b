"""EfficientNet's rounding gives the widths and depths that its authors released."""

import pytest

from cnnjax.nn.rounding import round_channels, round_repeats

# Width, depth; stem, stages, last convolution; repeats, of B0 to B7 as released.
RELEASED = {
    "b0": (1.0, 1.0, (32, 16, 24, 40, 80, 112, 192, 320, 1280), (1, 2, 2, 3, 3, 4, 1)),
    "b1": (1.0, 1.1, (32, 16, 24, 40, 80, 112, 192, 320, 1280), (2, 3, 3, 4, 4, 5, 2)),
    "b2": (1.1, 1.2, (32, 16, 24, 48, 88, 120, 208, 352, 1408), (2, 3, 3, 4, 4, 5, 2)),
    "b3": (1.2, 1.4, (40, 24, 32, 48, 96, 136, 232, 384, 1536), (2, 3, 3, 5, 5, 6, 2)),
    "b4": (1.4, 1.8, (48, 24, 32, 56, 112, 160, 272, 448, 1792), (2, 4, 4, 6, 6, 8, 2)),
    "b5": (1.6, 2.2, (48, 24, 40, 64, 128, 176, 304, 512, 2048), (3, 5, 5, 7, 7, 9, 3)),
    "b6": (1.8, 2.6, (56, 32, 40, 72, 144, 200, 344, 576, 2304), (3, 6, 6, 8, 8, 11, 3)),
    "b7": (2.0, 3.1, (64, 32, 48, 80, 160, 224, 384, 640, 2560), (4, 7, 7, 10, 10, 13, 4)),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_widths_and_depths(name):
    width, depth, channels, repeats = RELEASED[name]
    assert tuple(round_channels(published, width) for published in RELEASED["b0"][2]) == channels
    assert tuple(round_repeats(published, depth) for published in RELEASED["b0"][3]) == repeats


@pytest.mark.parametrize(
    ("channels", "multiplier", "divisor", "expected"),
    [
        (6, 1.0, 8, 6),  # a published width stays as it is
        (20, 1.0, 8, 20),
        (32, 0.01, 8, 8),  # never below the divisor
        (12, 1.0001, 8, 16),  # half way goes up
        (40, 0.25, 8, 16),  # 8 is more than 10 % below 10
        (50, 0.5, 8, 24),  # 24 is not more than 10 % below 25
        (33, 2.0, 1, 66),
    ],
)
def test_rounding_of_channels(channels, multiplier, divisor, expected):
    assert round_channels(channels, multiplier, divisor) == expected


@pytest.mark.parametrize(
    ("repeats", "multiplier", "expected"),
    [(1, 0.1, 1), (3, 1 / 3, 1), (3, 0.34, 2), (10, 1.1, 11), (100, 1.1, 110), (3, 1.4, 5), (6, 0.5, 3)],
)
def test_repeats_are_rounded_up_without_floating_point_surprises(repeats, multiplier, expected):
    assert round_repeats(repeats, multiplier) == expected
