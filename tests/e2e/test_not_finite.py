"""A run that blows up: the step is named, what was good is kept, and no broken state is ever taken up."""

import pytest
from commands import final_state, history


def test_a_run_that_blows_up_at_once(small, tmp_path, cnnjax):
    command = ("train", small, "--run-dir", tmp_path, "schedule.learning_rate=1e9")
    errors = {cnnjax(*command).error for _ in range(2)}
    (error,) = errors
    assert error.startswith("the loss is nan at step 2; there is no checkpoint yet")
    assert "lower schedule.learning_rate" in error
    assert cnnjax("eval", tmp_path).error == f"{tmp_path} has no checkpoint yet; train it first"


def test_a_run_that_blows_up_later_keeps_its_last_good_state(copied, trained, small, cnnjax):
    command = ("train", small, "--run-dir", copied, "train.duration.steps=20", "--force")
    errors = {cnnjax(*command, "schedule.learning_rate=1e9").error for _ in range(2)}
    (error,) = errors  # the second start neither takes up a broken state nor gets any further
    assert error.startswith("the loss is nan at step 8; the checkpoint of step 6 is the last good one")
    assert sorted(path.name for path in (copied / "checkpoints").iterdir()) == ["2", "4", "6"]
    assert not (copied / "broken").exists()
    assert final_state(copied) == final_state(trained)
    found = cnnjax("eval", copied, "--json").done.json
    assert found["step"] == 6
    # Eight devices add the losses in another order than the one that trained.
    assert found["loss"] == pytest.approx(history(trained)[-1]["loss"], rel=1e-6)
    assert all(line["loss"] < 10 for line in history(copied))
    assert cnnjax(*command, "schedule.learning_rate=0.05", "--json").done.json["finished"]


def test_a_state_that_overflows_is_not_saved(copied, trained, small, cnnjax):
    command = ("train", small, "--run-dir", copied, "train.duration.steps=20", "checkpoint.every.steps=1", "--force")
    outcome = cnnjax(*command, "schedule.learning_rate=1e39", "eval.every=null")  # of which NumPy warns as well
    assert outcome.code == 2
    error = outcome.err.splitlines()[-1]
    assert error.startswith("error: the state is not finite after step 7: ")
    assert error.endswith("the last good checkpoint is that of step 6")
    assert final_state(copied) == final_state(trained)
    assert cnnjax("eval", copied, "--json").done.json["step"] == 6


@pytest.mark.slow
def test_clipping_helps_as_the_sentence_says(small, tmp_path, cnnjax):
    settings = ("schedule.learning_rate=100", "optimizer.clip_norm=1e-3")
    result = cnnjax("train", small, "--run-dir", tmp_path, *settings, "--json").done.json
    assert result["loss"] == pytest.approx(2.3, abs=0.1)
