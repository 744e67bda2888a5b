"""Memory that is freed stays for the next step."""

import os
import subprocess
import sys

import pytest

from cnnjax import malloc
from cnnjax.malloc import keep_freed_memory

# Each call needs arrays of 64 MiB that it frees again.
STEPS = """
import resource, sys
from cnnjax.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory({"JAX_PLATFORMS": "cpu"})
import jax, jax.numpy as jnp
from jax import lax

def whole(x):
    many = jnp.broadcast_to(x, (16, 1024, 1024)) * x
    return lax.cumsum(lax.cumsum(many, 1)[::-1], 2).sum()

step = jax.jit(whole)
x = jnp.ones((1024, 1024))
for _ in range(20):
    step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4)
"""


def pages_of_a_step(how: str) -> int:
    command, environment = [sys.executable, "-c", STEPS, how], {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    return int(done.stdout)


@pytest.mark.skipif(malloc.platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_step_gets_no_new_pages():
    assert 3 * pages_of_a_step("keep") < pages_of_a_step("leave")


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_PLATFORMS": "tpu"},
        {"JAX_PLATFORMS": "cpu,cuda"},
        {"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "4"},
        {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    ],
)
def test_what_someone_else_decides_is_left_alone(environment):
    assert not keep_freed_memory(environment)


@pytest.mark.parametrize("plugin", malloc._ACCELERATORS)
def test_machines_with_an_accelerator_are_left_alone(plugin, monkeypatch):
    monkeypatch.setattr(malloc.importlib.util, "find_spec", lambda name: object() if name == plugin else None)
    assert not keep_freed_memory({})
