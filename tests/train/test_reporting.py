"""The sums behind the means."""

import json
import math

import pytest

from cnnjax.train.reporting import Reporter, Sums

STEPS = [{"loss": (0.1 * n + 1 / 3, 8.0), "accuracy": (float(n % 3), 8.0), "grad_norm": (1e-9, 1.0)} for n in range(50)]


def test_means_are_sums_over_counts():
    sums = Sums()
    sums.add({"loss": (6.0, 4.0)})
    sums.add({"loss": (1.0, 2.0), "accuracy": (1.0, 2.0)})
    assert sums.means() == {"loss": 7 / 6, "accuracy": 0.5}
    assert (sums.count("loss"), sums.count("accuracy"), sums.count("other")) == (6, 2, 0)


def test_nothing_counted_is_no_number():
    sums = Sums({"loss": (0.0, 0.0)})
    assert math.isnan(sums.means()["loss"])
    assert Sums().means() == {}


@pytest.mark.parametrize("cut", [0, 1, 17, 50])
def test_sums_that_went_through_json_end_at_the_same_bit(cut):
    whole, first = Sums(), Sums()
    for step in STEPS:
        whole.add(step)
    for step in STEPS[:cut]:
        first.add(step)
    resumed = Sums(json.loads(json.dumps(first.totals)))
    for step in STEPS[cut:]:
        resumed.add(step)
    assert resumed.totals == whole.totals
    assert resumed.means() == whole.means()


def test_given_totals_are_not_changed():
    totals = {"loss": (1.0, 1.0)}
    Sums(totals).add({"loss": (1.0, 1.0)})
    assert totals == {"loss": (1.0, 1.0)}


def test_a_plain_reporter_keeps_silent(capsys):
    reporter = Reporter()
    reporter.start(0, 10, 8)
    reporter.message("a")
    reporter.advance(1, {"loss": 1.0})
    reporter.record({"kind": "train", "step": 1})
    reporter.stop()
    assert capsys.readouterr() == ("", "")
