"""The small runs that tests share, and a small disk."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bars import write_bars
from commands import Disk, in_this_process
from quick import xla_flags

SMALL = """
model: {name: lenet5_modern}
data:
  source: {kind: synthetic, train_examples: 64, test_examples: 32, image_size: 28}
  batch_size: 16
schedule: {kind: constant, learning_rate: 0.05}
train: {duration: {steps: 6}}
eval: {every: {steps: 2}, batch_size: 32}
checkpoint: {every: {steps: 2}, keep_last: 3}
log: {every: {steps: 1}}
parallel: {devices: 1}
"""
BARS = """
data:
  source: {kind: idx, path: nowhere, class_names: [top, left, bottom, right]}
  batch_size: 16
optimizer: {args: {momentum: 0.9}}
schedule: {kind: constant, learning_rate: 0.05}
train: {duration: {steps: 40}}
eval: {every: {steps: 20}, batch_size: 16}
checkpoint: {every: {steps: 20}}
log: {every: {steps: 20}}
parallel: {devices: 1}
"""


@pytest.fixture(scope="session")
def cnnjax():
    """Runs a command in this process."""
    return in_this_process


@pytest.fixture(scope="session")
def environment(compiled: Path) -> dict[str, str]:
    """For processes of their own: one device, and programs compiled once."""
    return os.environ | {
        "XLA_FLAGS": xla_flags(1),
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """A config file of six tiny steps."""
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory) -> Path:
    """A finished run of `small` with checkpoints 2, 4 and 6; not to be changed."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    in_this_process("train", small, "--run-dir", run_dir).done  # noqa: B018 -- checks
    return run_dir


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """A copy of `trained` to damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    """A small file system of its own; skips where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def bars_config(tmp_path_factory) -> Path:
    """A config for bars, without the folder of the data set."""
    path = tmp_path_factory.mktemp("config") / "bars.yaml"
    path.write_text(BARS)
    return path


@pytest.fixture(scope="session")
def bars(bars_config, tmp_path_factory) -> Path:
    """A finished run that knows the sides of bars, and whose data set is gone."""
    folder = tmp_path_factory.mktemp("bars")
    data = write_bars(folder / "data")
    in_this_process("train", bars_config, f"data.source.path={data}", "--run-dir", folder / "run").done  # noqa: B018 -- checks
    shutil.rmtree(data)
    return folder / "run"
