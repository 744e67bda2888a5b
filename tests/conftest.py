"""Eight virtual CPU devices in the tests' own process, and quick compilation; must be set before JAX starts."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@pytest.fixture(scope="session")
def compiling_once(compiled: Path) -> Callable[[], AbstractContextManager[None]]:
    """Equal programs of this process are compiled once; for tests that run the same small network again and again."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    def use(folder: str | None, seconds: float) -> None:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
        compilation_cache.reset_cache()

    @contextmanager
    def once() -> Iterator[None]:
        before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
        use(str(compiled), 0.0)
        yield
        use(*before)

    return once
