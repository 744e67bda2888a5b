"""Studies compile the same small networks in several tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def _compile_once(compiling_once) -> Iterator[None]:
    with compiling_once():
        yield
