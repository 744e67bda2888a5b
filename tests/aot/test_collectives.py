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


def test_each_is_counted_once_with_its_bytes():
    assert find_collectives(TEXT) == [
        Collectives("all-reduce", 3, 4 * 64 * 3 + 4 * 10 + 2 * 10 + 4 * 16),
        Collectives("all-gather", 1, 4 * 8),
    ]
    assert find_collectives("%a = f32[2]{0} add(%b, %c)") == []
