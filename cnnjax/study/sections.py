"""What a study's page says, in Markdown, section by section."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from cnnjax.config_files import diff, flatten
from cnnjax.study import figures
from cnnjax.study.answers import Answers, ArmResult
from cnnjax.study.arms import Arm
from cnnjax.study.question import Study
from cnnjax.study.runs import Run, failure_of, status_of
from cnnjax.study.wording import between, number, p_value, table
from cnnjax.train.environment import commit_of, versions_of
from cnnjax.train.run_folder import Record

RESULTS = "results.json"
_FEW = 10


@dataclass(frozen=True)
class Known:
    """What a report is made of."""

    study: Study
    arms: Sequence[Arm]
    runs: Sequence[Run]
    answers: Answers
    environments: Sequence[Record]
    """Of all starts of all finished runs."""
    file: Path


def page(known: Known, pictures: Mapping[str, str]) -> list[str]:
    """The whole page's lines; `pictures` are file names by what they show."""
    study, answers = known.study, known.answers
    return [
        f"# {study.question}",
        "",
        *_verdicts(known),
        "",
        *([f"**Claim.** {study.claim.strip()}", ""] if study.claim else []),
        *([f"**Source.** {study.source.strip()}", ""] if study.source else []),
        *([f"**Reduction.** {study.reduction.strip()}", ""] if study.reduction else []),
        f"**Method.** {len(known.arms)} arms, {len(study.seed_list)} seeds each. {_design(study)} Compared is the "
        f"{figures.label_of(study.metric)} of the last step's weights. Verdicts: a two-sided t test against the "
        "nearest end of what is claimed, corrected by Holm over the hypotheses; at most "
        f"{1 - study.confidence:.2g} decides for the side on which the estimate lies, more leaves it undecided, and "
        "so does a run that did not finish.",
        "",
        "## Arms",
        "",
        *_arms(known),
        "",
        f"![each arm's runs, mean and interval]({pictures['arms']})",
        "",
        *_comparisons(known, pictures),
        "## Learning curves",
        "",
        f"![training loss and held-out error over epochs]({pictures['curves']})",
        "",
        *_costs(known, pictures),
        *_diagnostics(answers.results, pictures),
        *_unfinished(known),
        "## What the arms change",
        "",
        *_changes(known.arms),
        "",
        *_origin(known),
    ]


def _verdicts(known: Known) -> list[str]:
    lines = []
    for each in known.answers.answers:
        found = ""
        if each.value is not None:
            interval = f"{known.study.confidence:.0%} interval {between(each.interval)}"
            found = f" {number(each.value)}, {interval}, p {p_value(each.p_value)}"
        lines.append(f"- **{each.verdict}**: {each.hypothesis.claim} ({each.reason}{':' if found else ''}{found}).")
    return lines or ["No hypothesis: a measurement."]


def _design(study: Study) -> str:
    if study.design == "paired":
        return "The arms of a seed start alike where their layers are, and see the same examples in the same order."
    return "No two runs share a seed."


def _arms(known: Known) -> list[str]:
    study = known.study
    other = "test_error" if study.metric == "training_error" else "training_error"
    head = ["arm", "parameters", "multiply-adds", "runs", figures.label_of(study.metric), "deviation",
            f"t interval ({study.confidence:.0%})", "bootstrap interval", figures.label_of(other),
            "seconds"]  # fmt: skip
    rows = []
    for result in known.answers.results:
        name, runs = result.arm.name, f"{len(result.measures)} of {len(result.measures) + len(result.missing)}"
        if not result.measures:
            rows.append([name, "", "", runs, "", "", "", "", "", ""])
            continue
        summary, first = known.answers.summaries[name], next(iter(result.measures.values()))
        rows.append(
            [name, f"{first['params']:,}", f"{first['macs']:,}", runs, number(summary.mean), number(summary.deviation),
             between(summary.interval), between(summary.bootstrap),
             number(fmean(result.values(other).values())), number(fmean(result.values("seconds").values()))]
        )  # fmt: skip
    if not any(each.bootstrap and each.count < _FEW for each in known.answers.summaries.values()):
        return table(head, rows)
    return [
        *table(head, rows),
        "",
        f"The bootstrap interval is the studentised one. Of fewer than {_FEW} runs it is coarse: where most of them "
        "lie close together, some resamples hardly vary, and one end lies far out. Verdicts use t.",
    ]


def _comparisons(known: Known, pictures: Mapping[str, str]) -> list[str]:
    study, comparisons = known.study, known.answers.comparisons
    if not comparisons:
        return []
    rows = [
        [each.arm, number(each.estimate.value), between(each.interval), p_value(each.p_value),
         number(each.estimate.effect) if each.estimate.effect is not None else "", number(each.detectable)]
        for each in comparisons
    ]  # fmt: skip
    least = min(each.detectable for each in comparisons)
    most = max(each.detectable for each in comparisons)
    span = number(least) if number(least) == number(most) else f"{number(least)} to {number(most)}"
    return [
        f"## Against '{baseline_of(known)}'",
        "",
        *table(
            ("arm", "difference", f"{study.confidence:.0%} interval", "p (Holm)", "effect size", "detectable"), rows
        ),
        "",
        f"Differences of the {figures.label_of(study.metric)}. The effect size is the difference in standard "
        f"deviations of {'the pairs' if study.design == 'paired' else 'a run'}, with Hedges' correction. Power: so "
        f"many seeds see a true difference of {span} in 80 of 100 such studies, before Holm's correction; a smaller "
        "one may stay unseen.",
        "",
        f"![differences from {baseline_of(known)}]({pictures['differences']})",
        "",
    ]


def _costs(known: Known, pictures: Mapping[str, str]) -> list[str]:
    if "costs" not in pictures:
        return []
    lines = ["## Cost", "", f"![{figures.label_of(known.study.metric)} against cost]({pictures['costs']})", ""]
    fronts = known.answers.fronts
    lines += [f"- Pareto front by {figures.label_of(cost)}: {'; '.join(names)}." for cost, names in fronts.items()]
    for name, fit in known.answers.power_laws.items():
        if isinstance(fit, str):
            lines.append(f"- Power law '{name}': none, {fit}.")
            continue
        low, high = fit.exponent.interval(known.study.confidence)
        lines.append(
            f"- Power law '{name}': {known.study.metric} = {fit.factor:.3g} · {known.study.power_laws[name].cost} ^ "
            f"{fit.exponent.value:.3f} ({known.study.confidence:.0%} interval of the exponent {low:.3f} to {high:.3f}, "
            f"R² = {fit.explained:.2f}, over all runs of its arms)."
        )
    return [*lines, ""]


def _diagnostics(results: Sequence[ArmResult], pictures: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    if "gradients" in pictures:
        lines += [
            "## Gradients",
            "",
            "Norm of the whole loss's gradient by module on the first batch, in training mode.",
            "",
            f"![gradient norms by module]({pictures['gradients']})",
            "",
        ]
    for name, title, columns in (
        ("activations", "Activations", ("mean", "deviation", "largest", "zeros")),
        ("dead_units", "Dead units", ("",)),
    ):
        rows = [row for result in results for row in _map_rows(result, name, columns)]
        if rows:
            head = (
                ("arm", "map", *columns) if columns != ("",) else ("arm", "map", "share of channels never above 0 (%)")
            )
            lines += [f"## {title}", "", _LEGENDS[name], "", *table(head, rows), ""]
    return lines


_LEGENDS = {
    "activations": "Of 256 held-out images, means over the seeds: a map's mean, deviation and largest absolute value, "
    "and the share of values that are not above 0.",
    "dead_units": "Channels that are above 0 for none of 256 held-out images and nowhere in them, mean over the seeds.",
}


def _map_rows(result: ArmResult, name: str, columns: Sequence[str]) -> Iterable[list[str]]:
    runs = [measures[name] for measures in result.measures.values() if name in measures]
    for each in runs[0] if runs else ():
        if columns == ("",):
            yield [result.arm.name, each, number(100 * fmean(run[each] for run in runs))]
        else:
            yield [result.arm.name, each, *(number(fmean(run[each][column] for run in runs)) for column in columns)]


def _unfinished(known: Known) -> list[str]:
    lines = []
    for run in known.runs:
        status = status_of(run, known.study)
        if status == "failed":
            lines.append(f"- {run}: failed, {failure_of(run)['error']}")
        elif status != "finished":
            lines.append(f"- {run}: {status}")
    return ["## Runs that did not finish", "", "They are in no mean.", "", *lines, ""] if lines else []


def _changes(arms: Sequence[Arm]) -> list[str]:
    """A column an arm; of the paths that any of them sets, those in which two differ."""
    changed = {path for arm in arms for path in diff(arms[0].config, arm.config)}
    trees = [dict(flatten(arm.config.model_dump(mode="json"))) for arm in arms]
    paths = [path for tree in trees for path in tree if path in changed]
    rows = [
        [f"`{path}`", *(json.dumps(tree[path]) if path in tree else "(default)" for tree in trees)]
        for path in dict.fromkeys(paths)
    ]
    return table(("entry", *(arm.name for arm in arms)), rows) if rows else ["Nothing: all arms are alike."]


def _origin(known: Known) -> list[str]:
    commands = list(dict.fromkeys(shlex.join(each["command"]) for each in known.environments))
    minutes = sum(sum(result.values("seconds").values()) for result in known.answers.results) / 60
    machines = dict.fromkeys(versions_of(each) for each in known.environments)
    commits = dict.fromkeys(commit_of(each["git"]) for each in known.environments)
    name = name_of(known.file)
    return [
        "## Origin",
        "",
        "```",
        *(commands or [f"cnnjax study run {name}"]),
        f"cnnjax study report {name}",
        "```",
        "",
        f"{'; '.join(machines)}; commit {', '.join(commits)}. All runs together took {minutes:.0f} minutes, "
        "compilation, evaluation and checkpoints included, on a machine that may have had other work.",
        "",
        f"Config of the first arm: [config.yaml](config.yaml). Raw numbers: [{RESULTS}]({RESULTS}), "
        "[runs.csv](runs.csv), [curves.csv](curves.csv).",
        "",
    ]


def name_of(file: Path) -> str:
    """A file as a page names it, without the machine's own folders."""
    return file.name if file.is_absolute() else str(file)


def baseline_of(known: Known) -> str:
    """The arm that the others are compared with."""
    return known.study.baseline or known.arms[0].name
