"""Finds the pools in a trace: they are pure functions (`cnnjax.ops.pooling`), so that no module tells of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cnnjax.analysis.equations import Equation, Value

PoolKind = Literal["max_pool", "average_pool", "sum_pool", "global_max_pool", "global_average_pool", "global_sum_pool"]

_REDUCTIONS = {"reduce_max": "max", "reduce_sum": "sum"}
_WINDOWS = {"reduce_window_max": "max", "reduce_window_sum": "sum"}
_RESHAPES = ("broadcast_in_dim", "reshape", "convert_element_type")
_JOINTS = {"max": "max", "add": "sum"}
_KINDS: dict[str, PoolKind] = {"max": "max_pool", "sum": "sum_pool", "average": "average_pool"}
_GLOBAL_KINDS: dict[str, PoolKind] = {
    "max": "global_max_pool", "sum": "global_sum_pool", "average": "global_average_pool"
}  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """A pool over windows of a map (batch, height, width, channels), or over all its positions."""

    kind: PoolKind
    """A function of `cnnjax.ops.pooling`, or what one would call it."""
    output: Value
    window: tuple[int, int]
    stride: tuple[int, int] | None
    """None over all positions."""


@dataclass(frozen=True)
class _Shifted:
    """Some entries of each window of a map, joined: strided slices of it that begin at several places."""

    of: Value
    stride: tuple[int, int]
    starts: frozenset[tuple[int, int]]
    joint: str | None
    """How the slices are joined; None for a single one."""


def find_pools(equations: Sequence[Equation]) -> dict[int, Pool]:
    """The pools among some equations, each by the index of the equation that completes it.

    They are maxima and sums of neighbouring slices of one map, `lax.reduce_window`, and reductions over both spatial
    axes. A sum that is divided next is an average.
    """
    used = [equation for equation in reversed(equations) if equation.name != "name"]
    consumers = {value: equation for equation in used for value in equation.inputs}
    ends = {value: index for index, equation in enumerate(equations) for value in equation.outputs}
    pools = {}
    for output, (joint, window, stride) in _candidates(equations).items():
        total = output
        while total in consumers and consumers[total].name in _RESHAPES:
            total = consumers[total].outputs[0]
        divided = total in consumers and consumers[total].name == "div" and consumers[total].inputs[0] is total
        if joint == "sum" and divided:
            joint, output = "average", consumers[total].outputs[0]
        kind = _GLOBAL_KINDS[joint] if stride is None else _KINDS[joint]
        pools[ends[output]] = Pool(kind, output, window, stride)
    return dict(sorted(pools.items()))


_Candidate = tuple[str, tuple[int, int], tuple[int, int] | None]


def _candidates(equations: Sequence[Equation]) -> dict[Value, _Candidate]:
    """Values that are a maximum or sum over windows, with how they are joined, window and stride."""
    found: dict[Value, _Candidate] = {}
    shifted: dict[Value, _Shifted] = {}
    partial: set[Value] = set()
    for equation in equations:
        if equation.is_alternative or not equation.inputs:
            continue
        (source, *_), output = equation.inputs, equation.outputs[0]
        if equation.name == "slice":
            one = _one_slice(equation)
            if one is not None:
                shifted[output] = one
        elif equation.name in _JOINTS:
            joined = _join(_JOINTS[equation.name], *(shifted.get(value) for value in equation.inputs))
            if joined is not None:
                shifted[output] = joined
                partial.update(equation.inputs)
        elif len(source.shape) != 4:
            continue
        elif equation.name in _REDUCTIONS and tuple(equation.params["axes"]) == (1, 2):
            found[output] = (_REDUCTIONS[equation.name], (source.shape[1], source.shape[2]), None)
        elif equation.name in _WINDOWS:
            window, stride = equation.params["window_dimensions"], equation.params["window_strides"]
            if window[0] == window[3] == 1 and window[1:3] != (1, 1):
                found[output] = (_WINDOWS[equation.name], tuple(window[1:3]), tuple(stride[1:3]))
    for output, parts in shifted.items():
        window = _window(parts.starts)
        if parts.joint is not None and output not in partial and window is not None:
            found[output] = (parts.joint, window, parts.stride)
    return found


def _one_slice(equation: Equation) -> _Shifted | None:
    (source, *_), params = equation.inputs, equation.params
    strides = params["strides"] or (1,) * len(source.shape)
    if len(source.shape) != 4 or any(
        (params["start_indices"][axis], params["limit_indices"][axis], strides[axis]) != (0, source.shape[axis], 1)
        for axis in (0, 3)
    ):
        return None
    start = (params["start_indices"][1], params["start_indices"][2])
    return _Shifted(source, (strides[1], strides[2]), frozenset([start]), None)


def _join(joint: str, first: _Shifted | None, second: _Shifted | None) -> _Shifted | None:
    if first is None or second is None or (first.of, first.stride) != (second.of, second.stride):
        return None
    if {first.joint, second.joint} - {None, joint} or first.starts & second.starts:
        return None
    return _Shifted(first.of, first.stride, first.starts | second.starts, joint)


def _window(starts: frozenset[tuple[int, int]]) -> tuple[int, int] | None:
    """Height and width, if the slices fill a rectangle that begins at the first entry."""
    height, width = (max(each) + 1 for each in zip(*starts, strict=True))
    return (height, width) if len(starts) == height * width else None
