"""`train.profile`: a trace of the steps that are named, and of no others."""

import json

import pytest
from jax.profiler import ProfileData

from cnnjax.config_files import config_hash, load_config

PROFILED = "train.profile={first: 3, last: 4}"


def steps_in(run_dir):
    """The numbers of the annotated steps in the run's only trace."""
    (path,) = (run_dir / "profile").glob("plugins/profile/*/*.xplane.pb")
    assert path.stat().st_size > 0
    events = [
        event for plane in ProfileData.from_file(str(path)).planes for line in plane.lines for event in line.events
    ]
    return sorted(dict(event.stats)["step_num"] for event in events if event.name == "train")


def test_a_trace_of_the_steps_that_were_asked_for(small, tmp_path, cnnjax):
    run_dir = tmp_path / "run"
    said = cnnjax("train", small, "--run-dir", run_dir, PROFILED).done.out
    assert f"the profile of steps 3 to 4 is in {run_dir / 'profile'}" in said
    assert steps_in(run_dir) == [3, 4]
    # It continues a finished run, and changes nothing.
    assert "the profile of" not in cnnjax("train", small, "--run-dir", run_dir, PROFILED).done.out


def test_no_trace_unless_it_is_asked_for(trained):
    assert not (trained / "profile").exists()


@pytest.mark.parametrize(("steps", "made"), [(2, True), (4, False)])
def test_a_run_that_goes_on_has_one_if_the_steps_are_still_to_come(steps, made, small, tmp_path, cnnjax):
    run_dir = tmp_path / "run"
    cnnjax("train", small, "--run-dir", run_dir, f"train.duration.steps={steps}").done  # noqa: B018 -- checks
    outcome = cnnjax("train", small, "--run-dir", run_dir, PROFILED).done
    assert ("the profile of steps 3 to 4" in outcome.out) == made
    assert (run_dir / "profile").exists() == made


def test_a_folder_that_cannot_be_written_is_told_before_a_step_is_made(small, tmp_path, cnnjax):
    run_dir = tmp_path / "run"
    cnnjax("train", small, "--run-dir", run_dir, "train.duration.steps=2").done  # noqa: B018 -- checks
    (run_dir / "profile").write_text("something else")
    before = (run_dir / "metrics.jsonl").read_bytes()
    error = cnnjax("train", small, "--run-dir", run_dir, PROFILED).error
    assert error == f"train.profile: {run_dir / 'profile'} cannot be written: File exists; choose another --run-dir"
    assert (run_dir / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        ("{first: 3, last: 2}", "train.profile: last: 2 is before first: 3; give a later step"),
        ("{first: 3, last: 7}", "train.profile.last: 7 is after the run's last step, 6; give one within it"),
        ("{first: 0, last: 2}", "train.profile.first: expected greater than 0, got a number (0)"),
        ("{first: 3}", "train.profile.last: is required and was not given"),
        ("3", "train.profile: expected a mapping, got a number (3)"),
    ],
)
def test_faulty_spans_are_refused(profile, sentence, small, tmp_path, cnnjax):
    assert cnnjax("train", small, "--run-dir", tmp_path / "run", f"train.profile={profile}").error == sentence
    assert not (tmp_path / "run").exists()


def test_two_profiles_at_a_time_are_refused(small, tmp_path, cnnjax):
    import jax

    with jax.profiler.trace(str(tmp_path / "other")):
        error = cnnjax("train", small, "--run-dir", tmp_path / "run", PROFILED).error
    assert error.startswith("train.profile: Profile has already been started.")


def test_a_profile_changes_nothing_that_is_computed(small, trained, tmp_path, cnnjax):
    plain, profiled = load_config(small), load_config(small, [PROFILED])
    assert config_hash(plain) == config_hash(profiled)
    run_dir = tmp_path / "run"
    cnnjax("train", small, "--run-dir", run_dir, PROFILED).done  # noqa: B018 -- checks
    for one, other in zip(
        *((each / "metrics.jsonl").read_text().splitlines() for each in (run_dir, trained)), strict=True
    ):
        found, expected = json.loads(one), json.loads(other)
        assert found.get("loss") == expected.get("loss")
