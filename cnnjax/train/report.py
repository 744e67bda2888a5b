"""One page on several runs of one config that differ in their seed: the number with its error bar, and its origin."""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pydantic import TypeAdapter

from cnnjax.config import Config
from cnnjax.config_base import without_places
from cnnjax.config_files import diff, to_yaml
from cnnjax.errors import RunError
from cnnjax.train.environment import commit_of, portable, versions_of
from cnnjax.train.figures import draw_learning_curves
from cnnjax.train.run_files import RESULT as RESULT_SHAPE
from cnnjax.train.run_files import STARTS, read_json
from cnnjax.train.run_folder import (
    CURVE,
    ENVIRONMENT,
    HISTORY,
    RESULT,
    Record,
    describe_changes,
    read_config,
    read_history,
)


def write_report(run_dirs: Sequence[Path], folder: Path, note: str = "") -> Path:
    """Writes README.md, learning_curve.png, config.yaml, results.json and each run's metrics into `folder`.

    Args:
        note: a sentence that stands below the number: what its reader must know.

    Returns:
        The page.

    Raises:
        RunError: a run is not finished, or the runs differ in more than their seed.
    """
    configs = [read_config(run_dir) for run_dir in run_dirs]
    results = [_read(run_dir, RESULT, RESULT_SHAPE) for run_dir in run_dirs]
    _check_comparable(run_dirs, configs, results)
    starts = [_read(run_dir, ENVIRONMENT, STARTS) for run_dir in run_dirs]
    folder.mkdir(parents=True, exist_ok=True)
    raw: list[Record] = []
    for run_dir, config, result, environments in zip(run_dirs, configs, results, starts, strict=True):
        shutil.copyfile(run_dir / HISTORY, folder / f"metrics-seed{config.seed}.jsonl")
        kept = {name: value for name, value in result.items() if name != "run_dir"}
        raw.append({"seed": config.seed, **kept, "environment": portable(environments[-1])})
    (folder / "results.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    (folder / "config.yaml").write_text(to_yaml(without_places(configs[0])), encoding="utf-8")
    draw_learning_curves([read_history(run_dir) for run_dir in run_dirs], configs[0].name, folder / CURVE)
    page = folder / "README.md"
    page.write_text(_page(configs, raw, note), encoding="utf-8")
    return page


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean; needs two values or more."""
    from scipy import stats

    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half


def _check_comparable(run_dirs: Sequence[Path], configs: Sequence[Config], results: Sequence[Record]) -> None:
    for run_dir, config, result in zip(run_dirs, configs, results, strict=True):
        if not result["finished"]:
            raise RunError(f"{run_dir} is not finished: a report is made of finished runs; train it to its end first")
        changes = {path: change for path, change in diff(configs[0], config).items() if path not in ("seed", "name")}
        if changes:
            raise RunError(
                f"{run_dir} differs from {run_dirs[0]} in more than the seed ({describe_changes(changes)}); "
                "report them apart"
            )
    seeds = [config.seed for config in configs]
    if len(set(seeds)) < len(seeds):
        raise RunError(f"two runs have the same seed (seeds {', '.join(map(str, seeds))}); give each seed once")


def _page(configs: Sequence[Config], raw: Sequence[Record], note: str) -> str:
    config, environment = configs[0], raw[0]["environment"]
    errors = [100 * (1 - result["accuracy"]) for result in raw]
    rows = [
        f"| {result['seed']} | {error:.2f} | {100 * (1 - result['best_accuracy']):.2f} | {result['loss']:.4f} | "
        f"{100 * (1 - result['train_accuracy']):.2f} | {result['step']:,} | {result['seconds']:.0f} |"
        for result, error in zip(raw, errors, strict=True)
    ]
    if len(errors) > 1:
        low, high = interval(errors)
        summary = (
            f"**Held-out error {fmean(errors):.2f} % ± {stdev(errors):.2f}** (mean and standard deviation over "
            f"{len(errors)} seeds; 95 % t interval of the mean {max(low, 0):.2f} to {high:.2f})."
        )
    else:
        summary = f"**Held-out error {errors[0]:.2f} %** (one seed, so without an error bar)."
    commits = sorted({commit_of(result["environment"]["git"]) for result in raw})
    source = config.data.source
    return "\n".join(
        [
            f"# {config.name}",
            "",
            f"Network `{config.model.name}` on `{source.kind}` data ({', '.join(_head(config))}).",
            "",
            summary,
            "",
            *([note, ""] if note else []),
            f"The error is that of the last step's {'averaged ' if config.train.ema_decay else ''}weights. The lowest "
            "one over all evaluations stands beside it, but it was chosen by looking at the held-out set.",
            "",
            "| seed | error (%) | lowest error (%) | loss | training error (%) | steps | seconds |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"![learning curves]({CURVE})",
            "",
            "## Origin",
            "",
            "```",
            *(shlex.join(result["environment"]["command"]) for result in raw),
            "```",
            "",
            "Config: [config.yaml](config.yaml). Raw numbers: [results.json](results.json), "
            + ", ".join(f"[seed {result['seed']}](metrics-seed{result['seed']}.jsonl)" for result in raw)
            + ".",
            "",
            f"{versions_of(environment)}; commit {', '.join(commits)}. "
            "Seconds are wall time of training with compilation, evaluation and checkpoints, "
            "on a machine that may have had other work.",
            "",
        ]
    )


def _head(config: Config) -> list[str]:
    names = getattr(config.data.source, "class_names", ())
    return [f"classes {', '.join(names)}"] if names else ["its own classes"]


def _read(run_dir: Path, name: str, shape: TypeAdapter[Any]) -> Any:
    read_config(run_dir)  # tells clearly of a folder that is no run
    return read_json(run_dir / name, shape, "is the run finished?")
