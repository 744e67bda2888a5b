"""Several seeds in one program are the runs that they would have been alone."""

import fcntl

import jax
import numpy as np
import pytest

from cnnjax.config_files import load_config
from cnnjax.errors import TrainingError
from cnnjax.study import runs
from cnnjax.study.arms import Arm
from cnnjax.study.question import Study
from cnnjax.study.runs import plan, run_study, status_of
from cnnjax.study.together import WAYS, Timing, fastest, on_one_device
from cnnjax.train.evaluation import load_state
from cnnjax.train.opening import prepare
from cnnjax.train.run_folder import read_history

SEEDS = (0, 1, 5, 6)
# Of parameters after twelve steps, relative to their largest value: float32's rounding, carried on. A bias before
# batch normalisation has no gradient but rounding, so that values below a tenth count as a tenth.
TOLERANCE, LEAST = 2e-5, 0.1
SMALL = (
    "model.args={norm: batch, dropout: 0.3}",
    "data.source={kind: synthetic, train_examples: 100, test_examples: 32, image_size: 16}",
    *("data.image_size=16", "data.batch_size=16", "eval.batch_size=32"),
    *("optimizer.args={momentum: 0.9}", "schedule={kind: constant, learning_rate: 0.02}", "train.ema_decay=0.9"),
    *("train.duration={steps: 12}", "log.every={steps: 3}", "eval.every={steps: 6}", "checkpoint.every={steps: 6}"),
)


def arm_of(*overrides):
    return Arm("arm", on_one_device(load_config(None, [*SMALL, *overrides])), SEEDS)


def study_of(together):
    return Study(name="test", question="Is it so?", axes={"arm": {}, "x": {}}, together=together)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert run_study(study_of("separate"), [arm_of()], folder)
    return folder


def assert_same(folder, other):
    task, _, _ = prepare(arm_of().config)
    for run, same in zip(plan([arm_of()], folder), plan([arm_of()], other), strict=True):
        states = (load_state(each.path, task.with_seed(run.seed)) for each in (run, same))
        for leaf, expected in zip(*map(jax.tree.leaves, states), strict=True):
            expected = np.asarray(expected, np.float64)
            assert np.abs(np.asarray(leaf, np.float64) - expected).max() <= TOLERANCE * max(
                np.abs(expected).max(), LEAST
            )
        histories = [read_history(each.path) for each in (run, same)]
        for record, wanted in zip(*histories, strict=True):
            assert record.keys() == wanted.keys()
            assert record["step"] == wanted["step"]
            assert record["loss"] == pytest.approx(wanted["loss"], rel=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_seeds_together_are_the_seeds_alone(way, alone, tmp_path):
    said = []
    assert run_study(study_of(way), [arm_of()], tmp_path, say=said.append)
    assert sum(f"({way}): test error" in line for line in said) == len(SEEDS)
    assert_same(tmp_path, alone)


def test_what_was_begun_together_is_continued(alone, tmp_path):
    half = arm_of("train.duration={steps: 6}")
    assert run_study(study_of("vmap"), [half], tmp_path)
    for run, whole in zip(plan([half], tmp_path), plan([arm_of()], tmp_path), strict=True):
        (run.path / "measures.json").unlink()
        run.path.rename(whole.path)
    assert run_study(study_of("map"), [arm_of()], tmp_path)
    assert_same(tmp_path, alone)


def test_seeds_at_different_steps_go_on_alone(alone, tmp_path):
    half = arm_of("train.duration={steps: 6}")
    assert run_study(study_of("separate"), [Arm("arm", half.config, SEEDS[:1])], tmp_path)
    begun, whole = plan([half], tmp_path)[0], plan([arm_of()], tmp_path)[0]
    (begun.path / "measures.json").unlink()
    begun.path.rename(whole.path)
    said = []
    assert run_study(study_of("vmap"), [arm_of()], tmp_path, say=said.append)
    assert not any("vmap" in line for line in said)
    assert_same(tmp_path, alone)


def test_a_seed_that_fails_takes_no_other_with_it(monkeypatch, alone, tmp_path):
    from cnnjax.train.loop import Training

    note = Training.note_metrics

    def fail(self, step, values):
        if self.task.config.seed == 5 and step == 7:
            raise TrainingError("the loss is nan at step 7")
        note(self, step, values)

    monkeypatch.setattr(Training, "note_metrics", fail)
    study, runs = study_of("vmap"), plan([arm_of()], tmp_path)
    assert run_study(study, [arm_of()], tmp_path)
    assert [status_of(run, study) for run in runs] == ["finished", "finished", "failed", "finished"]
    monkeypatch.undo()
    assert run_study(study, [arm_of()], tmp_path, retry_failed=True)
    assert_same(tmp_path, alone)


@pytest.mark.parametrize("together", ["separate", "vmap"])
def test_a_run_that_another_process_takes_meanwhile_is_left_to_it(together, monkeypatch, tmp_path):
    arm = Arm("arm", load_config(None, [*SMALL, "train.duration={steps: 1}"]), SEEDS[:2])
    taken, free = plan([arm], tmp_path)
    taken.path.mkdir()
    monkeypatch.setattr(runs, "in_use", lambda path: False)  # it was free when that was asked
    said = []
    with open(taken.path / ".cnnjax.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not run_study(study_of(together), [arm], tmp_path, say=said.append)
    assert any(f"{taken}: another process is at it" in line for line in said)
    assert [status_of(run, study_of(together)) for run in (taken, free)] == ["waiting", "finished"]


def test_compilation_counts_where_there_are_few_steps():
    timings = [Timing("separate", 1.0, 0.2), Timing("vmap", 11.0, 0.1)]
    assert (fastest(timings, 50), fastest(timings, 500)) == ("separate", "vmap")


def test_a_study_chooses_for_itself(tmp_path):
    said = []
    assert run_study(study_of("auto"), [Arm("arm", arm_of().config, SEEDS[:2])], tmp_path, say=said.append)
    (told,) = (line for line in said if line.startswith("a step of 2 seeds: "))
    assert all(f"{way} " in told for way in ("separate", *WAYS))
    assert told.rpartition("chosen: ")[2] in ("separate", *WAYS)


@pytest.mark.slow
def test_runs_of_which_steps_are_traced_are_trained_one_by_one(tmp_path):
    arm = arm_of("train.profile={first: 2, last: 3}", "train.duration={steps: 4}")
    assert run_study(study_of("vmap"), [arm], tmp_path)
    for run in plan([arm], tmp_path):
        assert list(run.path.glob("profile/plugins/profile/*/*.xplane.pb"))
