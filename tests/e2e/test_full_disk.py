"""A disk that is full or read-only: one sentence, nothing lost, and the same command continues once there is room."""

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import final_state, history, snapshot

PAGE = 4096


def test_no_room_for_a_checkpoint(disk, trained, small, cnnjax):
    run_dir = disk.folder / "run"
    command = ("train", small, "--run-dir", run_dir)
    cnnjax(*command, "train.duration.steps=2").done  # noqa: B018 -- checks
    first = snapshot(run_dir / "checkpoints" / "2")
    disk.fill(leave=30 * PAGE)
    error = cnnjax(*command).error
    assert error.startswith(f"a checkpoint could not be written to {run_dir / 'checkpoints'}: No space left on device")
    assert "the last good checkpoint is that of step 2; make room" in error
    assert snapshot(run_dir / "checkpoints" / "2") == first
    assert cnnjax("eval", run_dir, "--json").done.json["step"] == 2
    disk.make_room()
    assert f"continuing {run_dir} at step 2 of 6" in cnnjax(*command).done.out
    assert final_state(run_dir) == final_state(trained)
    assert history(run_dir) == history(trained)


# From the lock over data.json, config.yaml and environment.json to the history: each is the first that does not fit.
@pytest.mark.parametrize("pages", [0, 1, 2, 3, 5, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 6, 7, 8))])
def test_no_room_for_the_small_files_of_a_new_run(pages, disk, small, cnnjax):
    run_dir = disk.folder / "run"
    command = ("train", small, "--run-dir", run_dir, "train.duration.steps=1", "eval.every=null")
    disk.fill(leave=pages * PAGE)
    error = cnnjax(*command).error
    assert str(run_dir) in error
    assert "No space left on device" in error
    assert "make room" in error
    disk.make_room()
    assert cnnjax(*command, "--json").done.json["finished"]


@pytest.mark.parametrize("pages", [0, 2, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 3, 6))])
def test_no_room_to_continue_loses_nothing(pages, disk, trained, small, cnnjax):
    run_dir = Path(shutil.copytree(trained, disk.folder / "run"))
    command = ("train", small, "--run-dir", run_dir, "train.duration.steps=8")
    disk.fill(leave=pages * PAGE)
    before = snapshot(run_dir)
    error = cnnjax(*command).error
    assert "No space left on device" in error
    assert "make room" in error
    after = snapshot(run_dir)
    for name in before.keys() - {
        ".cnnjax.lock",
        "config.yaml",
        "data.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
    }:
        assert after[name] == before[name]
    assert after["metrics.jsonl"][1].startswith(before["metrics.jsonl"][1])
    disk.make_room()
    result = cnnjax(*command, "--json").done.json
    assert (result["step"], result["finished"]) == (8, True)
    assert history(run_dir)[: len(history(trained))] == history(trained)


def test_no_room_for_the_picture_at_the_end(disk, trained, small, cnnjax):
    run_dir = Path(shutil.copytree(trained, disk.folder / "run"))
    (run_dir / "learning_curve.png").unlink()
    disk.fill(leave=6 * PAGE)
    error = cnnjax("train", small, "--run-dir", run_dir).error
    assert error.startswith(f"{run_dir / 'learning_curve.png'} cannot be written: No space left on device; make room")
    disk.make_room()
    assert "at step 6 of 6" in cnnjax("train", small, "--run-dir", run_dir).done.out
    assert (run_dir / "learning_curve.png").stat().st_size > 10_000


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_file_may_be_as_large_as_a_checkpoint(trained, small, tmp_path, cnnjax):
    """Needs no disk of its own, hence no rights."""
    with largest_file(100_000):
        error = cnnjax("train", small, "--run-dir", tmp_path / "run").error
    assert error.startswith("a checkpoint could not be written to ")
    assert "File too large; there is no earlier checkpoint; make room" in error
    assert "at step 6 of 6" not in cnnjax("train", small, "--run-dir", tmp_path / "run").done.out
    assert final_state(tmp_path / "run") == final_state(trained)


def test_a_read_only_disk_is_no_place_to_train_and_good_enough_to_evaluate(disk, trained, small, cnnjax):
    run_dir = Path(shutil.copytree(trained, disk.folder / "run"))
    (run_dir / "checkpoints" / "6" / "progress" / "metadata").write_text("{")
    disk.make_read_only()
    for folder in (run_dir, disk.folder / "new" / "run"):
        error = cnnjax("train", small, "--run-dir", folder).error
        assert error == f"{folder} cannot be written: Read-only file system; choose another --run-dir"
    outcome = cnnjax("eval", run_dir, "--json").done
    assert outcome.json["step"] == 4
    # In this process Python may have something to say of a save that an earlier test has broken off.
    assert "warning: checkpoint 6 cannot be read (" in outcome.err
    assert cnnjax("eval", run_dir, "--checkpoint", "2", "--json").done.json["step"] == 2
