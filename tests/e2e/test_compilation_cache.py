"""Compiled programs are kept from one start of a run to the next."""

import subprocess
import sys

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from cnnjax.config_files import load_config
from cnnjax.train.loop import fit


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


def test_each_run_of_a_process_has_its_own_folder(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        for name in ("first", "second"):
            jax.clear_caches()
            fit(load_config(small, [f"parallel.compilation_cache=$PLACE/{name}"]), tmp_path / f"{name}_run")
            assert any((tmp_path / name).iterdir())
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("file/below", "Not a directory"), ("file", "File exists"), ("~nobody-has-this-name", "File exists")],
)
def test_a_folder_that_cannot_be_made_is_refused(name, reason, small, tmp_path, cnnjax, monkeypatch):
    (tmp_path / "file").write_text("")
    folder = name if name.startswith("~") else tmp_path / name
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nobody-has-this-name").write_text("")  # a home that is not there is a name like any other
    refused = cnnjax("train", small, "--run-dir", tmp_path / "run", f"parallel.compilation_cache={folder}")
    assert refused.error == (
        f"parallel.compilation_cache: {folder} cannot be used ({reason}); choose another folder, or null"
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_refused(small, tmp_path, cnnjax, disk):
    disk.make_read_only()
    refused = cnnjax("train", small, "--run-dir", tmp_path / "run", f"parallel.compilation_cache={disk.folder}")
    assert refused.error.startswith(f"parallel.compilation_cache: {disk.folder} cannot be used (not writable)")
