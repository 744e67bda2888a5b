"""Eight virtual CPU devices in the tests' own process, and quick compilation; must be set before JAX starts."""

import gc
import os
from pathlib import Path

import pytest
from quick import xla_flags

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags(8)}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tracing makes objects by the thousand; to look for garbage after every 700 takes an eighth of the tests' time.
gc.set_threshold(100_000, 20, 50)


@pytest.fixture
def _no_program_is_kept():
    """Whatever folder an earlier test of this process has named."""
    import jax

    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Path:
    """Keeps compiled programs."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session", autouse=True)
def _compile_once(compiled: Path) -> None:
    """Many tests run the same small networks: equal programs of this process are compiled once.

    Not where oneDNN is, whose programs cannot be kept.
    """
    import jax

    from cnnjax.ops.onednn import is_available

    if is_available("cpu"):
        return
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
