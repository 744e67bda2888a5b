"""`cnnjax study`: parse, call, print."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cnnjax.cli_options import Json, Overrides
from cnnjax.errors import ConfigError

app = typer.Typer(help="A question in a file: run its arms, compare them, answer with a verdict.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A study, such as configs/studies/lrn_digits.yaml.")]
Runs = Annotated[
    Path | None, typer.Option("--runs", metavar="FOLDER", help="Holds the runs' folders; by default runs/NAME.")
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Of the report; by default experiments/NAME.")
]


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    runs: Runs = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Do the I-th of N parts; others do theirs.")] = "1/1",
    launcher: Annotated[
        Literal["here", "local", "slurm"], typer.Option(help="Run here, or as jobs of this machine or of SLURM.")
    ] = "here",
    jobs: Annotated[int, typer.Option(help="Into how many jobs a launcher cuts it.", min=1)] = 1,
    job_options: Annotated[
        list[str] | None,
        typer.Option("--job-option", metavar="NAME=VALUE", help="For submitit, such as slurm_partition=gpu."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed runs again, from their last checkpoint.")
    ] = False,
    together: Annotated[
        Literal["auto", "separate", "vmap", "map", "devices"] | None,
        typer.Option(help="How an arm's seeds are trained, instead of what the file says."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train what is not finished yet, and answer; the same command goes on with what was interrupted."""
    from cnnjax.study.arms import read_study

    study, arms = read_study(file, overrides or [])
    if together is not None:
        study = study.model_copy(update={"together": together})
    if not arms:
        _answer_computations(study, as_json)
        return
    from cnnjax.study.runs import Shard, run_study

    folder, part = runs or Path("runs") / study.name, Shard.parse(shard)
    if launcher != "here":
        if part.count > 1:
            raise ConfigError("--shard is for other schedulers; a launcher cuts the study itself, see --jobs")
        from cnnjax.study.launch import launch

        launch(study, arms, folder, launcher, jobs, job_options or [], retry_failed, say=_say(as_json))
    else:
        run_study(study, arms, folder, shard=part, retry_failed=retry_failed, say=_say(as_json))
    _answer(study, arms, folder, as_json)


@app.command()
def status(file: File, overrides: Overrides = None, runs: Runs = None, as_json: Json = False) -> None:
    """Show which runs are finished, interrupted, failed or waiting."""
    from cnnjax.study.arms import read_study

    study, arms = read_study(file, overrides or [])
    if not arms:
        raise ConfigError(f"{file} has computations, no runs; see what comes out with 'cnnjax study run'")
    from cnnjax.study.runs import describe_status
    from cnnjax.terminal_study import print_status

    rows = describe_status(study, arms, runs or Path("runs") / study.name)
    if as_json:
        print(json.dumps(rows))
    else:
        print_status(study, rows)


@app.command()
def report(file: File, overrides: Overrides = None, runs: Runs = None, out: Out = None, as_json: Json = False) -> None:
    """Write a study's page, figures and numbers, and the index of all studies beside it."""
    from cnnjax.study.arms import read_study
    from cnnjax.study.index import write_index

    study, arms = read_study(file, overrides or [])
    folder = out or Path("experiments") / study.name
    if arms:
        from cnnjax.study.report import write_report

        page = write_report(study, arms, runs or Path("runs") / study.name, folder, file)
    else:
        from cnnjax.study.arithmetic import compute
        from cnnjax.study.report import write_computations

        page = write_computations(study, compute(study), folder, file)
    index = write_index(folder.parent)
    if as_json:
        print(json.dumps({"page": str(page), "index": str(index)}))
    else:
        print(page)


def _answer_computations(study: Any, as_json: bool) -> None:
    from cnnjax.study.arithmetic import compute, describe_computed
    from cnnjax.terminal_study import print_computed

    found = compute(study)
    if as_json:
        print(json.dumps(describe_computed(found)))
    else:
        print_computed(found)


def _answer(study: Any, arms: Any, folder: Path, as_json: bool) -> None:
    from cnnjax.study.answers import answer, collect
    from cnnjax.terminal_study import print_answers

    answers = answer(study, collect(study, arms, folder))
    if as_json:
        from cnnjax.study.report import describe_answers

        print(json.dumps(describe_answers(study, answers)))
    else:
        print_answers(study, answers)


def _say(quiet_stdout: bool) -> Any:
    import sys
    from functools import partial

    return partial(print, file=sys.stderr if quiet_stdout else sys.stdout, flush=True)
