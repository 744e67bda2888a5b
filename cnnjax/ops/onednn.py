"""oneDNN on CPUs: the library of matrix products and convolutions that PyTorch has there lies in jaxlib too.

XLA uses it in programs that are compiled with the options below. Which forms of a convolution are fast changes with it:
its convolutions of groups and of single channels are as fast as dense ones, so fewer have to be written otherwise.

A product or convolution and what is added to it become one routine. oneDNN refuses it, and the process ends, where more
than 32 things are added: long sums of products have to be cut by `lax.optimization_barrier`.
"""

import platform as machine
from typing import Literal

import jax

from cnnjax.config import ConvLowering
from cnnjax.errors import ConfigError

Library = Literal["xla", "onednn"]
"""Whose matrix products and convolutions a program for a CPU is compiled to: XLA's own, or oneDNN's."""

# Older versions take the options, and leave convolutions as they are.
_SINCE = (0, 12)
CompilerOptions = dict[str, bool | str]
_OPTIONS: CompilerOptions = {
    "xla_cpu_use_onednn": True,
    "xla_cpu_experimental_onednn_custom_call": True,
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",  # sums alone are left to another library
}


def is_available(platform: str) -> bool:
    """Whether programs for that kind of device ("cpu", "gpu" or "tpu") can be compiled to oneDNN's routines here."""
    return platform == "cpu" and machine.machine() in ("x86_64", "AMD64") and jax.__version_info__ >= _SINCE


def resolve(wanted: ConvLowering, platform: str, precision: str = "float32") -> ConvLowering:
    """How convolutions are best written in a program that is compiled with `compiler_options` of the result.

    Args:
        wanted: "auto" becomes "onednn" where that is available, the precision is float32, for which it was measured,
            and JAX does not keep compiled programs in a folder: jaxlib cannot write those with oneDNN's convolutions.
        platform: of the devices, as in `is_available`.

    Raises:
        ConfigError: "onednn" is wanted on a CPU where it is not available.
    """
    if wanted == "onednn" and platform == "cpu" and not is_available(platform):
        raise ConfigError(
            f"ops.conv: onednn needs JAX {'.'.join(map(str, _SINCE))} or newer on an x86-64 CPU; this is JAX "
            f"{jax.__version__} on {machine.machine()}; choose auto"
        )
    kept: str | None = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]  # JAX adds its options later
    possible = is_available(platform) and precision == "float32" and not kept
    return "onednn" if wanted == "auto" and possible else wanted


def compiler_options(lowering: ConvLowering, platform: str) -> CompilerOptions:
    """What `jax.jit` takes as `compiler_options` for a network whose convolutions are written that way."""
    return dict(_OPTIONS) if lowering == "onednn" and is_available(platform) else {}


def library_of(lowering: ConvLowering) -> Library:
    """By whose measurements the forms of a network's convolutions are chosen."""
    return "onednn" if lowering == "onednn" else "xla"
