"""A disk that takes its time: whoever waits is told for what, again and again, until it is there."""

import re
import time

import pytest
from orbax.checkpoint import CheckpointManager

from cnnjax.train import reporting


@pytest.mark.parametrize(("method", "doing"), [("wait_until_finished", "written to"), ("restore", "read from")])
def test_waiting_for_a_checkpoint_is_told(method, doing, small, copied, cnnjax, monkeypatch):
    fast = getattr(CheckpointManager, method)

    def slow(*args, **kwargs):
        time.sleep(0.5)
        return fast(*args, **kwargs)

    monkeypatch.setattr(CheckpointManager, method, slow)
    monkeypatch.setattr(reporting, "PATIENCE", 0.2)
    out = cnnjax("train", small, "--run-dir", copied, "train.duration.steps=8").done.out
    step = {"written to": 8, "read from": 6}[doing]
    told = re.findall(rf"checkpoint {step} is still being {doing} (.*), for (\d+) s now", out)
    assert len(told) >= 2
    assert {folder for folder, _ in told} == {str(copied / "checkpoints")}


def test_a_fast_disk_is_not_worth_a_word(small, copied, cnnjax):
    assert "is still being" not in cnnjax("train", small, "--run-dir", copied, "train.duration.steps=8").done.out
