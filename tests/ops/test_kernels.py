"""A stack of convolutions against the one kernel that it amounts to."""

import numpy as np
import pytest

from cnnjax.ops.kernels import stacked_kernel


def convolution(x, kernel):
    """Without padding, straight from the definition; x is (height, width, inputs)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
    return np.einsum("hwcij,ijco->hwo", windows, kernel)


def kernels(*shapes):
    random = np.random.default_rng(0)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 3, 2, 4), (3, 3, 4, 3)],
        [(3, 3, 2, 4), (3, 3, 4, 5), (3, 3, 5, 3)],
        [(1, 7, 2, 3), (7, 1, 3, 2)],
        [(3, 3, 2, 3), (1, 1, 3, 4)],
        [(2, 3, 1, 2), (4, 1, 2, 1)],
    ],
)
def test_one_kernel_does_what_the_stack_does(shapes):
    stack = kernels(*shapes)
    x = np.random.default_rng(1).normal(size=(11, 12, shapes[0][2]))
    expected, one = x, stack[0]
    for index, kernel in enumerate(stack):
        expected = convolution(expected, kernel.astype(np.float64))
        one = stacked_kernel(one, kernel) if index else one
    assert one.shape == (
        sum(shape[0] - 1 for shape in shapes) + 1,
        sum(shape[1] - 1 for shape in shapes) + 1,
        shapes[0][2],
        shapes[-1][3],
    )
    np.testing.assert_allclose(convolution(x, np.asarray(one)), expected, rtol=1e-4, atol=1e-4)


def test_two_3x3_see_5x5_and_three_7x7_with_fewer_weights():
    # Section 2.3 of the VGG paper: three have 27 C^2 weights where the one 7x7 has 49 C^2.
    channels = 4
    stack = kernels(*((3, 3, channels, channels),) * 3)
    two = stacked_kernel(stack[0], stack[1])
    three = stacked_kernel(two, stack[2])
    assert two.shape[:2] == (5, 5)
    assert three.shape[:2] == (7, 7)
    assert sum(kernel.size for kernel in stack) == 27 * channels**2
    assert three.size == 49 * channels**2
