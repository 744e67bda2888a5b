"""One step, many ways to run it: jit or pmap, on one device to sixteen, whole or in parts, in one process or two."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).with_name("parallel_worker.py")
# train.batch_norm and optimizer.accumulate; augmented: with changed and blended images
CASES = ("global/1", "local/1", "frozen/1", "ghost=2/1", "global/2", "ghost=2/2", "augmented/global/1")
# Two processes differ from one in how batches are dealt and numbers gathered.
DEALT = ("global/1", "local/1", "ghost=2/2", "augmented/global/1")
SHARDED = ("global/1", "ghost=2/2")
# Other numbers of devices; two micro-batches of sixteen devices would be smaller than a group.
COUNTED = ("global/1", "ghost=2/1", "global/2", "augmented/global/1")
WAYS = {
    "jit8": CASES,
    "pmap8": CASES,
    "jit2x4": DEALT,
    "pmap2x4": DEALT,
    "optimizer8": SHARDED,
    "all8": SHARDED,
    "all2x4": SHARDED,
    "jit16": COUNTED,
    **dict.fromkeys(("jit2", "jit4", "pmap16"), COUNTED[:1]),
}
FAST = ("jit8", "pmap8", "jit2x4", "pmap2x4", "all8")


def start(out: Path, **options) -> subprocess.Popen:
    words = [sys.executable, str(WORKER), "--out", str(out)]
    for name, value in options.items():
        values = value if isinstance(value, list | tuple) else (value,)
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


class Results:
    """What one device computes, and every other way; each is computed when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, dict[str, np.ndarray]] = {}

    def __getitem__(self, way: str) -> dict[str, np.ndarray]:
        if way not in self._found:
            out = self._folder / f"{way}.npz"
            self._compute(way, out)
            # "local" means each of eight devices: on one device that is groups of 32 / 8.
            renamed = {name.replace("ghost=4", "local"): leaf for name, leaf in np.load(out).items()}
            self._found[way] = renamed
        return self._found[way]

    def _compute(self, way: str, out: Path) -> None:
        if way == "one":
            finish(start(out, local_devices=1, cases=[case.replace("local", "ghost=4") for case in CASES]))
            return
        kind, devices = re.fullmatch(r"([a-z]+)([\dx]+)", way).groups()
        setting = {"executor": kind} if kind in ("jit", "pmap") else {"shard_state": kind}
        if "x" in devices:
            two_processes(out, cases=WAYS[way], **setting)
        else:
            finish(start(out, local_devices=int(devices), cases=WAYS[way], **setting))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("parallel"))


def each(way: str, *case: str):
    """A parameter; what differs from another way in the number of devices alone is slow."""
    return pytest.param(way, *case, marks=() if way in FAST else pytest.mark.slow)


@pytest.mark.parametrize(("way", "case"), [each(way, case) for way, cases in WAYS.items() for case in cases])
def test_every_way_equals_one_device(results, way, case):
    reference, found = results["one"], results[way]
    names = [name for name in reference if name.startswith(f"{case}/")]
    assert {name for name in found if name.startswith(f"{case}/")} == set(names)
    assert any("batch_stats" in name for name in names)
    assert any("ema" in name for name in names)
    for name in names:
        expected = reference[name].astype(np.float64)
        difference = np.abs(found[name] - expected).max() / max(np.abs(expected).max(), 1e-3)
        assert difference < 1e-5, f"{name}: {difference}"


@pytest.mark.parametrize("way", [each(way) for way in WAYS])
def test_steps_examples_and_gradient_are_those_of_one_device(results, way):
    reference, found = results["one"], results[way]
    assert found["global/1/state.step"] == reference["global/1/state.step"] == 3
    assert [found[f"global/1/train{step}/loss"][1] for step in range(3)] == [32, 32, 32]
    gradient = [name for name in reference if name.startswith("global/1/first/")]
    assert len(gradient) == 5  # of the convolution, the normalisation's two, the head's two
    for name in gradient:
        assert np.abs(reference[name]).max() > 1e-3
        np.testing.assert_allclose(found[name], reference[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", [each(way) for way in WAYS])
def test_evaluation_counts_each_example_once(results, way):
    total, count = results[way]["global/1/eval/accuracy"]
    assert count == 100  # in batches of 16, the last one padded
    assert total == results["one"]["global/1/eval/accuracy"][0]


def test_accumulation_is_the_whole_batch_where_the_groups_are_the_same(results):
    reference = results["one"]
    for name in [name for name in reference if name.startswith("ghost=2/1/")]:
        other = reference[name.replace("ghost=2/1/", "ghost=2/2/")]
        assert np.abs(reference[name].astype(np.float64) - other).max() < 1e-5, name


def test_the_modes_differ(results):
    params = [results["one"][f"{case}/state.params['conv']['kernel']"] for case in CASES[:4]]
    for index, one in enumerate(params):
        for other in params[index + 1 :]:
            assert np.abs(one - other).max() > 1e-5
