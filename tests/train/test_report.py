"""The page on several seeds: its numbers are those of the runs, and it refuses what cannot be averaged."""

import json
import random
from statistics import fmean, stdev

import pytest
from scipy import stats

from cnnjax.config_files import load_config, to_yaml
from cnnjax.errors import RunError
from cnnjax.train.report import interval, write_report

ENVIRONMENT = {
    "command": ["cnnjax", "train", "/secret/place/config.yaml", "data.source.path=/secret/data"],
    "python": "3.11",
    "packages": {"jax": "0.10"},
    "system": "Linux",
    "cpus": 2,
    "devices": ["cpu:cpu"],
    "git": {"commit": "0123456789abcdef", "changed": False},
}


def make_run(folder, seed, accuracy, *overrides, finished=True):
    folder.mkdir()
    config = load_config(None, [f"seed={seed}", "name=little", *overrides])
    (folder / "config.yaml").write_text(to_yaml(config))
    result = {"run_dir": str(folder), "finished": finished, "step": 10, "loss": 0.5, "accuracy": accuracy}
    result |= {"best_accuracy": accuracy + 0.01, "train_accuracy": 0.99, "seconds": 12.3}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "environment.json").write_text(json.dumps([ENVIRONMENT]))
    line = {"kind": "eval", "weights": "raw", "step": 10, "epoch": 1.0, "loss": 0.5, "accuracy": accuracy}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def test_the_page_holds_the_runs_numbers_and_their_origin(tmp_path):
    errors = [2.0, 1.5, 1.0]
    runs = [make_run(tmp_path / f"run{seed}", seed, 1 - error / 100) for seed, error in enumerate(errors)]
    page = write_report(runs, tmp_path / "report", "Mind the split.").read_text()
    assert "\n\nMind the split.\n\n" in page
    assert f"**Held-out error {fmean(errors):.2f} % ± {stdev(errors):.2f}**" in page
    assert "| 1 | 1.50 | 0.50 | 0.5000 | 1.00 | 10 | 12 |" in page
    assert "commit 0123456789ab." in page
    assert "/secret" not in page
    assert "/secret" not in (tmp_path / "report" / "results.json").read_text()
    names = {path.name for path in (tmp_path / "report").iterdir()}
    seeds = {f"metrics-seed{seed}.jsonl" for seed in range(3)}
    assert names == {"README.md", "learning_curve.png", "config.yaml", "results.json"} | seeds


def test_one_seed_has_no_error_bar(tmp_path):
    page = write_report([make_run(tmp_path / "run", 0, 0.98)], tmp_path / "report").read_text()
    assert "**Held-out error 2.00 %** (one seed" in page


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"seed": 1, "finished": False}, "is not finished"),
        ({"seed": 0}, "same seed"),
        (
            {"seed": 1, "overrides": ["schedule.learning_rate=0.5"]},
            r"differs from .*\(schedule.learning_rate: 0.1 -> 0.5\)",
        ),
    ],
)
def test_what_cannot_be_averaged_is_refused(tmp_path, second, message):
    first = make_run(tmp_path / "first", 0, 0.9)
    other = make_run(
        tmp_path / "second", second["seed"], 0.9, *second.get("overrides", ()), finished=second.get("finished", True)
    )
    with pytest.raises(RunError, match=message):
        write_report([first, other], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_run_without_result_is_told(tmp_path):
    run = make_run(tmp_path / "run", 0, 0.9)
    (run / "result.json").unlink()
    with pytest.raises(RunError, match="is the run finished"):
        write_report([run], tmp_path / "report")


def test_the_interval_is_students():
    values = [random.Random(seed).gauss(0, 1) for seed in range(6)]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval(values) == pytest.approx((expected.low, expected.high))
