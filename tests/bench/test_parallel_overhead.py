"""The benchmark of the way over devices on one device, by a clock of its own: no time limit."""

import json
from pathlib import Path

import pytest

from cnnjax.bench import parallel
from cnnjax.config_files import load_config
from cnnjax.parallel import Executor

CONFIG = Path(__file__).parents[2] / "configs/train/lenet5_digits.yaml"


def test_a_row_and_its_page(tmp_path, cnnjax):
    words = ("bench", "parallel", CONFIG, "data.batch_size=8", "--steps", "1", "--rounds", "3", "--report", tmp_path)
    for _ in range(2):  # the second gives way
        code, out, _ = cnnjax(*words, "--json")
        assert code == 0
    row = json.loads(out)
    assert (row["model"], row["batch_size"], row["executor"]) == ("lenet5_modern", 8, "jit")
    assert row["interval"][0] <= row["ratio"] <= row["interval"][1]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1
    page = (tmp_path / "README.md").read_text()
    assert f"| `lenet5_modern` | 8 | jit, cpu | {1000 * row['plain_seconds']:.2f} |" in page


@pytest.mark.parametrize("executor", ["jit", "pmap"])
def test_the_line_that_people_read(executor, cnnjax):
    words = ("data.batch_size=8", f"parallel.executor={executor}", "--steps", "1", "--rounds", "1")
    code, out, _ = cnnjax("bench", "parallel", CONFIG, *words)
    assert code == 0
    assert out.startswith(f"lenet5_modern, batch 8, {executor} on one cpu device: ")


def test_the_clock_sees_each_ways_own_steps(monkeypatch):
    """A batch that goes over the executor takes three seconds by this clock, a round both ways in turn."""
    now = [0.0]
    put, spent = Executor.put_batch, []

    def slow(self, batch):
        now[0] += 3.0
        spent.append(1)
        return put(self, batch)

    def tick():
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr("cnnjax.bench.parallel.perf_counter", tick)
    monkeypatch.setattr(Executor, "put_batch", slow)
    row = parallel.measure_parallel(load_config(CONFIG, ["data.batch_size=8"]), steps=2, rounds=5)
    assert len(spent) == 2 + 5 * 2
    assert (row["plain_seconds"], row["parallel_seconds"]) == (1 / 2, (1 + 2 * 3) / 2)
    assert row["ratio"] == 7
    assert row["interval"] == [7, 7]
