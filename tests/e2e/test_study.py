"""A study from its file to its page: runs, shards, kills, failures, launchers, wrong input."""

import csv
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnnjax.study.arms import read_study
from cnnjax.study.runs import plan, status_of

STUDY = """
question: Is tanh as good as ReLU?
claim: Somebody says so.
source: A test
config:
  model: {name: lenet5_modern}
  data:
    source: {kind: synthetic, train_examples: 64, test_examples: 32, image_size: 16}
    image_size: 16
    batch_size: 16
  optimizer: {args: {momentum: 0.9}}
  schedule: {kind: constant, learning_rate: 0.05}
  train: {duration: {steps: 6}}
  eval: {every: {steps: 3}, batch_size: 32}
  checkpoint: {every: {steps: 2}, keep_last: 1}
  log: {every: {steps: 2}}
  parallel: {devices: 1}
axes:
  activation:
    relu: {}
    tanh: {model.args.activation: tanh}
seeds: 2
diagnostics: [gradient_norm, activations, dead_units]
hypotheses:
  - claim: It is
    difference: [tanh, relu]
    expect: {within: [-90, 90]}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A study of two arms with two seeds each."""
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def done(file, environment, tmp_path_factory) -> Path:
    """The folder of its runs, all finished by a process of their own; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    finish(start(file, folder, environment))
    return folder


def start(file: Path, runs: Path, environment: dict[str, str], *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "cnnjax", "study", "run", str(file), "--runs", str(runs), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def numbers(runs: Path, file: Path) -> dict:
    """What each run measured, but for its time."""
    found = {}
    for run in plan(read_study(file)[1], runs):
        measures = json.loads((run.path / "measures.json").read_text())
        found[str(run)] = {name: value for name, value in measures.items() if name != "seconds"}
    return found


def starts(runs: Path) -> dict[str, int]:
    """How often each run was begun or taken up."""
    return {path.parent.name: len(json.loads(path.read_text())) for path in runs.glob("*/environment.json")}


def test_a_study_answers(cnnjax, file, done):
    answered = cnnjax("study", "run", file, "--runs", done, "--json").done
    assert "4 runs, 4 of them done" in answered.err
    (verdict,) = answered.json["verdicts"]
    assert (verdict["claim"], verdict["verdict"] in ("reproduced", "undecided")) == ("It is", True)
    assert [(arm["arm"], arm["finished"]) for arm in answered.json["arms"]] == [("relu", [0, 1]), ("tanh", [0, 1])]
    assert set(starts(done).values()) == {1}


def test_seeds_and_arms_are_the_ordinary_runs(cnnjax, file, done, tmp_path):
    (tmp_path / "tanh.yaml").write_text(
        STUDY[STUDY.index("config:") : STUDY.index("axes:")].replace("config:\n", "", 1).replace("\n  ", "\n")[2:]
    )
    own = cnnjax(
        "train", tmp_path / "tanh.yaml", "model.args.activation=tanh", "seed=1", "--run-dir", tmp_path / "run", "--json"
    )
    error = numbers(done, file)["tanh, seed 1"]["test_error"]
    assert error == pytest.approx(100 * (1 - own.done.json["accuracy"]), abs=1e-9)
    checked = cnnjax("eval", plan(read_study(file)[1], done)[3].path, "--json").done
    assert checked.json["accuracy"] == own.json["accuracy"]


def test_status(cnnjax, file, done, tmp_path):
    rows = cnnjax("study", "status", file, "--runs", done, "--json").done.json
    assert [(row["arm"], row["seed"], row["status"]) for row in rows] == [
        *(("relu", 0, "finished"), ("relu", 1, "finished"), ("tanh", 0, "finished"), ("tanh", 1, "finished")),
    ]
    assert "4 runs: 4 waiting" in cnnjax("study", "status", file, "--runs", tmp_path).done.out


def test_the_report(cnnjax, file, done, tmp_path):
    folder = tmp_path / "experiments" / "tiny"
    page = cnnjax("study", "report", file, "--runs", done, "--out", folder).done.out.strip()
    text = Path(page).read_text()
    assert text.startswith("# Is tanh as good as ReLU?\n\n- **")
    for part in (
        "**Claim.** Somebody says so.",
        "## Against 'relu'",
        "## Gradients",
        "## Dead units",
        "`model.args.activation`",
    ):
        assert part in text
    for picture in re.findall(r"\]\((\w+\.png)\)", text):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    html = (folder / "index.html").read_text()
    assert html.count("data:image/png;base64,") == len(re.findall(r"\]\((\w+\.png)\)", text)) >= 4
    assert not re.search(r'(src|href)="(?!data:)[^"]*(//|\.png)', html)
    assert "<script" not in html
    rows = list(csv.DictReader((folder / "runs.csv").open()))
    assert [(row["arm"], row["seed"], row["status"]) for row in rows][-1] == ("tanh", "1", "finished")
    assert {float(row["test_error"]) for row in rows} == {each["test_error"] for each in numbers(done, file).values()}
    assert len(list(csv.DictReader((folder / "curves.csv").open()))) == 4 * (3 + 2)
    assert str(done) not in text + html
    index = (folder.parent / "README.md").read_text()
    assert "| [Is tanh as good as ReLU?](tiny/README.md) | " in index


def test_the_index_has_a_row_for_each_study_and_leaves_other_pages_alone(cnnjax, file, done, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("# Something else\n")
    for name in ("one", "two"):
        cnnjax("study", "report", file, "--runs", done, "--out", tmp_path / name).done  # noqa: B018 -- checks
    index = (tmp_path / "README.md").read_text()
    assert index.count("Is tanh as good") == 2
    assert "- [Something else](mine/README.md)" in index
    (tmp_path / "README.md").write_text("My own notes\n")
    refused = cnnjax("study", "report", file, "--runs", done, "--out", tmp_path / "one")
    assert "is not a list of experiments" in refused.error
    assert (tmp_path / "README.md").read_text() == "My own notes\n"


def test_two_shards_give_the_same_as_one(file, done, environment, tmp_path):
    processes = [start(file, tmp_path, environment, "--shard", shard) for shard in ("1/2", "2/2")]
    for process in processes:
        finish(process)
    assert numbers(tmp_path, file) == numbers(done, file)
    assert starts(tmp_path) == starts(done)


def test_killed_again_and_again_it_loses_and_repeats_nothing(file, done, environment, tmp_path):
    study, arms = read_study(file)
    began = min(path.stat().st_mtime for path in done.glob("*/environment.json"))
    one_run = (max(path.stat().st_mtime for path in done.glob("*/measures.json")) - began) / len(starts(done))
    draw = random.Random(0)
    finished: dict[str, int] = {}
    for kills in range(5):
        process = start(file, tmp_path, environment)
        begun = sum(starts(tmp_path).values())
        # Some time after it has taken up a run, whatever it does then.
        while process.poll() is None and sum(starts(tmp_path).values()) == begun:
            time.sleep(0.01)
        if kills < 4:
            time.sleep(draw.uniform(0, one_run))
        else:
            finish(process)
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not ended or process.returncode == 0
        again = {run.path.name: status_of(run, study) for run in plan(arms, tmp_path)}
        counts = starts(tmp_path)
        for name, count in finished.items():
            assert (again[name], counts[name]) == ("finished", count)
        finished = {name: counts[name] for name, status in again.items() if status == "finished"}
        if ended:
            break
    assert kills >= 2
    assert numbers(tmp_path, file) == numbers(done, file)


def test_a_failed_run_is_kept_shown_and_left_out(cnnjax, tmp_path):
    file = tmp_path / "diverging.yaml"
    arms = "  rate:\n    good: {}\n    bad: {schedule.learning_rate: 1.0e+30}\n"
    text = STUDY[: STUDY.index("axes:")] + f"axes:\n{arms}seeds: 2\n"
    file.write_text(text + "hypotheses: [{claim: It is, difference: [bad, good], expect: {below: 0}}]\n")
    runs = tmp_path / "runs"
    answered = cnnjax("study", "run", file, "--runs", runs, "--json").done
    (verdict,) = answered.json["verdicts"]
    assert (verdict["verdict"], verdict["reason"]) == ("undecided", "2 of 2 runs of bad did not finish (failed)")
    assert answered.json["arms"][1] == {"arm": "bad", "finished": [], "missing": {"0": "failed", "1": "failed"}}
    shown = cnnjax("study", "status", file, "--runs", runs).done.out
    assert "bad, seed 0 failed: the " in shown
    assert "4 runs: 2 finished, 2 failed" in shown
    cnnjax("study", "run", file, "--runs", runs).done  # noqa: B018 -- checks
    bad = {name: count for name, count in starts(runs).items() if name.startswith("bad")}
    assert set(bad.values()) == {1}
    cnnjax("study", "run", file, "--runs", runs, "--retry-failed").done  # noqa: B018 -- checks
    bad = {name: count for name, count in starts(runs).items() if name.startswith("bad")}
    assert set(bad.values()) == {2}
    page = cnnjax("study", "report", file, "--runs", runs, "--out", tmp_path / "page").done.out.strip()
    assert "- bad, seed 0: failed, the " in Path(page).read_text()


def test_two_equal_arms_with_seeds_of_their_own_do_not_differ(cnnjax, tmp_path):
    file = tmp_path / "a_a.yaml"
    arms = "  arm:\n    one: {}\n    other: {}\n"
    text = (
        STUDY[: STUDY.index("axes:")].replace("{steps: 6}", "{steps: 20}")
        + f"axes:\n{arms}seeds: 4\ndesign: independent\n"
    )
    file.write_text(text + "hypotheses: [{claim: x, difference: [one, other], expect: {below: 0}}]\n")
    answered = cnnjax("study", "run", file, "--runs", tmp_path / "runs", "--json").done.json
    assert answered["verdicts"][0]["verdict"] == "undecided"
    assert len(list((tmp_path / "runs").glob("*-seed*"))) == 8


def test_jobs_of_this_machine(file, done, environment, tmp_path):
    finish(start(file, tmp_path, environment, "--launcher", "local", "--jobs", "2"))
    for run, numbers_of_run in numbers(tmp_path, file).items():
        # A job has half of the CPUs, and adds in another order.
        assert numbers_of_run["test_loss"] == pytest.approx(numbers(done, file)[run]["test_loss"], rel=1e-5)
    commands = {path.read_text() for path in tmp_path.glob("*/environment.json")}
    assert all('"--launcher"' in command for command in commands)
    assert len(list((tmp_path / "jobs").glob("*.out"))) == 2


def test_the_readmes_study(cnnjax, tmp_path, monkeypatch):
    root = Path(__file__).resolve().parents[2]
    (text,) = re.findall(r"```yaml\n(question:.*?)```", (root / "README.md").read_text(), re.DOTALL)
    file = tmp_path / "norm.yaml"
    file.write_text(text.replace("base: configs", f"base: {root}/configs").replace("seeds: 5", "seeds: 2"))
    monkeypatch.chdir(tmp_path)
    answered = cnnjax("study", "run", file, "train.duration.epochs=3", "--json").done.json
    assert [arm["finished"] for arm in answered["arms"]] == [[0, 1], [0, 1]]
    assert answered["verdicts"][0]["verdict"] in ("reproduced", "not reproduced", "undecided")


def test_the_budget_ends_a_study_before_the_next_run(cnnjax, file, done, tmp_path):
    small = tmp_path / "small.yaml"
    small.write_text(STUDY + "budget: {minutes: 1.0e-6}\n")
    ran = cnnjax("study", "run", small, "--runs", tmp_path / "runs").done
    assert "[1/4] relu, seed 0: test error" in ran.out
    assert "the budget of 1e-06 minutes is spent" in ran.out
    assert "not all runs are finished" in ran.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "FILE", "--shard", "3/2"), "--shard: expected i/n with i from 1 to n, such as 2/4, got '3/2'"),
        (("run", "FILE", "--shard", "1/2", "--launcher", "local"), "--shard is for other schedulers"),
        (("run", "FILE", "data.batchsize=2"), "arm 'relu': data.batchsize: unknown key"),
        (("run", "nowhere.yaml"), "config file 'nowhere.yaml' cannot be read: there is no such file"),
        (("report", "FILE", "--runs", "empty"), "no run of tiny is finished in empty; run it first"),
        (("status", "ARITHMETIC"), "has computations, no runs"),
    ],
)
def test_wrong_input(cnnjax, file, tmp_path, monkeypatch, words, sentence):
    arithmetic = Path(__file__).resolve().parents[2] / "configs" / "studies" / "arithmetic.yaml"
    monkeypatch.chdir(tmp_path)
    refused = cnnjax("study", *({"FILE": file, "ARITHMETIC": arithmetic}.get(word, word) for word in words))
    assert sentence in refused.error
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("local", "--job-option", "cpus=2"), "error: --job-option: "),
        (("local", "--job-option", "cpus"), "error: --job-option: expected name=value"),
        (("slurm",), "error: --launcher slurm: "),
    ],
)
def test_launchers_refuse_what_they_cannot_do(file, environment, tmp_path, words, sentence):
    # In a process of its own: submitit sets up logging for the whole one.
    process = start(file, tmp_path / "runs", environment, "--launcher", *words)
    output, _ = process.communicate(timeout=120)
    assert (process.returncode, output.count("\n")) == (2, 1), output
    assert sentence in output


def test_a_network_that_does_not_take_the_images_is_told_before_anything_is_trained(cnnjax, tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(
        STUDY.replace("tanh: {model.args.activation: tanh}", "alexnet: {model: {name: alexnet}}").replace(
            "[tanh,", "[alexnet,"
        )
    )
    refused = cnnjax("study", "run", file, "--runs", tmp_path / "runs")
    assert "AlexNet takes images" in refused.error
    assert not (tmp_path / "runs").exists()
