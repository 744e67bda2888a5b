"""The command line: parse, call, print. JAX is imported only by the commands that compute."""

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from cnnjax import (
    cli_aot,
    cli_bench,
    cli_data,
    cli_explain,
    cli_export,
    cli_features,
    cli_predict,
    cli_scale,
    cli_study,
    cli_weights,
)
from cnnjax.cli_options import ConfigFile, Fields, Json, Overrides, Which, checkpoint_of
from cnnjax.errors import CnnjaxError, CnnjaxWarning, ConfigError, first_line
from cnnjax.malloc import keep_freed_memory

app = typer.Typer(
    name="cnnjax",
    help="Convolutional networks as published, in JAX: train, evaluate, predict, inspect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_study.app, name="study")
app.add_typer(cli_weights.app, name="weights")


def main() -> None:
    """Runs a command; a fault of the user's ends in one sentence and exit code 2."""
    keep_freed_memory()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            # What it finds odd in an image file that is read all the same, or refused with a sentence of ours.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            sys.exit(app(standalone_mode=False))
    except CnnjaxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):  # the second is XLA's
            print(f"error: there is not enough memory ({first_line(error)[:300]}); choose smaller batches, images or "
                  "a smaller network", file=sys.stderr)  # fmt: skip
            sys.exit(2)
        # Typer's own errors about arguments have no public base class.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message().rstrip(".")
        if message:  # else help was printed
            command = getattr(getattr(error, "ctx", None), "command_path", "cnnjax")
            print(f"error: {message}; see '{command} --help'", file=sys.stderr)
        sys.exit(2)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    own = issubclass(category, CnnjaxWarning)
    text = f"warning: {message}\n" if own else warnings.formatwarning(message, category, filename, lineno, line)
    print(text, end="", file=file or sys.stderr)


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="Run folder; by default runs/NAME-HASH.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Continue a run although the config has changed.")] = False,
    coordinator: Annotated[str | None, typer.Option(help="host:port of process 0, for a job of several.")] = None,
    processes: Annotated[int | None, typer.Option(help="How many processes the job has.")] = None,
    process_id: Annotated[int | None, typer.Option(help="Which of them this is, from 0.")] = None,
    as_json: Json = False,
) -> None:
    """Train a config; the same command continues a run that was interrupted."""
    from cnnjax.config_files import load_config
    from cnnjax.terminal import make_reporter, print_result

    flags = {"coordinator": coordinator, "processes": processes, "process_id": process_id}
    given = [f"parallel.{name}={value}" for name, value in flags.items() if value is not None]
    checked = load_config(config, [*(overrides or []), *given])
    from cnnjax.train.loop import fit

    result = fit(checked, run_dir, force=force, reporter=make_reporter(quiet_stdout=as_json))
    if as_json:
        _print_json(result)
    else:
        print_result(result)


@app.command("eval")
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    checkpoint: Which = "last",
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page into this folder: confusions, classes, the worst examples."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a run on its held-out set."""
    which = checkpoint_of(checkpoint)
    from cnnjax.terminal import print_result
    from cnnjax.train.eval_report import write_eval_report
    from cnnjax.train.evaluation import evaluate as evaluate_run

    result = write_eval_report(run, report, checkpoint=which) if report else evaluate_run(run, checkpoint=which)
    if as_json:
        _print_json(result)
    else:
        print_result(result)


app.command()(cli_aot.aot)
app.command()(cli_predict.predict)
app.command()(cli_explain.explain)
app.command()(cli_export.export)
app.command()(cli_features.features)


@app.command("config")
def show_config(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="A YAML file; without it, the defaults.")
    ] = None,
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of config files.")] = False,
    against: Annotated[Path | None, typer.Option("--diff", help="Another YAML file: show what differs.")] = None,
    as_json: Json = False,
) -> None:
    """Check a config and show it whole, or its schema, or how it differs from another."""
    from cnnjax.config_files import config_hash, diff, json_schema, load_config, to_tree, to_yaml

    if schema:
        print(json.dumps(json_schema(), indent=None if as_json else 2))
        return
    checked = load_config(config, overrides or [])
    _check_names(checked)
    if against is not None:
        changes = diff(load_config(against), checked)
        if as_json:
            _print_json({path: {"old": old, "new": new} for path, (old, new) in changes.items()})
        else:
            for path, (old, new) in changes.items():
                print(f"{path}: {json.dumps(old)} -> {json.dumps(new)}")
            if not changes:
                print("no difference")
    elif as_json:
        _print_json({"hash": config_hash(checked), "config": to_tree(checked)})
    else:
        print(f"# hash {config_hash(checked)}\n{to_yaml(checked)}", end="")


@app.command()
def models(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN",
            help="A name with * and ? as wildcards; with a slash, such as 'timm/*', of other libraries.",
        ),
    ] = "*",
    as_json: Json = False,
) -> None:
    """List the networks with their paper, parameters, multiply-adds and input."""
    from cnnjax.models import ALIASES, find_models, list_models, list_peers
    from cnnjax.registry import did_you_mean

    others = "/" in pattern
    names = list_peers(pattern) if others else find_models(pattern)
    if not names:
        known = list_peers() if others else [*list_models(), *ALIASES]
        raise ConfigError(f"no model matches '{pattern}'; {did_you_mean(pattern, known)}")
    from cnnjax.analysis.catalogue import describe_model, describe_peer
    from cnnjax.terminal import print_models, print_peers

    rows = [describe_peer(name) if others else describe_model(name) for name in names]
    if as_json:
        _print_json(rows)
    elif others:
        print_peers(rows)
    else:
        print_models(rows)


@app.command()
def summary(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name that `cnnjax models` lists.")],
    fields: Fields = None,
    input_size: Annotated[
        str | None, typer.Option("--input", metavar="SIZE", help="Of the image: 224, 224x320 or 224x320x1.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Channels of the image.", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Show a network layer by layer: shapes, parameters, multiply-adds, receptive fields; counted, not computed."""
    given = _sizes(input_size) if input_size is not None else ()
    if len(given) == 3 and channels not in (None, given[2]):
        raise ConfigError(f"--input {input_size} has {given[2]} channels, --channels says {channels}; give one of them")
    from cnnjax.config_files import load_config
    from cnnjax.models import create_model, get_variant

    checked = load_config(None, [f"model.name={model}", *(f"model.args.{field}" for field in fields or [])])
    variant = get_variant(checked.model.name)
    from cnnjax.analysis.summary import summarize
    from cnnjax.terminal import print_summary

    height, width, own_channels = variant.input_shape
    if given:
        height, width = given[0], given[min(1, len(given) - 1)]
    shape = (height, width, given[2] if len(given) == 3 else channels or own_channels)
    result = summarize(create_model(checked.model.name, **checked.model.args), shape)
    if as_json:
        _print_json({"name": model, "input": list(shape), **result.to_dict()})
    else:
        print_summary(model, shape, result)


app.command()(cli_scale.scale)


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the page goes, such as experiments/lenet5_mnist.")
    ],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Finished runs that differ in their seed.")],
    note: Annotated[str, typer.Option(help="A sentence that a reader of the number must know.")] = "",
) -> None:
    """Write a page on several seeds of one config: mean, deviation, curves, origin."""
    from cnnjax.train.report import write_report

    print(write_report(runs, folder, note))


def _check_names(config: Any) -> None:
    """The model's and the optimizer's names and arguments; imports JAX only where there are some to check."""
    from cnnjax.models import family_of

    try:
        family_of(config.model.name)
    except ConfigError as error:
        raise ConfigError(f"model.name: {error}") from None
    from cnnjax.train.task import check_names

    check_names(config)


def _sizes(text: str) -> tuple[int, ...]:
    """One number for height and width, or height, width and perhaps channels."""
    parts = text.split("x")
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--input: expected a size such as 224, 224x320 or 224x320x1, got '{text}'")
    return tuple(map(int, parts))


def _print_json(value: Any) -> None:
    print(json.dumps(value))
