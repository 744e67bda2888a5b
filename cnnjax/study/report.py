"""Writes a study's report: the page in Markdown and HTML, its figures, and the raw numbers."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from cnnjax.config_base import without_places
from cnnjax.config_files import flatten, to_yaml
from cnnjax.errors import RunError
from cnnjax.study import figures
from cnnjax.study.answers import Answers, answer, collect
from cnnjax.study.arithmetic import Computed, describe_computed, in_words
from cnnjax.study.arms import Arm
from cnnjax.study.question import Study
from cnnjax.study.runs import Run, plan, status_of
from cnnjax.study.sections import RESULTS, Known, baseline_of, name_of, page
from cnnjax.study.wording import table
from cnnjax.train.environment import commit_of, environment, portable, versions_of
from cnnjax.train.html_page import write_html
from cnnjax.train.run_files import STARTS, read_json
from cnnjax.train.run_folder import ENVIRONMENT, Record, not_written, read_history

PAGE, HTML = "README.md", "index.html"


def write_report(study: Study, arms: Sequence[Arm], runs_folder: Path, folder: Path, file: Path) -> Path:
    """Writes README.md, index.html, figures, runs.csv, curves.csv, results.json and the configs into `folder`.

    Args:
        runs_folder: holds the runs.
        file: the study's own, for the command that the page names.

    Returns:
        The page.

    Raises:
        RunError: no run is finished, or something cannot be read or written.
    """
    results = collect(study, arms, runs_folder)
    if not any(result.measures for result in results):
        raise RunError(f"no run of {study.name} is finished in {runs_folder}; run it first: cnnjax study run {file}")
    answers = answer(study, results)
    runs = [run for run in plan(arms, runs_folder) if status_of(run, study) == "finished"]
    known = Known(study, arms, plan(arms, runs_folder), answers, _environments(runs), file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = _draw(known, folder)
        _write_csv(folder / "runs.csv", _run_rows(known))
        _write_csv(folder / "curves.csv", _curve_rows(runs))
        (folder / "config.yaml").write_text(to_yaml(without_places(arms[0].config)), encoding="utf-8")
        summary = describe_answers(study, answers) | {"environment": _portable(known)}
        (folder / RESULTS).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        text = "\n".join(page(known, pictures))
        (folder / PAGE).write_text(text, encoding="utf-8")
        write_html(text, study.question, folder, folder / HTML)
    except OSError as error:
        raise not_written(folder, error, "--out") from None
    return folder / PAGE


def describe_answers(study: Study, answers: Answers) -> dict[str, Any]:
    """All of it as plain values for JSON."""
    return {
        "name": study.name,
        "question": study.question,
        "metric": study.metric,
        "confidence": study.confidence,
        "complete": answers.complete,
        "verdicts": [
            {
                "claim": each.hypothesis.claim,
                "verdict": each.verdict,
                "expected": str(each.hypothesis.expect),
                "value": each.value,
                "interval": each.interval,
                "p_value": each.p_value,
                "reason": each.reason,
            }
            for each in answers.answers
        ],
        "arms": [
            {
                "arm": result.arm.name,
                "finished": sorted(result.measures),
                "missing": {str(seed): status for seed, status in result.missing.items()},
                **(dataclasses.asdict(answers.summaries[result.arm.name]) if result.measures else {}),
            }
            for result in answers.results
        ],
        "comparisons": [
            {
                "arm": each.arm,
                "difference": each.estimate.value,
                "interval": each.interval,
                "p_value": each.p_value,
                "effect": each.estimate.effect,
                "detectable": each.detectable,
            }
            for each in answers.comparisons
        ],
        "power_laws": {
            name: fit
            if isinstance(fit, str)
            else {
                "exponent": fit.exponent.value,
                "interval": fit.exponent.interval(study.confidence),
                "factor": fit.factor,
                "explained": fit.explained,
            }
            for name, fit in answers.power_laws.items()
        },
        "pareto": answers.fronts,
    }


def write_computations(study: Study, found: Sequence[Computed], folder: Path, file: Path) -> Path:
    """The same for a study of computations."""
    rows = [
        [each.claim, in_words(each.expected) + (f" ± {each.within:g}" if each.within else ""), in_words(each.computed),
         f"**{each.verdict}**" if each.verdict != "reproduced" else each.verdict]
        for each in found
    ]  # fmt: skip
    here = portable(environment())
    text = "\n".join(
        [
            f"# {study.question}",
            "",
            f"{sum(each.verdict == 'reproduced' for each in found)} of {len(found)} reproduced.",
            "",
            *([study.source, ""] if study.source else []),
            *table(("claim", "quoted", "computed", "verdict"), rows),
            "",
            "## Origin",
            "",
            "```",
            f"cnnjax study run {name_of(file)}",
            "```",
            "",
            versions_of(here) + f"; commit {commit_of(here['git'])}. Raw numbers: [{RESULTS}]({RESULTS}).",
            "",
        ]
    )
    verdicts = [{"claim": each.claim, "verdict": each.verdict} for each in found]
    summary = {"name": study.name, "question": study.question, "verdicts": verdicts, "complete": True}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULTS).write_text(
            json.dumps({**summary, "computations": describe_computed(list(found)), "environment": here}, indent=1)
            + "\n",
            encoding="utf-8",
        )
        (folder / PAGE).write_text(text, encoding="utf-8")
        write_html(text, study.question, folder, folder / HTML)
    except OSError as error:
        raise not_written(folder, error, "--out") from None
    return folder / PAGE


def _draw(known: Known, folder: Path) -> dict[str, str]:
    """Draws what there is to draw; file names by what they show."""
    study, answers = known.study, known.answers
    pictures = {"arms": "arms.png"}
    figures.draw_arms(study, answers, folder / "arms.png")
    if answers.comparisons:
        pictures["differences"] = "differences.png"
        figures.draw_differences(study, answers, baseline_of(known), folder / "differences.png")
    histories = {
        result.arm.name: [
            read_history(run.path) for run in known.runs if run.arm is result.arm and run.seed in result.measures
        ]
        for result in answers.results
        if result.measures
    }
    pictures["curves"] = "curves.png"
    figures.draw_curves(histories, folder / "curves.png")
    if len({fmean(result.values("macs").values()) for result in answers.results if result.measures}) > 1:
        pictures["costs"] = "costs.png"
        figures.draw_costs(study, answers, folder / "costs.png")
    if "gradient_norm" in study.diagnostics:
        pictures["gradients"] = "gradients.png"
        figures.draw_gradients(answers.results, folder / "gradients.png")
    return pictures


def _environments(runs: Sequence[Run]) -> list[Record]:
    found = []
    for run in runs:
        starts = read_json(run.path / ENVIRONMENT, STARTS, "run the study again without it")
        found += [portable(each) for each in starts]
    return found


def _portable(known: Known) -> list[Record]:
    """Each different environment once, without the time of its start."""
    without = [{key: value for key, value in each.items() if key != "started"} for each in known.environments]
    return [json.loads(text) for text in dict.fromkeys(json.dumps(each) for each in without)]


def _run_rows(known: Known) -> list[Record]:
    measures = {result.arm.name: result.measures for result in known.answers.results}
    rows = []
    for run in known.runs:
        found = measures[run.arm.name].get(run.seed)
        row = {"arm": run.arm.name, "seed": run.seed, "status": status_of(run, known.study)}
        rows.append(row | (dict(flatten(found)) if found is not None else {}))
    return rows


def _curve_rows(runs: Sequence[Run]) -> list[Record]:
    columns = ("kind", "step", "epoch", "weights", "loss", "accuracy", "auxiliary_loss", "grad_norm", "learning_rate")
    return [
        {"arm": run.arm.name, "seed": run.seed, **{name: record.get(name, "") for name in columns}}
        for run in runs
        for record in read_history(run.path)
    ]


def _write_csv(path: Path, rows: Sequence[Record]) -> None:
    columns = dict.fromkeys(name for row in rows for name in row)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
