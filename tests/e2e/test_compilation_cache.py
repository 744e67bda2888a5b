"""Compiled programs are kept from one start of a run to the next."""

import subprocess
import sys

import pytest


def train(folder, config, run_dir, *words):
    command = [sys.executable, "-m", "cnnjax", "train", config, "--run-dir", run_dir]
    subprocess.run(
        [*map(str, command), f"parallel.compilation_cache={folder}", *words], check=True, capture_output=True
    )
    return {path.name for path in folder.iterdir() if "step" in path.name and path.name.endswith("-cache")}


def test_a_run_that_goes_on_compiles_nothing_anew(small, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    cache, run_dir = tmp_path / "compiled" / "here", tmp_path / "run"
    first = train(cache, small, run_dir, "train.duration.steps=2")
    assert first
    assert train(cache, small, run_dir, "train.duration.steps=4") == first


@pytest.mark.parametrize("name", ["file/below", "file"])
def test_a_folder_that_cannot_be_made_is_refused(name, small, tmp_path, cnnjax):
    (tmp_path / "file").write_text("")
    folder = tmp_path / name
    refused = cnnjax("train", small, "--run-dir", tmp_path / "run", f"parallel.compilation_cache={folder}")
    assert refused.error.startswith(f"parallel.compilation_cache: {folder} cannot be made (")
