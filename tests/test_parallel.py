"""One step, four ways to run it: one device, jit over eight, pmap over eight, two processes of four."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).with_name("parallel_worker.py")
# "local" means each of eight devices: on one device that is groups of 32 / 8.
MODES = ("global", "local", "frozen", "ghost=2")


def start(out: Path, **options) -> subprocess.Popen:
    words = [sys.executable, str(WORKER), "--out", str(out)]
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*processes: subprocess.Popen) -> None:
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def two_processes(out: Path, **options) -> None:
    coordinator = f"127.0.0.1:{free_port()}"
    finish(
        *(
            start(out, local_devices=4, processes=2, process_id=index, coordinator=coordinator, **options)
            for index in range(2)
        )
    )


@pytest.fixture(scope="module", params=[1, 2], ids=["whole batch", "accumulated"])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    accumulate = request.param
    one = folder / "one.npz"
    finish(start(one, local_devices=1, modes=("global", "ghost=4", "frozen", "ghost=2"), accumulate=accumulate))
    for executor in ("jit", "pmap"):
        finish(
            start(folder / f"{executor}8.npz", local_devices=8, executor=executor, modes=MODES, accumulate=accumulate)
        )
        two_processes(folder / f"{executor}2x4.npz", executor=executor, modes=MODES, accumulate=accumulate)
    reference = {name: np.asarray(leaf) for name, leaf in np.load(one).items()}
    if accumulate == 1:  # each of eight devices' own 32 / 8
        local = {name.replace("ghost=4", "local"): leaf for name, leaf in reference.items() if "ghost=4" in name}
    else:  # micro-batches deal single examples out, and groups of two in pairs: another grouping
        local = {name: leaf for name, leaf in np.load(folder / "jit8.npz").items() if name.startswith("local/")}
    return reference | local, folder


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["jit8", "pmap8", "jit2x4", "pmap2x4"])
def test_every_way_equals_one_device(results, way, mode):
    reference, folder = results
    found = np.load(folder / f"{way}.npz")
    names = [name for name in reference if name.startswith(f"{mode}/")]
    assert {name for name in found.files if name.startswith(f"{mode}/")} == set(names)
    assert any("batch_stats" in name for name in names)
    for name in names:
        expected = reference[name].astype(np.float64)
        difference = np.abs(found[name] - expected).max() / max(np.abs(expected).max(), 1e-3)
        assert difference < 1e-5, f"{name}: {difference}"


@pytest.mark.parametrize("way", ["jit8", "pmap8", "jit2x4", "pmap2x4"])
def test_evaluation_counts_each_example_once(results, way):
    reference, folder = results
    total, count = np.load(folder / f"{way}.npz")["global/eval/accuracy"]
    assert count == 100  # in batches of 16, the last one padded
    assert total == reference["global/eval/accuracy"][0]


def test_the_modes_differ(results):
    reference, _ = results
    params = [reference[f"{mode}/state.params['conv8']['kernel']"] for mode in MODES]
    for index, one in enumerate(params):
        for other in params[index + 1 :]:
            assert np.abs(one - other).max() > 1e-5
