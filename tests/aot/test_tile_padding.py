"""What tiles waste."""

import pytest

from cnnjax.aot.padding import Padding, find_padding, padded_size

TEXT = """HloModule step
%helper (p: f32[3,3]) -> f32[3,3] {
  %x = f32[3,3]{1,0:T(8,128)} copy(%p)
}
ENTRY %main (a: f32[8,128]) -> f32[3,130] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %b = bf16[3,130]{1,0:T(8,128)(2,1)} fusion(%a), kind=kLoop
  %c = f32[] constant(0)
}
"""


@pytest.mark.parametrize(
    ("sizes", "order", "tile", "expected"),
    [
        ([8, 128], [1, 0], [8, 128], 8 * 128),
        ([3, 130], [1, 0], [8, 128], 8 * 256),
        ([130, 3], [0, 1], [8, 128], 256 * 8),
        ([5, 3, 130], [2, 1, 0], [8, 128], 5 * 8 * 256),
        ([7], [0], [128], 128),
    ],
)
def test_fastest_dimensions_are_filled_up(sizes, order, tile, expected):
    assert padded_size(sizes, order, tile) == expected


def test_results_of_the_main_computation_are_counted():
    found = find_padding(TEXT)
    assert found == Padding(4 * 8 * 128 + 2 * 3 * 130, 4 * 8 * 128 + 2 * 8 * 256)
    assert found.share == pytest.approx(1 - (4096 + 780) / (4096 + 4096))
    assert find_padding("").share == 0
