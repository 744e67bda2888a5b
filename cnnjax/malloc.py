"""What the C library does with memory that is freed: on a CPU, each step of a network asks for the same again."""

import ctypes
import importlib.util
import os
import platform
from collections.abc import Mapping

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1
_ACCELERATORS = ("libtpu", "jax_plugins")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Lets glibc keep what is freed, in one pool for all threads, instead of giving it back to the system.

    Else each step gets its hundreds of megabytes anew, page by page. To be called before JAX starts its threads, that
    is before anything touches a device. Nothing changes where it would not help (another C library; a plugin for a TPU
    or GPU is there, and `JAX_PLATFORMS` does not say `cpu`) or the environment sets malloc's parameters itself.

    Returns:
        Whether it does.
    """
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment)
    if own or platform.libc_ver()[0] != "glibc" or not _on_cpu(environment):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    parameters = ((_TRIM_THRESHOLD, _NEVER), (_MMAP_MAX, 0), (_ARENA_MAX, 1))
    return all(mallopt(parameter, value) == 1 for parameter, value in parameters)


def _on_cpu(environment: Mapping[str, str]) -> bool:
    if environment.get("JAX_PLATFORMS"):
        return environment["JAX_PLATFORMS"] == "cpu"
    return not any(importlib.util.find_spec(name) for name in _ACCELERATORS)
