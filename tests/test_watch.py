"""Signs of life: one process watches here, and the test plays the others'."""

import json
import threading
import time
from dataclasses import asdict

import jax
import pytest

from cnnjax.config_parallel import ParallelConfig
from cnnjax.errors import DataError, RunError
from cnnjax.parallel import Watch, forget_signs, watch
from cnnjax.parallel.watch import Sign
from cnnjax.train.run_folder import write_whole

QUICK = ParallelConfig(lost_timeout=1.2, hang_timeout=None)


class Other:
    """Process 1, as far as its file goes."""

    def __init__(self, run_dir):
        self.sign = Sign(1, "elsewhere", 4711, doing="training", step=7)
        self.path = run_dir / "processes" / "1.json"

    def live(self, *, seconds: float = 0.0) -> None:
        end = time.monotonic() + seconds
        while True:
            self.sign.looks += 1
            write_whole(self.path, json.dumps(asdict(self.sign)))
            if time.monotonic() >= end:
                return
            time.sleep(0.1)


@pytest.fixture
def ended(monkeypatch):
    """Set once the watch would end the process, with what it says."""

    class Ended(threading.Event):
        sentence, code = "", 0

    told = Ended()

    def note(sentence: str, code: int) -> None:
        told.sentence, told.code = sentence, code
        told.set()

    monkeypatch.setattr(watch, "end_process", note)
    monkeypatch.setattr(watch, "_GRACE", 0.5)
    return told


def watch_of(tmp_path, config=QUICK, **options) -> Watch:
    options = {"index": 0, "count": 2, "last_checkpoint": lambda: 5, "warn": print} | options
    return Watch(tmp_path, config=config, **options)


def test_a_lost_one_is_named(tmp_path, ended):
    with watch_of(tmp_path):
        other = Other(tmp_path)
        other.live(seconds=2.5)
        assert not ended.is_set()  # longer than parallel.lost_timeout, but alive
        assert ended.wait(10)
    assert ended.code == 3
    assert ended.sentence == (
        "process 1 (host elsewhere, pid 4711) is lost, it was training at step 7: no sign of life for 1.2 s "
        "(parallel.lost_timeout); run the same command again in all processes: it continues from the checkpoint of "
        "step 5"
    )


def test_one_that_never_came_to_the_run_folder(tmp_path, ended):
    with watch_of(tmp_path, last_checkpoint=lambda: None):
        assert ended.wait(10)
    assert f"process 1 has left no sign in {tmp_path / 'processes'}, which all processes must share" in ended.sentence
    assert ended.sentence.endswith("it starts from the beginning")


def test_a_hang_names_who_is_behind(tmp_path, ended):
    with watch_of(tmp_path, QUICK.model_copy(update={"hang_timeout": 1.0})) as here:
        here.note("training")
        here.began(8)
        other = Other(tmp_path)
        other.sign.doing = "reading data"
        other.live(seconds=3)
        assert ended.wait(10)
    assert ended.sentence.startswith(
        "nothing has gone on for 1 s (parallel.hang_timeout): process 1 (host elsewhere, pid 4711) is reading data at "
        "step 7, and the others wait for it; run the same command again"
    )


def test_progress_and_compiling_are_no_hang(tmp_path, ended):
    with watch_of(tmp_path, QUICK.model_copy(update={"hang_timeout": 1.0})) as here:
        other = Other(tmp_path)
        other.live(seconds=1.8)  # starting may take three times as long
        for _ in range(4):
            here.note("evaluating")
            other.live(seconds=0.5)
        assert not ended.is_set()


def test_a_failure_is_quoted(tmp_path, ended):
    with watch_of(tmp_path):
        other = Other(tmp_path)
        other.sign.state, other.sign.why = "failed", "7.png cannot be read."
        other.live()
        assert ended.wait(10)
    assert "process 1 (host elsewhere, pid 4711) has ended: 7.png cannot be read; run the same" in ended.sentence


@pytest.mark.parametrize("direct", [True, False])
def test_an_error_of_jax_waits_for_who_is_lost(direct, tmp_path, ended):
    def stumble() -> None:
        Other(tmp_path).live()
        try:
            raise jax.errors.JaxRuntimeError("Connection closed by peer")
        except jax.errors.JaxRuntimeError as error:
            if direct:
                raise
            raise RunError("a checkpoint could not be written") from error

    here = watch_of(tmp_path)
    here._leave = lambda code: None  # it would end the tests
    with pytest.raises(jax.errors.JaxRuntimeError if direct else RunError), here:
        stumble()
    here._stop.set()
    assert "process 1 (host elsewhere, pid 4711) is lost" in ended.sentence


def test_an_own_failure_is_left_for_the_others(tmp_path, ended):
    here, codes = watch_of(tmp_path), []
    here._leave = codes.append
    with pytest.raises(DataError), here:
        raise DataError("7.png cannot be read")
    here._stop.set()
    assert codes == [2]
    sign = json.loads((tmp_path / "processes" / "0.json").read_text())
    assert (sign["state"], sign["why"]) == ("failed", "7.png cannot be read")


def test_the_end_leaves_nothing_and_is_no_loss(tmp_path, ended):
    with watch_of(tmp_path):
        other = Other(tmp_path)
        other.live(seconds=0.5)
        other.path.unlink()  # it has ended before
        time.sleep(2)
    assert not ended.is_set()
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_start_left_is_forgotten(tmp_path, ended):
    (tmp_path / "processes").mkdir()
    Other(tmp_path).live()
    forget_signs(tmp_path)
    assert list(tmp_path.iterdir()) == []
    forget_signs(tmp_path)


def test_a_sign_that_cannot_be_written_is_told_once(tmp_path, ended, monkeypatch):
    told = []

    def refuse(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watch, "write_whole", refuse)
    with watch_of(tmp_path, warn=told.append):
        time.sleep(0.8)
    [warning] = told
    assert "0.json cannot be written (No space left on device); after 1.2 s the other processes will" in warning


def test_a_process_alone_has_neither_file_nor_thread(tmp_path):
    def step() -> int:
        return 1

    before = threading.active_count()
    with watch_of(tmp_path, count=1) as here:
        assert here.noting(step, "training") is step
        assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []
