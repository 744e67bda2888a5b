"""What each value of a function sees along one axis of the image, equation by equation.

Where no windows tell what is seen, the whole image is: the answer is then too much, never too little.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cnnjax.analysis.equations import EITHER, Equation, Trace, Value, evaluate
from cnnjax.analysis.windows import Windows


@dataclass(frozen=True)
class Seen:
    """What a value sees along one axis of the image."""

    axis: int | None
    """The axis of the value whose positions have windows; None if there is none any more."""
    windows: Windows | None
    whole: bool = False
    """Whether it sees the whole image, besides the windows if it has them."""

    def moved(self, axis: int, windows: Windows | None) -> "Seen":
        """With its positions on another axis or with other windows."""
        return _WHOLE if windows is None else Seen(axis, windows, self.whole)


_WHOLE = Seen(None, None, True)
_Rule = Callable[[Equation, Seen, int, Windows], Seen]


def seen_along(traced: Trace, axis: int) -> dict[Value, Seen]:
    """What each value that depends on the images, the last argument, sees along an axis of theirs."""
    seen = {traced.inputs[-1]: Seen(axis, Windows())}
    for equation in traced.equations:
        if any(value in seen for value in equation.inputs):
            for output, found in zip(equation.outputs, _follow(equation, seen), strict=True):
                seen[output] = found
    return seen


def _follow(equation: Equation, seen: dict[Value, Seen]) -> Sequence[Seen]:
    """What the outputs of an equation see; at least one of its inputs sees something."""
    inputs = [seen.get(value) for value in equation.inputs]
    several = len(equation.outputs)
    if equation.name in _ELEMENTWISE:
        return [_union(inputs)] * several
    if equation.name == "optimization_barrier":
        return [each or _WHOLE for each in inputs]
    if equation.name == "dot_general":
        return [_union([_through_product(equation, index, each) for index, each in enumerate(inputs)])]
    if equation.name == "concatenate":
        return [_union(_through_concatenation(equation, inputs))]
    if equation.name == "split":
        return _through_split(equation, inputs[0] or _WHOLE)
    if equation.name in _ALONG_ONE_AXIS:
        axis = equation.params[_ALONG_ONE_AXIS[equation.name]]
        mixed = [_WHOLE if each is not None and each.axis == axis else each for each in inputs]
        return [_union(mixed)] * several
    first, *others = inputs
    if equation.name not in _OF_ONE_ARRAY or first is None or any(each is not None for each in others):
        return [_WHOLE] * several
    if first.axis is None or first.windows is None:
        return [first]
    return [_OF_ONE_ARRAY[equation.name](equation, first, first.axis, first.windows)] * several


def _union(inputs: Sequence[Seen | None]) -> Seen:
    known = [each for each in inputs if each is not None]
    local = [each for each in known if each.axis is not None]
    if not local:
        return _WHOLE
    axis, windows = local[0].axis, local[0].windows
    for each in local[1:]:
        if each.axis != axis or windows is None or each.windows is None:
            return _WHOLE
        # Most operands of a network's additions have windows of one kind.
        windows = windows if windows == each.windows else windows.union(each.windows)
    return _WHOLE if windows is None else Seen(axis, windows, any(each.whole for each in known))


def _windowed(
    windows: Windows, kernel: int, stride: int, low: int, *, dilation: int = 1, base_dilation: int = 1
) -> Windows | None:
    """Through a window of `kernel` entries, `dilation` apart, on a map that is first dilated, then padded by `low`."""
    spread = windows if base_dilation == 1 else windows.dilate(base_dilation)
    return None if spread is None else spread.through([[entry * dilation - low for entry in range(kernel)]], stride)


def _through_convolution(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    params, (images, kernel, output) = equation.params, equation.params["dimension_numbers"]
    if axis not in images[2:] or params["batch_group_count"] != 1:
        return _WHOLE
    place = images[2:].index(axis)
    found = _windowed(
        windows,
        equation.inputs[1].shape[kernel[2:][place]],
        params["window_strides"][place],
        params["padding"][place][0],
        dilation=params["rhs_dilation"][place],
        base_dilation=params["lhs_dilation"][place],
    )
    return seen.moved(output[2:][place], found)


def _through_windows(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    params = equation.params
    found = _windowed(
        windows,
        params["window_dimensions"][axis],
        params["window_strides"][axis],
        params["padding"][axis][0],
        dilation=params["window_dilation"][axis],
        base_dilation=params["base_dilation"][axis],
    )
    return seen.moved(axis, found)


def _through_slice(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    strides = equation.params["strides"]
    stride = 1 if strides is None else strides[axis]
    return seen.moved(axis, windows.through([[equation.params["start_indices"][axis]]], stride))


def _through_dynamic_slice(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    operand, *starts = equation.inputs
    room = operand.shape[axis] - equation.params["slice_sizes"][axis]
    if room == 0:
        return seen
    if len(starts) < len(operand.shape) or not starts[axis].is_constant:
        return _WHOLE
    start = min(max(int(evaluate(starts[axis])), 0), room)
    return seen.moved(axis, windows.through([[start]], 1))


def _through_pad(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    low, _, interior = equation.params["padding_config"][axis]
    return seen.moved(axis, _windowed(windows, 1, 1, low, base_dilation=interior + 1))


def _through_broadcast(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    new = equation.params["broadcast_dimensions"][axis]
    return seen.moved(new, windows) if equation.inputs[0].shape[axis] == equation.outputs[0].shape[new] else _WHOLE


def _through_transpose(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    return seen.moved(equation.params["permutation"].index(axis), windows)


def _through_reduction(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    gone = equation.params.get("axes", equation.params.get("dimensions"))
    return _WHOLE if axis in gone else seen.moved(axis - sum(other < axis for other in gone), windows)


def _through_reversal(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    return _WHOLE if axis in equation.params["dimensions"] else seen


def _through_top(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    return _WHOLE if axis == len(equation.inputs[0].shape) - 1 else seen


def _through_reshape(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    old, new = equation.inputs[0].shape, equation.outputs[0].shape
    if old[axis] == 1:  # axes of one entry are told apart by their place alone
        return seen if old[: axis + 1] == new[: axis + 1] else _WHOLE
    before = math.prod(old[:axis])
    for place, size in enumerate(new):
        if math.prod(new[:place]) != before or size == 1:
            continue
        if size == old[axis]:
            return seen.moved(place, windows)
        if size % old[axis] == 0:  # merged with the axes after it
            return seen.moved(place, windows.through([[0]] * (size // old[axis]), 1))
        if old[axis] % size == 0:  # split: the axes after it are its rest
            rest = old[axis] // size
            return seen.moved(place, windows.through([range(rest)], rest))
    return _WHOLE


def _through_gather(equation: Equation, seen: Seen, axis: int, windows: Windows) -> Seen:
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    operand, indices = equation.inputs
    removed = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    if axis not in numbers.start_index_map and axis not in removed and sizes[axis] == operand.shape[axis]:
        kept = [place for place in range(len(operand.shape)) if place not in removed]
        return seen.moved(numbers.offset_dims[kept.index(axis)], windows)
    one_index = tuple(numbers.start_index_map) == (axis,) and tuple(numbers.collapsed_slice_dims) == (axis,)
    if not one_index or len(indices.shape) != 2 or numbers.operand_batching_dims or not indices.is_constant:
        return _WHOLE
    chosen = [[int(index)] for index in evaluate(indices)[:, 0]]
    place = next(place for place in range(len(equation.outputs[0].shape)) if place not in numbers.offset_dims)
    return seen.moved(place, windows.resample(chosen, operand.shape[axis]))


def _through_product(equation: Equation, index: int, seen: Seen | None) -> Seen | None:
    """What a product of arrays sees through one of the two."""
    if seen is None or seen.axis is None or seen.windows is None:
        return seen
    contracted, batched = equation.params["dimension_numbers"]
    free = [
        [axis for axis in range(len(value.shape)) if axis not in contracted[side] and axis not in batched[side]]
        for side, value in enumerate(equation.inputs)
    ]
    # An output's axes: those of the batch, the left array's own, the right one's own.
    starts = (len(batched[0]), len(batched[0]) + len(free[0]))
    if seen.axis in batched[index]:
        return seen.moved(batched[index].index(seen.axis), seen.windows)
    if seen.axis in free[index]:
        return seen.moved(starts[index] + free[index].index(seen.axis), seen.windows)
    other = equation.inputs[1 - index]
    if len(contracted[index]) != 1 or len(other.shape) != 2 or batched[index] or not other.is_constant:
        return _WHOLE
    # A constant matrix, such as that of a bilinear interpolation: an output depends on its entries that are not zero.
    matrix = np.moveaxis(evaluate(other), contracted[1 - index][0], -1)
    chosen = [np.flatnonzero(row).tolist() for row in matrix]
    size = equation.inputs[index].shape[seen.axis]
    return seen.moved(starts[1 - index], seen.windows.resample(chosen, size))


def _through_concatenation(equation: Equation, inputs: Sequence[Seen | None]) -> list[Seen | None]:
    along = equation.params["dimension"]
    if all(each is None or each.axis != along for each in inputs):
        return list(inputs)
    known = [index for index, each in enumerate(inputs) if each is not None]
    found = inputs[known[0]]
    if len(known) > 1 or found is None or found.windows is None:
        return [_WHOLE]
    # Constants on either side of one array are padding.
    before = sum(value.shape[along] for value in equation.inputs[: known[0]])
    return [found.moved(along, found.windows.through([[-before]], 1))]


def _through_split(equation: Equation, seen: Seen) -> list[Seen]:
    sizes = [int(size) for size in equation.params["sizes"]]
    if seen.axis is None or seen.windows is None or seen.axis != equation.params["axis"]:
        return [seen] * len(sizes)
    return [seen.moved(seen.axis, seen.windows.through([[sum(sizes[:index])]], 1)) for index in range(len(sizes))]


# Each entry of an output depends on the inputs' entries at its own position alone, or on a scalar.
_ELEMENTWISE_NAMES = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp convert_element_type
    copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log
    log1p logistic lt max min mul name ne neg nextafter not or population_count pow random_gamma real reduce_precision
    rem round rsqrt select_n sharding_constraint shift_left shift_right_arithmetic shift_right_logical sign sin sinh
    sqrt square stop_gradient sub tan tanh xor
"""
_ELEMENTWISE = frozenset((EITHER, *_ELEMENTWISE_NAMES.split()))

# Each entry depends on all those along one axis; what the operation calls that axis.
_ALONG_ONE_AXIS = {
    "cumsum": "axis",
    "cumprod": "axis",
    "cummax": "axis",
    "cummin": "axis",
    "cumlogsumexp": "axis",
    "sort": "dimension",
}

_REDUCTIONS = ("sum", "max", "min", "prod", "and", "or", "xor")
_OF_ONE_ARRAY: dict[str, _Rule] = {
    "conv_general_dilated": _through_convolution,
    "reduce_window": _through_windows,
    "reduce_window_max": _through_windows,
    "reduce_window_min": _through_windows,
    "reduce_window_sum": _through_windows,
    "slice": _through_slice,
    "dynamic_slice": _through_dynamic_slice,
    "gather": _through_gather,
    "pad": _through_pad,
    "broadcast_in_dim": _through_broadcast,
    "transpose": _through_transpose,
    "reshape": _through_reshape,
    "squeeze": _through_reduction,
    "argmax": _through_reduction,
    "argmin": _through_reduction,
    **{f"reduce_{name}": _through_reduction for name in _REDUCTIONS},
    "rev": _through_reversal,
    "top_k": _through_top,
}
