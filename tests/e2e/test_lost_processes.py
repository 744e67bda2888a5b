"""A process of a job is killed, stopped, hangs or fails: the others say which, end, and the next start continues."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from quick import xla_flags

from cnnjax.train.run_folder import read_history

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("noting_worker.py")
EXAMPLES, BATCH, STEPS = 192, 32, 60
SETTINGS = (
    "data.source.kind=synthetic",
    f"data.source.train_examples={EXAMPLES}",
    "data.source.test_examples=40",
    f"data.batch_size={BATCH}",
    "eval.batch_size=32",
    "model.args={norm: batch, activation: tanh, pooling: average}",  # smooth: no kink to amplify rounding
    "optimizer.args.momentum=0.9",
    "schedule.learning_rate=0.02",
    f"train.duration.steps={STEPS}",
    "log.every.steps=3",
    "eval.every.steps=20",
    "checkpoint.every.steps=5",
    "parallel.lost_timeout=4",
)
TOLERANCE = 1e-4
"""Of the loss, between jobs of different sizes: float32 sums in another order, over 60 steps."""


@pytest.fixture(autouse=True)
def _compiled_once(compiled, monkeypatch) -> None:
    """The same few programs in each start."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(compiled))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@dataclass
class Job:
    """Some processes that train one run folder."""

    run_dir: Path
    start: int = 0

    @property
    def log(self) -> Path:
        return self.run_dir.with_suffix(".examples")

    def begin(
        self, processes: int, devices: int, *words: str, slowness: float = 0.0, faults: dict[int, str] | None = None
    ) -> list[subprocess.Popen]:
        self.start += 1
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{listener.getsockname()[1]}"
        config = self.run_dir.with_suffix(".yaml")
        config.write_text("{}\n")
        environment = os.environ | {"XLA_FLAGS": xla_flags(devices)}
        started = []
        for index in range(processes):
            fault = (faults or {}).get(index, "none")
            command = [sys.executable, WORKER, self.log, str(self.start), str(slowness), fault, "train", config]
            command += [*SETTINGS, *words, "--run-dir", self.run_dir]
            if processes > 1:
                command += ["--coordinator", coordinator, "--processes", str(processes), "--process-id", str(index)]
            started.append(
                subprocess.Popen(
                    list(map(str, command)),
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return started

    def wait_for_step(self, step: int, processes: list[subprocess.Popen]) -> None:
        """Until the history has come so far."""
        end = time.monotonic() + 200
        while not any(line["step"] >= step for line in read_history(self.run_dir)):
            assert all(process.poll() is None for process in processes), [each.communicate() for each in processes]
            assert time.monotonic() < end
            time.sleep(0.05)

    def saved(self) -> int:
        return max(int(folder.name) for folder in (self.run_dir / "checkpoints").iterdir() if folder.name.isdigit())


def ended(*processes: subprocess.Popen, code: int = 0, within: float = 120) -> list[str]:
    outputs = [process.communicate(timeout=within)[0] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), "\n---\n".join(outputs)
    assert not any("Traceback" in output for output in outputs), "\n---\n".join(outputs)
    return outputs


def error_in(output: str) -> str:
    [error] = re.findall(r"^error: (.*)$", output, flags=re.MULTILINE)
    return error


def kill(*processes: subprocess.Popen) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()


def assert_same_curve(run_dir: Path, reference: Path) -> None:
    found, expected = read_history(run_dir), read_history(reference)
    assert [(line["kind"], line["step"]) for line in found] == [(line["kind"], line["step"]) for line in expected]
    assert max(abs(one["loss"] - other["loss"]) for one, other in zip(found, expected, strict=True)) < TOLERANCE
    assert [line["examples"] for line in found] == [line["examples"] for line in expected]


def assert_each_example_once_an_epoch(log: Path) -> None:
    """A step that was made again counts as it was made last, and then by all processes of that start."""
    last: dict[int, int] = {}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for start, _, step, _, _ in lines:
        last[step] = max(last.get(step, 0), start)
    assert sorted(last) == list(range(1, STEPS + 1))
    seen: dict[int, list[int]] = {}
    for start, _, step, epochs, indices in lines:
        if start == last[step]:
            assert set(epochs) == {(step - 1) * BATCH // EXAMPLES}
            seen.setdefault(epochs[0], []).extend(indices)
    assert len(seen) == STEPS * BATCH // EXAMPLES
    for indices in seen.values():
        assert np.array_equal(np.sort(indices), np.arange(EXAMPLES))
    assert len({tuple(indices) for indices in seen.values()}) == len(seen)  # each in an order of its own


def test_four_processes_one_is_killed_then_all_and_fewer_resume(tmp_path):
    alone = Job(tmp_path / "alone")
    ended(*alone.begin(1, 1))
    assert_each_example_once_an_epoch(alone.log)

    job = Job(tmp_path / "run")
    processes = job.begin(4, 2, slowness=0.1)
    job.wait_for_step(12, processes)
    processes[2].kill()
    since = time.monotonic()
    outputs = ended(processes[0], processes[1], processes[3], code=3)
    assert time.monotonic() - since < 30  # parallel.lost_timeout is 4 s; the machine may be busy
    for output in outputs:
        assert f"process 2 (host {os.uname().nodename}, pid {processes[2].pid})" in error_in(output)
        assert f"it continues from the checkpoint of step {job.saved()}" in error_in(output)
    kill(processes[2])
    first = job.saved()

    processes = job.begin(2, 2, slowness=0.1)
    job.wait_for_step(first + 15, processes)
    kill(*processes)
    second = job.saved()
    assert first < second < STEPS
    [output] = ended(*job.begin(1, 1))
    assert f"at step {second} of {STEPS}" in output
    assert_same_curve(job.run_dir, alone.run_dir)
    assert_each_example_once_an_epoch(job.log)


def test_the_other_of_two_names_who_is_gone(tmp_path):
    """The coordinator of JAX, without which it aborts; and one that is stopped, whose connections stay open."""
    jobs = [
        (Job(tmp_path / "killed"), 0, signal.SIGKILL),
        (Job(tmp_path / "stopped"), 1, signal.SIGSTOP),
    ]
    begun = [job.begin(2, 1, slowness=0.05) for job, _, _ in jobs]
    for (job, victim, how), processes in zip(jobs, begun, strict=True):
        job.wait_for_step(6, processes)
        processes[victim].send_signal(how)
    for (_, victim, _), processes in zip(jobs, begun, strict=True):
        [output] = ended(processes[1 - victim], code=3, within=40)
        assert f"process {victim} (host {os.uname().nodename}, pid {processes[victim].pid}) is lost" in error_in(output)
        kill(processes[victim])


def test_who_hangs_is_named_and_who_fails_is_quoted(tmp_path):
    hanging, failing = Job(tmp_path / "hanging"), Job(tmp_path / "failing")
    processes = hanging.begin(2, 1, "parallel.hang_timeout=8", faults={1: "hang:7"})
    others = failing.begin(2, 1, faults={1: "fail:7"})
    for output in ended(*processes, code=3):
        assert "nothing has gone on for" in error_in(output) or "has ended: nothing has gone on" in error_in(output)
        assert f"pid {processes[1].pid}) is reading data at step 6, and the others wait for it" in error_in(output)
    failure = "/data/7.png cannot be read; mend or remove it"
    [output] = ended(others[1], code=2)
    assert error_in(output) == failure
    [output] = ended(others[0], code=3)
    assert f"process 1 (host {os.uname().nodename}, pid {others[1].pid}) has ended: {failure}" in error_in(output)


def test_all_are_told_to_stop_and_save_at_the_same_step(tmp_path):
    """By SIGTERM to all at once, as of SLURM and GKE, and by Ctrl-C at one of them."""
    told = [(signal.SIGTERM, (0, 1)), (signal.SIGINT, (1,))]
    jobs = [Job(tmp_path / f"run{number}") for number in range(len(told))]
    begun = [job.begin(2, 1, "train.duration.steps=4000", slowness=0.02) for job in jobs]
    for job, processes, (number, to) in zip(jobs, begun, told, strict=True):
        job.wait_for_step(6, processes)
        for index in to:
            processes[index].send_signal(number)
    for job, processes in zip(jobs, begun, strict=True):
        outputs = ended(*processes)
        assert all(f"stopped and saved at step {job.saved()}" in output for output in outputs)
        assert job.saved() < 4000
        assert not (job.run_dir / "processes").exists()
