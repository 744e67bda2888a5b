"""How many rows and columns of padding a window gets, and how large its output is."""

from collections.abc import Sequence
from typing import Literal

# same: TensorFlow's, ceil(size / stride) outputs, the odd row or column at the bottom and right.
# symmetric: PyTorch's habit, (window - 1) // 2 on either side.
# valid: none. ceil: Caffe's for pooling, at the bottom and right so that the last, partial window counts.
PaddingName = Literal["same", "symmetric", "valid", "ceil"]
Pads = tuple[tuple[int, int], tuple[int, int]]
Padding = PaddingName | int | Pads


def pad_amounts(padding: Padding, size: Sequence[int], window: Sequence[int], stride: Sequence[int]) -> Pads:
    """((top, bottom), (left, right)) of padding.

    Args:
        padding: a rule, one number for all sides, or the amounts themselves.
        size, window, stride: height and width of the image, of the window and of its steps.
    """
    if isinstance(padding, int):
        return ((padding, padding), (padding, padding))
    if not isinstance(padding, str):
        return padding
    height, width = (_along_one_axis(padding, *axis) for axis in zip(size[:2], window[:2], stride[:2], strict=True))
    return (height, width)


def output_size(size: int, window: int, stride: int = 1, padding: PaddingName | int = 0) -> int:
    """Positions that a window takes along one axis: floor((size + padding - window) / stride) + 1.

    Args:
        padding: a rule, or how much on either side.
    """
    low, high = (padding, padding) if isinstance(padding, int) else _along_one_axis(padding, size, window, stride)
    return (size + low + high - window) // stride + 1


def _along_one_axis(padding: PaddingName, size: int, window: int, stride: int) -> tuple[int, int]:
    if padding == "valid":
        return (0, 0)
    if padding == "symmetric":
        return ((window - 1) // 2, (window - 1) // 2)
    if padding == "same":
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        return (total // 2, total - total // 2)
    outputs = -(-max(size - window, 0) // stride) + 1
    if (outputs - 1) * stride >= size:  # a window must start inside the image
        outputs -= 1
    return (0, max((outputs - 1) * stride + window - size, 0))
