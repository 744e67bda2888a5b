"""How tests compile: quickly. They run small programs once or twice; to compile them well takes half as long again.

CNNJAX_TESTS_COMPILE=well compiles as a user's programs are: so does CI on the newest JAX. Imports nothing but the
standard library, for flags must be set before JAX starts.
"""

import os
from importlib.metadata import version

OPTIONS: dict[str, bool | int] = {
    "xla_backend_optimization_level": 0,
    # Tests have about one core each: cut in 32 parts for threads, a program takes it a quarter longer.
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""For one program, as `compiler_options` of `jax.jit`."""
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # JAX ends at a flag that it does not know
    OPTIONS["xla_cpu_use_fusion_emitters"] = False


def xla_flags(devices: int) -> str:
    """The XLA_FLAGS of a process of so many virtual CPU devices, in which everything is compiled so."""
    quick = [] if os.environ.get("CNNJAX_TESTS_COMPILE") == "well" else OPTIONS.items()
    flags = [f"--{name}={str(value).lower()}" for name, value in quick]
    return " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"])
