"""Collectives are read from a program's text."""

from cnnjax.aot.collectives import Collectives, find_collectives

TEXT = """
%one = f32[64,3]{1,0:T(8,128)} all-reduce(%a), replica_groups={{0,1}}
%two = (f32[10]{0}, bf16[2,5]{1,0}) all-reduce(%b, %c), to_apply=%add
%start = (f32[4]{0}, f32[8]{0}) all-gather-start(%d), dimensions={0}
%done = f32[8]{0} all-gather-done(%start)
%reduced = f32[16]{0} all-reduce-start(%e)
%end = f32[16]{0} all-reduce-done(%reduced)
%fused = f32[1]{0} fusion(%all-reduce.7), kind=kLoop
"""


# As TPUs' compiler writes them.
CHAIN = """
%part.1 (a: f32[8]) -> f32[16] {
  %x = f32[16]{0:T(128)} all-gather(%a), channel_id=7, frontend_attributes={chain_id="2"}
}
%part.2 (a: f32[8]) -> f32[16] {
  %y = f32[16]{0:T(128)} all-gather(%a), channel_id=7, frontend_attributes={chain_id="2"}
}
%all-reduce-scatter.1 (input: bf16[4,10]) -> bf16[1,10] {
  %sum = bf16[4,10]{1,0:T(8,128)(2,1)} all-reduce(%input), channel_id=8
  ROOT %slice = bf16[1,10]{1,0} dynamic-slice(%sum, %place, %zero)
}
ENTRY %main (a: f32[8]) -> f32[16] {
  %z = f32[16]{0:T(128)} all-reduce(%a), channel_id=7
  %w = f32[16]{0:T(128)} all-gather(%a), channel_id=9
  %v = f32[16]{0:T(128)} all-gather(%a), channel_id=9
}
"""


def test_a_chain_is_one_and_a_sum_with_a_slice_is_a_reduce_scatter():
    assert find_collectives(CHAIN) == [
        Collectives("all-reduce", 1, 4 * 16),
        Collectives("all-gather", 3, 3 * 4 * 16),
        Collectives("reduce-scatter", 1, 2 * 40),
    ]


def test_each_is_counted_once_with_its_bytes():
    assert find_collectives(TEXT) == [
        Collectives("all-reduce", 3, 4 * 64 * 3 + 4 * 10 + 2 * 10 + 4 * 16),
        Collectives("all-gather", 1, 4 * 8),
    ]
    assert find_collectives("%a = f32[2]{0} add(%b, %c)") == []
