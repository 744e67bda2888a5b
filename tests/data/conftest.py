"""Where the tests find real data."""

import os
from pathlib import Path

import pytest

BESIDE_THE_PROJECT = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def real_data(request) -> Path:
    """The folder of the real data set that the test names by indirect parametrisation; skips without it."""
    folder = Path(os.environ.get("CNNJAX_DATA", BESIDE_THE_PROJECT)) / request.param
    if not folder.is_dir():
        pytest.skip(f"no folder '{request.param}' in $CNNJAX_DATA or ../shared/data beside the project")
    return folder
