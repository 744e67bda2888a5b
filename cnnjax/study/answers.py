"""From finished runs to answers: each arm's summary, comparisons with the baseline, and a verdict a hypothesis.

The rule, for all hypotheses of a study: a two-sided t test against the nearest end of the claimed region (for a region
with two ends both must hold), its p-value corrected by Holm over all the hypotheses. At most 1 - confidence and the
estimate inside: reproduced; at most 1 - confidence and outside: not reproduced; else undecided. A hypothesis on an arm
of which a run failed or is missing is undecided: what is left may be the luckier part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Literal

from cnnjax.errors import ConfigError
from cnnjax.study.arms import Arm
from cnnjax.study.measures import Measures, read_measures, value_of
from cnnjax.study.question import COSTS, Hypothesis, PowerLaw, Region, Study
from cnnjax.study.runs import plan, status_of
from cnnjax.study.statistics import (
    Estimate,
    PowerFit,
    Summary,
    contrast,
    detectable,
    fit_power_law,
    holm,
    pareto_front,
    summarize_runs,
)

Verdict = Literal["reproduced", "not reproduced", "undecided"]


@dataclass(frozen=True)
class ArmResult:
    """An arm's finished runs."""

    arm: Arm
    measures: Mapping[int, Measures]
    """By seed."""
    missing: Mapping[int, str]
    """Seeds that did not finish, with their status."""

    def values(self, metric: str) -> dict[int, float]:
        """A metric by seed."""
        return {seed: value_of(measures, metric) for seed, measures in self.measures.items()}


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline, over the seeds that both finished."""

    arm: str
    estimate: Estimate
    interval: tuple[float, float]
    p_value: float
    """Corrected by Holm over the comparisons."""
    detectable: float
    """The true difference that such a study finds in 80 of 100 cases."""


@dataclass(frozen=True)
class Answer:
    """A hypothesis with its number and its verdict."""

    hypothesis: Hypothesis
    verdict: Verdict
    reason: str
    """Why, in a clause."""
    value: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    """Corrected by Holm over the study's hypotheses."""


@dataclass(frozen=True)
class Answers:
    """All that a study's finished runs tell."""

    results: list[ArmResult]
    summaries: dict[str, Summary]
    """Of the study's metric by arm; arms without a finished run are left out."""
    comparisons: list[Comparison]
    answers: list[Answer]
    power_laws: dict[str, PowerFit | str]
    """Fits by name, or why there is none."""
    fronts: dict[str, list[str]]
    """Cost -> the arms on its Pareto front with the study's metric."""

    @property
    def complete(self) -> bool:
        """Whether every run finished."""
        return not any(result.missing for result in self.results)


def collect(study: Study, arms: Sequence[Arm], folder: Path) -> list[ArmResult]:
    """What the run folders hold."""
    results = []
    runs = plan(arms, folder)
    for arm in arms:
        of_arm = [run for run in runs if run.arm is arm]
        statuses = {run.seed: status_of(run, study) for run in of_arm}
        measures = {run.seed: read_measures(run.path, study.diagnostics) for run in of_arm}
        finished = {seed: each for seed, each in measures.items() if each is not None}
        results.append(ArmResult(arm, finished, {s: status for s, status in statuses.items() if s not in finished}))
    return results


def answer(study: Study, results: Sequence[ArmResult]) -> Answers:
    """Summaries, comparisons and verdicts of what was collected.

    Raises:
        ConfigError: a metric that the runs do not have.
    """
    by_name = {result.arm.name: result for result in results}
    summaries = {
        name: summarize_runs(list(result.values(study.metric).values()), study.confidence)
        for name, result in by_name.items()
        if result.measures
    }
    power_laws = {name: _fit(study, law, by_name) for name, law in study.power_laws.items()}
    means = {
        cost: {name: (_mean(by_name[name], cost), summary.mean) for name, summary in summaries.items()}
        for cost in COSTS
    }
    lower_is_better = study.metric != "mean_iou"
    signed = {
        cost: {name: (x, y if lower_is_better else -y) for name, (x, y) in points.items()}
        for cost, points in means.items()
    }
    return Answers(
        list(results),
        summaries,
        _compare(study, by_name),
        _decide(study, by_name, power_laws),
        power_laws,
        {cost: pareto_front(points) for cost, points in signed.items()},
    )


def _mean(result: ArmResult, metric: str) -> float:
    values = list(result.values(metric).values())
    return sum(values) / len(values)


def _compare(study: Study, by_name: Mapping[str, ArmResult]) -> list[Comparison]:
    baseline = study.baseline or next(iter(by_name))
    found: list[tuple[str, Estimate]] = []
    for name in by_name:
        if name != baseline:
            arms = {each: by_name[each].values(study.metric) for each in (name, baseline)}
            if study.design == "paired":
                common = set(arms[name]) & set(arms[baseline])
                arms = {each: {seed: values[seed] for seed in common} for each, values in arms.items()}
            if min(map(len, arms.values())) >= 2:
                found.append((name, contrast(arms, {name: 1.0, baseline: -1.0}, study.design)))
    corrected = holm([estimate.p_value() for _, estimate in found])
    return [
        Comparison(
            name,
            estimate,
            estimate.interval(study.confidence),
            p_value,
            detectable(estimate.error, estimate.freedom, study.confidence),
        )
        for (name, estimate), p_value in zip(found, corrected, strict=True)
    ]


def _decide(study: Study, by_name: Mapping[str, ArmResult], power_laws: Mapping[str, PowerFit | str]) -> list[Answer]:
    estimates = [_estimate(study, hypothesis, by_name, power_laws) for hypothesis in study.hypotheses]
    p_values = {
        index: _p_value(each, study.hypotheses[index].expect)
        for index, each in enumerate(estimates)
        if isinstance(each, Estimate)
    }
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    answers = []
    for index, (hypothesis, estimate) in enumerate(zip(study.hypotheses, estimates, strict=True)):
        if not isinstance(estimate, Estimate):
            answers.append(Answer(hypothesis, "undecided", estimate))
            continue
        verdict = decide(estimate, hypothesis.expect, corrected[index], study.confidence)
        answers.append(
            Answer(
                hypothesis,
                verdict,
                f"expected {hypothesis.expect}",
                estimate.value,
                estimate.interval(study.confidence),
                corrected[index],
            )
        )
    return answers


def decide(estimate: Estimate, expect: Region, corrected: float, confidence: float) -> Verdict:
    """The verdict by this module's rule.

    Args:
        corrected: the p-value after Holm's correction.
    """
    low, high = expect.bounds
    if corrected > 1 - confidence:
        return "undecided"
    return "reproduced" if low < estimate.value < high else "not reproduced"


def _p_value(estimate: Estimate, expect: Region) -> float:
    low, high = expect.bounds
    ends = [end for end in (low, high) if abs(end) != float("inf")]
    if low < estimate.value < high:
        return max(estimate.p_value(end) for end in ends)
    return estimate.p_value(min(ends, key=lambda end: abs(end - estimate.value)))


def _estimate(
    study: Study, hypothesis: Hypothesis, by_name: Mapping[str, ArmResult], power_laws: Mapping[str, PowerFit | str]
) -> Estimate | str:
    """The hypothesis's number, or why there is none."""
    if hypothesis.exponent is not None:
        fit = power_laws[hypothesis.exponent]
        return fit if isinstance(fit, str) else fit.exponent
    arms = {}
    for name in hypothesis.weights:
        if by_name[name].missing:
            return _missing(by_name[name])
        arms[name] = by_name[name].values(hypothesis.metric or study.metric)
        if not all(map(isfinite, arms[name].values())):
            return f"the {hypothesis.metric or study.metric} of a run of {name} is not finite"
    if min(map(len, arms.values())) < 2:
        return "one seed tells nothing of its own error"
    return contrast(arms, hypothesis.weights, study.design)


def _fit(study: Study, law: PowerLaw, by_name: Mapping[str, ArmResult]) -> PowerFit | str:
    chosen = [result for name, result in by_name.items() if any(fnmatchcase(name, each) for each in law.arms)]
    if not chosen:
        raise ConfigError(f"power_laws: no arm is called {' or '.join(law.arms)}; there are {', '.join(by_name)}")
    for result in chosen:
        if result.missing:
            return _missing(result)
    costs = [_mean(result, law.cost) for result in chosen for _ in result.measures]
    metrics = [value for result in chosen for value in result.values(study.metric).values()]
    try:
        return fit_power_law(costs, metrics)
    except ValueError as error:
        return str(error)


def _missing(result: ArmResult) -> str:
    statuses = sorted(set(result.missing.values()))
    runs = len(result.missing) + len(result.measures)
    return f"{len(result.missing)} of {runs} runs of {result.arm.name} did not finish ({', '.join(statuses)})"
