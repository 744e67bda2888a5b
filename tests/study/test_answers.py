"""Verdicts from numbers that are put there, without training."""

import numpy as np
import pytest

from cnnjax.errors import ConfigError, RunError
from cnnjax.study.answers import ArmResult, answer
from cnnjax.study.arms import expand
from cnnjax.study.measures import read_measures
from cnnjax.study.question import Study
from cnnjax.study.report import describe_answers


def study_of(names, hypotheses=(), **others):
    return Study.model_validate(
        {
            "name": "test",
            "question": "Is it so?",
            "axes": {"arm": {name: {"log.every": {"steps": 1 + index}} for index, name in enumerate(names)}},
            "hypotheses": list(hypotheses),
            **others,
        },
        strict=False,
    )


def results_of(study, values, missing=None):
    """`values`: test errors by arm, a list over seeds."""
    missing = missing or {}
    return [
        ArmResult(
            arm,
            {
                seed: {
                    "test_error": value,
                    "training_error": value / 2,
                    "macs": 100 * (1 + index),
                    "params": 10,
                    "seconds": 1.0,
                }
                for seed, value in enumerate(values[arm.name])
                if seed not in missing.get(arm.name, {})
            },
            missing.get(arm.name, {}),
        )
        for index, arm in enumerate(expand(study, {}))
    ]


def verdict_of(values, expect, missing=None, names=("a", "b"), **hypothesis):
    hypothesis = hypothesis or {"difference": names[:2]}
    study = study_of(names, [{"claim": "x", "expect": expect, **hypothesis}])
    (found,) = answer(study, results_of(study, values, missing)).answers
    return found


CLEAR = {"a": [1.0, 1.1, 0.9, 1.2, 1.0], "b": [3.0, 3.2, 3.1, 2.9, 3.0]}
NOISY = {"a": [1.0, 5.0, 3.0, 2.0, 4.0], "b": [3.0, 2.0, 5.0, 4.0, 1.5]}


@pytest.mark.parametrize(
    ("values", "expect", "verdict"),
    [
        (CLEAR, {"below": 0}, "reproduced"),
        (CLEAR, {"above": 0}, "not reproduced"),
        (CLEAR, {"below": -3}, "not reproduced"),
        (CLEAR, {"below": -2}, "undecided"),
        (CLEAR, {"within": [-3, -1]}, "reproduced"),
        (CLEAR, {"within": [-1, 1]}, "not reproduced"),
        (CLEAR, {"within": [-2.1, -1.9]}, "undecided"),
        (NOISY, {"below": 0}, "undecided"),
        (NOISY, {"within": [-0.5, 0.5]}, "undecided"),
        (NOISY, {"within": [-20, 20]}, "reproduced"),
    ],
)
def test_the_rule(values, expect, verdict):
    assert verdict_of(values, expect).verdict == verdict


def test_a_verdict_is_corrected_for_the_number_of_hypotheses():
    values = {"a": [1.0, 1.6, 0.9, 1.3, 0.7], "b": [1.6, 2.0, 1.2, 1.5, 1.9]}
    claim = {"claim": "x", "difference": ("a", "b"), "expect": {"below": 0}}
    one = study_of("ab", [claim])
    (alone,) = answer(one, results_of(one, values)).answers
    assert alone.verdict == "reproduced"
    assert 0.01 < alone.p_value < 0.05
    many = study_of("ab", [claim] + [{**claim, "metric": "training_error"}] * 4)
    first, *_ = answer(many, results_of(many, values)).answers
    assert first.verdict == "undecided"
    assert first.p_value == pytest.approx(5 * alone.p_value)


def test_a_run_that_did_not_finish_leaves_its_hypotheses_undecided_and_is_in_no_mean():
    missing = {"b": {4: "failed"}}
    found = verdict_of(CLEAR, {"below": 0}, missing)
    assert (found.verdict, found.value) == ("undecided", None)
    assert found.reason == "1 of 5 runs of b did not finish (failed)"
    study = study_of("ab")
    answers = answer(study, results_of(study, CLEAR, missing))
    assert answers.summaries["b"].mean == pytest.approx(np.mean(CLEAR["b"][:4]))
    assert (answers.comparisons[0].estimate.count, answers.complete) == (4, False)


def test_other_metrics_means_and_contrasts():
    assert verdict_of(CLEAR, {"below": 0.6}, metric="training_error", mean="a").value == pytest.approx(0.52)
    values = {**CLEAR, "c": [1.0] * 5, "d": [2.0] * 5}
    found = verdict_of(values, {"below": 0}, names="abcd", contrast={"a": 1, "b": -1, "c": -1, "d": 1})
    assert found.value == pytest.approx(1.04 - 3.04 + 1.0)


def test_what_is_not_finite_decides_nothing_and_does_not_weaken_the_other_hypotheses():
    values = {**CLEAR, "c": [1.0, float("nan"), 1.0, 1.1, 0.9]}
    claims = [{"claim": "x", "difference": (name, "b"), "expect": {"below": 0}} for name in "ca"]
    study = study_of("abc", claims)
    broken, clear = answer(study, results_of(study, values)).answers
    assert (broken.verdict, broken.reason) == ("undecided", "the test_error of a run of c is not finite")
    assert clear.verdict == "reproduced"
    assert clear.p_value < 0.001


@pytest.mark.parametrize("text", ["null", "[1]", "{"])
def test_measures_that_cannot_be_read(tmp_path, text):
    (tmp_path / "measures.json").write_text(text)
    with pytest.raises(RunError, match=r"cannot be read \(.+\); remove it, and it is made again"):
        read_measures(tmp_path)


def test_an_unknown_metric():
    with pytest.raises(ConfigError, match="there is no 'test_eror'; did you mean 'test_error'"):
        verdict_of(CLEAR, {"below": 0}, metric="test_eror", mean="a")


def test_one_seed_decides_nothing():
    assert verdict_of({"a": [1.0], "b": [2.0]}, {"below": 0}).verdict == "undecided"


def test_two_arms_that_are_the_same_differ_no_more_often_than_by_chance():
    study = study_of("ab", [{"claim": "x", "difference": ("a", "b"), "expect": {"above": 0}}], design="independent")
    rng = np.random.default_rng(11)
    verdicts = []
    for _ in range(400):
        values = {name: list(rng.normal(5.0, 1.0, 5)) for name in "ab"}
        verdicts.append(answer(study, results_of(study, values)).answers[0].verdict)
    assert np.mean([verdict != "undecided" for verdict in verdicts]) < 0.08


def test_power_laws_over_chosen_arms():
    names = ("net 1", "net 2", "net 3", "other")
    values = {name: [8.0 / (1 + index), 8.8 / (1 + index)] for index, name in enumerate(names)}
    law = {"all": {"arms": ("net *",)}}
    study = study_of(
        names, [{"claim": "x", "exponent": "all", "expect": {"within": [-1.3, -0.7]}}], power_laws=law, seeds=2
    )
    answers = answer(study, results_of(study, values))
    assert answers.power_laws["all"].exponent.count == 6
    assert answers.answers[0].value == pytest.approx(-1, abs=1e-6)
    assert answers.answers[0].verdict == "reproduced"
    broken = answer(study, results_of(study, values, {"net 2": {0: "waiting"}}))
    assert broken.power_laws["all"] == "1 of 2 runs of net 2 did not finish (waiting)"
    assert broken.answers[0].verdict == "undecided"
    misspelt = study_of(names, power_laws={"all": {"arms": ("nat *",)}})
    with pytest.raises(ConfigError, match="no arm is called nat"):
        answer(misspelt, results_of(misspelt, values))


def test_comparisons_are_with_the_baseline_and_corrected_among_themselves():
    values = {**CLEAR, "c": [1.0, 1.2, 0.8, 1.3, 0.9]}
    study = study_of("abc", baseline="b")
    answers = answer(study, results_of(study, values))
    assert [each.arm for each in answers.comparisons] == ["a", "c"]
    raw = sorted(each.estimate.p_value() for each in answers.comparisons)
    assert sorted(each.p_value for each in answers.comparisons) == pytest.approx(
        [max(2 * raw[0], 0), max(raw[1], 2 * raw[0])]
    )
    assert answers.fronts["macs"] == ["a"]
    described = describe_answers(study, answers)
    assert [arm["arm"] for arm in described["arms"]] == ["a", "b", "c"]
