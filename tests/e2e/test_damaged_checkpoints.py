"""A checkpoint that is broken in any way costs the steps since the one before, and never silently."""

import json
import shutil
from pathlib import Path

import pytest
from commands import STEPS, final_state, history, snapshot


def largest_file(step: Path) -> Path:
    return max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(step: Path) -> None:
    file = largest_file(step)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def delete_the_arrays(step: Path) -> None:
    largest_file(step).unlink()


def flip_a_bit(step: Path) -> None:
    file = largest_file(step)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def delete_the_metadata(step: Path) -> None:
    (step / "state" / "_METADATA").unlink()


def delete_the_manifest(step: Path) -> None:
    (step / "state" / "manifest.ocdbt").unlink()


def delete_the_progress(step: Path) -> None:
    (step / "progress" / "metadata").unlink()


def cut_the_progress(step: Path) -> None:
    file = step / "progress" / "metadata"
    file.write_text(file.read_text()[:100])


def change_a_digit_of_the_progress(step: Path) -> None:
    file = step / "progress" / "metadata"
    contents = json.loads(file.read_text())
    assert contents["progress"]["iterator"] == {"next_index": 6}
    contents["progress"]["iterator"] = {"next_index": 5}
    file.write_text(json.dumps(contents))


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


DAMAGES = (
    truncate,
    delete_the_arrays,
    flip_a_bit,
    delete_the_metadata,
    delete_the_manifest,
    delete_the_progress,
    cut_the_progress,
    change_a_digit_of_the_progress,
    empty,
)


@pytest.fixture(params=DAMAGES, ids=lambda damage: damage.__name__)
def damaged(request, copied) -> Path:
    request.param(copied / "checkpoints" / "6")
    return copied


def test_eval_takes_the_one_before_says_so_and_touches_nothing(damaged, trained, cnnjax):
    before = snapshot(damaged)
    outcome = cnnjax("eval", damaged, "--json").done
    assert snapshot(damaged) == before
    assert outcome.err.startswith("warning: checkpoint 6 cannot be read (")
    assert outcome.err.endswith("; taking the one before, of step 4\n")
    recorded = next(line for line in history(trained) if line["kind"] == "eval" and line["step"] == 4)
    assert {key: outcome.json[key] for key in ("step", "accuracy", "examples")} == {
        key: recorded[key] for key in ("step", "accuracy", "examples")
    }
    # The run was trained on one device; this process evaluates on eight, which add the losses in another order.
    assert outcome.json["loss"] == pytest.approx(recorded["loss"], rel=1e-6)


def test_training_takes_the_one_before_says_so_and_ends_as_if_nothing_had_happened(damaged, trained, small, cnnjax):
    outcome = cnnjax("train", small, "--run-dir", damaged).done
    assert "warning: checkpoint 6 cannot be read (" in outcome.out
    assert "; continuing from the one before, of step 4\n" in outcome.out
    assert f"continuing {damaged} at step 4 of 6" in outcome.out
    assert [path.name for path in (damaged / "broken").iterdir()] == ["6-0"]
    assert final_state(damaged) == final_state(trained)
    assert history(damaged) == history(trained)


def test_the_newest_one_gone_altogether_is_the_one_before(copied, trained, small, cnnjax):
    shutil.rmtree(copied / "checkpoints" / "6")
    assert cnnjax("eval", copied, "--json").done.json["step"] == 4
    assert "at step 4 of 6" in cnnjax("train", small, "--run-dir", copied).done.out
    assert final_state(copied) == final_state(trained)
    assert history(copied) == history(trained)


def test_two_broken_ones_are_both_told_of(copied, trained, small, cnnjax):
    for step in (4, 6):
        truncate(copied / "checkpoints" / str(step))
    outcome = cnnjax("train", small, "--run-dir", copied).done
    assert "warning: checkpoint 6 cannot be read (" in outcome.out
    assert "warning: checkpoint 4 cannot be read (" in outcome.out
    assert final_state(copied) == final_state(trained)


def test_all_broken_is_one_sentence_and_training_never_begins_anew_in_silence(copied, small, cnnjax):
    for step in STEPS:
        truncate(copied / "checkpoints" / str(step))
    before = snapshot(copied)
    assert "checkpoint 6 cannot be read (" in cnnjax("eval", copied).error
    assert snapshot(copied) == before
    for _ in range(2):  # the second start finds what the first one found
        error = cnnjax("train", small, "--run-dir", copied, "checkpoint.keep_last=1").error
        assert "checkpoint 6 cannot be read (" in error
        assert "nor can 4, 2" in error
        assert "choose another --run-dir to start from zero" in error
    after = snapshot(copied)
    for name in ("metrics.jsonl", "config.yaml", *(name for name in before if name.startswith("checkpoints/"))):
        assert after[name] == before[name]


def test_no_checkpoint_at_all_starts_from_zero_and_says_so(copied, trained, small, cnnjax):
    shutil.rmtree(copied / "checkpoints")
    assert cnnjax("eval", copied).error == f"{copied} has no checkpoint yet; train it first"
    outcome = cnnjax("train", small, "--run-dir", copied).done
    assert f"{copied} has no checkpoint; starting again from step 0" in outcome.out
    assert final_state(copied) == final_state(trained)
    assert history(copied) == history(trained)


def test_a_named_one_is_not_replaced_by_another(copied, cnnjax):
    truncate(copied / "checkpoints" / "4")
    assert cnnjax("eval", copied, "--checkpoint", "4").error.startswith("checkpoint 4 cannot be read (")
    assert cnnjax("eval", copied, "--checkpoint", "2", "--json").done.json["step"] == 2
    assert cnnjax("eval", copied, "--checkpoint", "3").error == f"{copied} has no checkpoint of step 3; it has 2, 4, 6"


def test_the_best_is_unknown_where_one_cannot_be_read(copied, trained, cnnjax):
    accuracies = {line["step"]: line["accuracy"] for line in history(trained) if line["kind"] == "eval"}
    best = max(accuracies, key=lambda step: (accuracies[step], step))
    assert cnnjax("eval", copied, "--checkpoint", "best", "--json").done.json["step"] == best
    cut_the_progress(copied / "checkpoints" / "4")
    error = cnnjax("eval", copied, "--checkpoint", "best").error
    assert error.startswith("checkpoint 4 in ")
    assert "so the best one is unknown" in error


def test_training_that_goes_on_does_not_change_what_is_being_saved(small, tmp_path, cnnjax):
    """The sums of the interval grow with every step, also while a checkpoint is written."""
    often = ("train.duration.steps=20", "checkpoint.every.steps=1", "checkpoint.keep_last=20", "log.every.steps=20")
    cnnjax("train", small, "--run-dir", tmp_path, *often).done  # noqa: B018 -- checks
    assert len(list((tmp_path / "checkpoints").iterdir())) == 20
    assert cnnjax("eval", tmp_path, "--checkpoint", "best").done  # reads what all of them hold
