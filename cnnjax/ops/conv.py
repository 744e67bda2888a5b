"""One convolution for all platforms: XLA's own on TPU and GPU, on a CPU whatever is fastest there.

XLA's CPU backend is slow at what it has no kernel for: depthwise and grouped convolutions, and most gradients. There
`cnnjax.ops.conv_forms` writes them as what is fast, and a table of measurements says when (`cnnjax.ops.conv_table`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from cnnjax.config import ConvLowering as Lowering
from cnnjax.ops.conv_forms import FORMS, admitted
from cnnjax.ops.conv_geometry import Geometry, Map
from cnnjax.ops.conv_table import choose
from cnnjax.ops.onednn import library_of
from cnnjax.ops.padding import Pads

# By this name `jax.checkpoint` can keep them.
CONVOLUTION = "convolution"


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int] = (1, 1),
    padding: Pads = ((0, 0), (0, 0)),
    *,
    groups: int = 1,
    lowering: Lowering = "auto",
) -> jax.Array:
    """A convolution with reverse-mode derivatives of any order.

    Args:
        images: (batch, height, width, channels).
        kernel: (height, width, channels // groups, features).
        padding: ((top, bottom), (left, right)), with zeros.
        lowering: how it is written on a CPU.

    Returns:
        (batch, rows, columns, features), in the precision of the images.
    """
    height, width = images.shape[1:3]
    geometry = Geometry((height, width), (kernel.shape[0], kernel.shape[1]), strides, padding, groups)
    if lowering == "native":
        return FORMS["forward"]["native"](images, kernel, geometry)
    return _forward(images, kernel, geometry, lowering)


def input_gradient(
    gradient: jax.Array,
    kernel: jax.Array,
    size: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    padding: Pads = ((0, 0), (0, 0)),
    *,
    groups: int = 1,
    lowering: Lowering = "auto",
) -> jax.Array:
    """The gradient of `convolve` by its images of that height and width; also called a transposed convolution.

    Args:
        gradient: (batch, rows, columns, features).
        kernel: (height, width, channels // groups, features).

    Returns:
        (batch, *size, channels).
    """
    geometry = Geometry(size, (kernel.shape[0], kernel.shape[1]), strides, padding, groups)
    return _by_input(gradient, kernel, geometry, lowering)


@functools.cache
def for_linen(lowering: Lowering) -> Callable[..., jax.Array]:
    """What `flax.linen.Conv` takes as `conv_general_dilated`."""
    if lowering == "native":
        return lax.conv_general_dilated

    def conv_general_dilated(
        lhs: jax.Array,
        rhs: jax.Array,
        window_strides: Sequence[int],
        padding: str | Sequence[tuple[int, int]],
        lhs_dilation: Sequence[int] | None = None,
        rhs_dilation: Sequence[int] | None = None,
        dimension_numbers: Any = None,
        feature_group_count: int = 1,
        precision: Any = None,
        preferred_element_type: Any = None,
    ) -> jax.Array:
        plain = {None, 1}
        if {*(lhs_dilation or ()), *(rhs_dilation or ()), precision, preferred_element_type} - plain:
            raise ValueError("only convolutions without dilation, in the default precision, can be lowered otherwise")
        del dimension_numbers  # Linen's are always those of `convolve`
        down, right = window_strides
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
        above_below, left_right = padding
        pads = (above_below, left_right)
        return convolve(lhs, rhs, (down, right), pads, groups=feature_group_count, lowering=lowering)

    return conv_general_dilated


# The three maps are linear in either argument, and each is the transpose of the others: so each is a derivative rule of
# the others, and derivatives of every order are among them.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _forward(images: jax.Array, kernel: jax.Array, geometry: Geometry, lowering: Lowering) -> jax.Array:
    return _lower("forward", images, kernel, geometry, lowering, kernel.shape[2] * geometry.groups, kernel.shape[3])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_input(gradient: jax.Array, kernel: jax.Array, geometry: Geometry, lowering: Lowering) -> jax.Array:
    return _lower("by_input", gradient, kernel, geometry, lowering, kernel.shape[2] * geometry.groups, kernel.shape[3])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_kernel(images: jax.Array, gradient: jax.Array, geometry: Geometry, lowering: Lowering) -> jax.Array:
    return _lower("by_kernel", images, gradient, geometry, lowering, images.shape[3], gradient.shape[3])


_Both = tuple[jax.Array, jax.Array]


def _keep(function: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, _Both]]:
    def both(one: jax.Array, other: jax.Array, geometry: Geometry, lowering: Lowering) -> tuple[jax.Array, _Both]:
        return function(one, other, geometry, lowering), (one, other)

    return both


def _forward_back(geometry: Geometry, lowering: Lowering, kept: _Both, cotangent: jax.Array) -> _Both:
    images, kernel = kept
    by_kernel = _by_kernel(images, cotangent, geometry, lowering)  # first, as JAX has it
    return _by_input(cotangent, kernel, geometry, lowering), by_kernel


def _by_input_back(geometry: Geometry, lowering: Lowering, kept: _Both, cotangent: jax.Array) -> _Both:
    gradient, kernel = kept
    by_gradient = _forward(cotangent, kernel, geometry, lowering)
    return by_gradient, _by_kernel(cotangent, gradient, geometry, lowering)


def _by_kernel_back(geometry: Geometry, lowering: Lowering, kept: _Both, cotangent: jax.Array) -> _Both:
    images, gradient = kept
    by_images = _by_input(gradient, cotangent, geometry, lowering)
    return by_images, _forward(images, cotangent, geometry, lowering)


_forward.defvjp(_keep(_forward), _forward_back)
_by_input.defvjp(_keep(_by_input), _by_input_back)
_by_kernel.defvjp(_keep(_by_kernel), _by_kernel_back)


# Equal convolutions of a network are traced once.
@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5, 6), inline=True)
def _lower(
    which: Map,
    one: jax.Array,
    other: jax.Array,
    geometry: Geometry,
    lowering: Lowering,
    channels: int,
    features: int,
) -> jax.Array:
    forms = FORMS[which]
    native = functools.partial(forms["native"], geometry=geometry)
    # In half precision too: its sums are float32, where the other forms would round in between.
    if lowering == "native" or jnp.finfo(one.dtype).bits < 32:
        return native(one, other)
    if lowering in ("auto", "xla", "onednn"):
        name = choose(library_of(lowering), which, geometry, one.shape[0], channels, features)
    else:
        name = lowering if lowering in forms and lowering in admitted(geometry, channels, features) else "native"
    # A gradient waits for both its arrays: made along with all that leads to them, more of it is alive at once.
    if name == "native" and which == "forward":
        return native(one, other)

    def form(one: jax.Array, other: jax.Array) -> jax.Array:
        # XLA may not compute what precedes again and again for each part of the form.
        return _written(*lax.optimization_barrier((one, other)), which, name, geometry)

    return checkpoint_name(lax.platform_dependent(one, other, cpu=form, default=native), CONVOLUTION)


# A program of its own, so that those of equal convolutions are lowered once.
@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _written(one: jax.Array, other: jax.Array, which: Map, name: str, geometry: Geometry) -> jax.Array:
    """In that form, whose parts XLA may not compute again and again for each of its neighbours."""
    result: jax.Array = lax.optimization_barrier(FORMS[which][name](one, other, geometry))
    return result
