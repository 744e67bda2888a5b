"""All ways of writing a convolution and its two gradients for XLA on a CPU, by name; all compute the same numbers.

A convolution is linear in the images and in the kernel, so there are three maps: `forward` (images and kernel to
outputs), `by_input` (outputs' gradient and kernel to the images') and `by_kernel` (images and outputs' gradient to the
kernel's).
"""

import jax

from cnnjax.ops.conv_forward_forms import (
    by_phases,
    in_blocks,
    input_by_tiles,
    input_by_winograd,
    native,
    native_by_input,
    product_of_patches,
    products_of_taps,
    sum_of_shifts,
    winograd,
)
from cnnjax.ops.conv_geometry import Form, Geometry, Map, lie_side_by_side
from cnnjax.ops.conv_kernel_forms import (
    kernel_by_columns,
    kernel_by_images,
    kernel_by_patches,
    kernel_by_pieces,
    kernel_by_strips,
    kernel_by_taps,
    kernel_by_winograd,
    kernel_in_blocks,
    native_by_kernel,
)

_WIDTHS = (16, 32)
# Channels too few for a machine's vectors.
_FEW = 16

FORMS: dict[Map, dict[str, Form]] = {
    "forward": {
        "native": native,
        "taps": products_of_taps,
        "patches": product_of_patches,
        "winograd": winograd,
        "shifts": sum_of_shifts,
        **{f"blocks{width}": in_blocks(native, width) for width in _WIDTHS},
    },
    "by_input": {
        "native": native_by_input,
        "phases": by_phases(native),
        "tiles": input_by_tiles,
        "taps": by_phases(products_of_taps),
        "patches": by_phases(product_of_patches),
        "winograd": input_by_winograd,
        "shifts": by_phases(sum_of_shifts),
        **{f"blocks{width}": by_phases(in_blocks(native, width)) for width in _WIDTHS},
    },
    "by_kernel": {
        "native": native_by_kernel,
        "pieces": kernel_by_pieces,
        "taps": kernel_by_taps,
        "patches": kernel_by_patches,
        "strips": kernel_by_strips,
        "winograd": kernel_by_winograd,
        "columns": kernel_by_columns,
        "images": kernel_by_images,
        **{f"blocks{width}": kernel_in_blocks(native_by_kernel, width) for width in _WIDTHS},
    },
}


def admitted(geometry: Geometry, channels: int, features: int) -> set[str]:
    """The names of the forms for a convolution of so many channels to so many features."""
    names = {"native", "phases"}
    if geometry.groups == 1:
        names.add("pieces")
        # Products of one channel are elementwise, and an older XLA makes them again for each of their neighbours.
        if channels > 1 or jax.__version_info__ >= (0, 12):
            names.add("taps")
        if geometry.window != (1, 1):
            names.add("patches")
            if channels <= _FEW:
                names.add("strips")
            if lie_side_by_side(geometry):
                names.add("tiles")
        if geometry.window == (3, 3) and geometry.strides == (1, 1):
            names.add("winograd")
    elif geometry.groups == channels and features % channels == 0:
        names |= {"shifts", "columns"}
    else:
        names |= {"images", *(f"blocks{width}" for width in _WIDTHS)}
    return names
