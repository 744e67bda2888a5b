"""Every form of a convolution against XLA's own: outputs and derivatives, to the second order."""

import functools
import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxlib.mlir.passmanager import PassManager
from quick import OPTIONS

from cnnjax.config import ConvLowering
from cnnjax.ops.conv import convolve
from cnnjax.ops.conv_forms import FORMS, admitted
from cnnjax.ops.conv_geometry import Geometry
from cnnjax.ops.onednn import compiler_options

# (height and width, kernel, strides, padding, groups, channels, features)
CASES = {
    "dense": ((9, 8), (3, 3), (1, 1), ((1, 1), (1, 1)), 1, 4, 6),
    "strided": ((9, 8), (3, 3), (2, 2), ((1, 1), (0, 1)), 1, 4, 6),
    "stem": ((17, 16), (7, 7), (2, 2), ((3, 3), (3, 3)), 1, 3, 8),
    "four by four": ((35, 35), (11, 11), (4, 4), ((2, 2), (2, 2)), 1, 3, 4),
    "row": ((6, 7), (1, 7), (1, 1), ((0, 0), (3, 3)), 1, 4, 4),
    "one channel": ((7, 8), (3, 2), (1, 1), ((1, 1), (0, 1)), 1, 1, 4),
    "side by side": ((6, 4), (3, 2), (3, 2), ((0, 0), (0, 0)), 1, 3, 4),
    "one window": ((3, 4), (3, 4), (1, 2), ((0, 0), (0, 0)), 1, 3, 4),
    "pointwise": ((5, 6), (1, 1), (1, 1), ((0, 0), (0, 0)), 1, 5, 7),
    "strided pointwise": ((5, 6), (1, 1), (2, 2), ((0, 0), (0, 0)), 1, 5, 7),
    "padded pointwise": ((5, 6), (1, 1), (2, 1), ((1, 1), (0, 0)), 1, 5, 7),
    "grouped": ((6, 7), (3, 3), (1, 1), ((1, 1), (1, 1)), 3, 6, 12),
    "strided grouped": ((7, 6), (3, 3), (2, 2), ((1, 1), (1, 1)), 2, 8, 4),
    "depthwise": ((6, 7), (3, 3), (1, 1), ((1, 1), (1, 1)), 5, 5, 5),
    "strided depthwise": ((8, 8), (5, 5), (2, 2), ((1, 2), (2, 2)), 4, 4, 4),
    "multiplied depthwise": ((7, 6), (3, 3), (2, 1), ((1, 1), (0, 0)), 3, 3, 6),
    "wide depthwise": ((4, 19), (3, 3), (1, 1), ((1, 1), (1, 1)), 3, 3, 6),
    "uneven strides": ((9, 10), (2, 3), (3, 2), ((0, 1), (2, 0)), 1, 3, 4),
    "wide padding": ((4, 4), (3, 3), (1, 1), ((4, 3), (2, 5)), 1, 3, 4),
    "steps beyond the kernel": ((9, 9), (2, 2), (3, 3), ((0, 0), (0, 0)), 1, 3, 4),
}
FORM_NAMES = sorted({name for forms in FORMS.values() for name in forms} - {"native"})


def operands(case, seed=0, dtype=np.float32):
    size, window, strides, padding, groups, channels, features = CASES[case]
    random = np.random.default_rng(seed)
    images = random.normal(size=(2, *size, channels)).astype(dtype)
    kernel = random.normal(size=(*window, channels // groups, features)).astype(dtype)
    return images, kernel, functools.partial(convolve, strides=strides, padding=padding, groups=groups)


def geometry_of(case):
    return Geometry(*CASES[case][:5])


def possible(case, form):
    return form in admitted(geometry_of(case), *CASES[case][5:])


def cases_and_forms():
    return [(case, form) for case, form in itertools.product(CASES, FORM_NAMES) if possible(case, form)]


def close(found, expected, tolerance=1e-5):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * max(np.abs(other).max(), 1e-30))


def gradients(convolution, images, kernel):
    """The outputs, and both gradients of a curved function of them."""

    def loss(images, kernel):
        return jnp.sin(convolution(images, kernel)).mean()

    return convolution(images, kernel), jax.grad(loss, (0, 1))(images, kernel)


def second_gradients(convolution, images, kernel):
    """Those of the gradients' squared norm."""

    def steepness(images, kernel):
        return sum(jnp.square(each).sum() for each in gradients(convolution, images, kernel)[1])

    return jax.grad(steepness, (0, 1))(images, kernel)


def compare(derivatives, case, form):
    images, kernel, convolution = operands(case)
    found, expected = (
        jax.jit(
            functools.partial(derivatives, functools.partial(convolution, lowering=lowering)),
            compiler_options=OPTIONS,  # they run once
        )(images, kernel)
        for lowering in (form, "native")
    )
    close(found, expected)


@pytest.mark.parametrize(("case", "form"), cases_and_forms())
def test_a_form_computes_what_xlas_own_does(case, form):
    compare(gradients, case, form)


@pytest.mark.parametrize(("case", "form"), cases_and_forms())
def test_a_form_takes_64_bits(case, form):
    images, kernel, convolution = operands(case, dtype=np.float64)
    with jax.enable_x64(True):
        traced = jax.eval_shape(
            functools.partial(gradients, functools.partial(convolution, lowering=form)), images, kernel
        )
    assert {each.dtype for each in jax.tree.leaves(traced)} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    ("case", "form"),
    [
        pytest.param(case, form, marks=() if case in ("strided", "grouped", "depthwise") else pytest.mark.slow)
        for case, form in cases_and_forms()
    ],
)
def test_so_do_its_second_derivatives(case, form):
    compare(second_gradients, case, form)


@pytest.mark.parametrize(("batch", "rows"), [(8, 5), (2, 11), (3, 3)])
def test_large_batches_are_cut_into_pieces(batch, rows):
    """By images; where they are few, also by bands of rows of different heights."""
    random = np.random.default_rng(0)
    images, gradient = (random.normal(size=(batch, rows, 9, 2)).astype(np.float32) for _ in range(2))
    geometry = Geometry((rows, 9), (3, 3), (1, 1), ((1, 1), (1, 1)), 1)
    found, expected = (FORMS["by_kernel"][name](images, gradient, geometry) for name in ("pieces", "native"))
    pieces = str(jax.make_jaxpr(FORMS["by_kernel"]["pieces"], static_argnums=2)(images, gradient, geometry))
    assert pieces.count("conv_general_dilated[") == (8 if batch != 3 else 3)
    close(found, expected)


@pytest.mark.parametrize("lowering", ["xla", "onednn"])
def test_turns_over_the_positions_of_a_window_use_all_threads(lowering):
    case = CASES["strided depthwise"][:5]
    form = functools.partial(FORMS["by_kernel"]["columns"], geometry=Geometry((64, 64), *case[1:4], groups=32))
    images, gradient = jnp.ones((8, 64, 64, 32)), jnp.ones((8, 32, 32, 32))
    program = jax.jit(form, compiler_options=compiler_options(lowering, "cpu")).lower(images, gradient).compile()
    assert " while(" in program.as_text()
    assert "xla_cpu_small_call" not in program.as_text()  # a loop so marked becomes one function for one thread


def lowered(convolution, images, kernel, platform):
    """The module that a platform gets for the outputs and both gradients."""

    def loss(images, kernel):
        return jnp.sin(convolution(images, kernel)).mean()

    both = jax.jit(jax.value_and_grad(loss, (0, 1)))
    module = both.trace(images, kernel).lower(lowering_platforms=(platform,)).compiler_ir()
    # Drops what was chosen already when it was lowered: a choice of one branch by a constant.
    with module.context:
        PassManager.parse("builtin.module(canonicalize,cse)").run(module.operation)
    return str(module)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize(
    ("case", "form"),
    [
        *((case, form) for case, form in cases_and_forms() if form != "phases"),
        *itertools.product(CASES, ("xla", "onednn")),
    ],
)
def test_tpus_and_gpus_get_xlas_own(case, form, platform):
    images, kernel, convolution = operands(case)
    own, other = (
        lowered(functools.partial(convolution, lowering=lowering), images, kernel, platform)
        for lowering in ("native", form)
    )
    assert other == own


def test_half_precision_is_xlas_own():
    """Its sums are float32, which sums of rounded parts are not."""
    images, kernel, convolution = operands("dense", dtype=jnp.bfloat16)
    traced = [
        str(jax.make_jaxpr(functools.partial(convolution, lowering=form))(images, kernel))
        for form in ("taps", "winograd")
    ]
    assert not any("platform_index" in each or "dot_general" in each for each in traced)


def test_every_form_can_be_asked_for():
    assert {"auto", "xla", "onednn", "native", *FORM_NAMES} == set(typing.get_args(ConvLowering))


def test_strips_are_written_as_briefly_for_large_images():
    """Compiled in a time that does not grow with the images."""

    def operations(size):
        geometry = Geometry((size, size), (3, 3), (1, 1), ((1, 1), (1, 1)), 1)
        images, gradient = (jnp.zeros((2, size, size, channels)) for channels in (3, 8))
        traced = jax.make_jaxpr(functools.partial(FORMS["by_kernel"]["strips"], geometry=geometry))(images, gradient)
        return len(traced.eqns)

    assert operations(64) == operations(16)


def test_what_each_position_of_the_window_saw_is_not_kept_at_once():
    """One copy of the images after the other, not nine together."""
    geometry = Geometry((64, 64), (3, 3), (1, 1), ((1, 1), (1, 1)), 1)
    images = jax.ShapeDtypeStruct((2, 64, 64, 64), jnp.float32)
    run = jax.jit(functools.partial(FORMS["by_kernel"]["taps"], geometry=geometry))
    needed = run.lower(images, images).compile().memory_analysis().temp_size_in_bytes
    assert needed < 4 * images.size * 4
