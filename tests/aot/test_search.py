"""The search finds the largest batch that fits, and has tried the next one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.aot.search import largest_batch

AVAILABLE = 16_000_000_000


@given(
    fixed=st.integers(0, 20_000_000_000),
    each=st.integers(100_000, 50_000_000),
    unit=st.sampled_from([1, 8, 32, 128]),
    start=st.sampled_from([1, 4, 1000]),
)
def test_of_memory_that_grows_in_proportion(fixed, each, unit, start):
    tried = []

    def peak(batch: int) -> tuple[int, bool]:
        tried.append(batch)
        return fixed + each * batch, fixed + each * batch <= AVAILABLE

    found = largest_batch(peak, unit, available=AVAILABLE, start=unit * start)
    expected = max((AVAILABLE - fixed) // each // unit * unit, 0)
    assert found is not None
    assert (found.batch or 0, found.next_batch) == (expected, expected + unit)
    assert found.next_batch in found.tried
    assert expected == 0 or expected in found.tried
    assert len(tried) <= 6


@pytest.mark.parametrize("limit", [1, 7, 100, 3333])
def test_of_memory_that_jumps(limit):
    """No line leads to where it ends."""
    found = largest_batch(lambda batch: (batch // 16 * 5, batch <= limit), 1, available=10**9, start=4)
    assert found is not None
    assert (found.batch, found.next_batch) == (limit, limit + 1)


def test_without_a_limit():
    assert largest_batch(lambda batch: (batch, True), 8, available=10**12, start=8, most=1000) is None
