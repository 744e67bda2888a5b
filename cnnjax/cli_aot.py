"""`cnnjax aot`: parse, call, print."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnjax.cli_options import Json, Overrides
from cnnjax.config_files import load_config
from cnnjax.errors import ConfigError
from cnnjax.study.question import is_study


def aot(
    file: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file of a run, or of a study with its arms.")],
    overrides: Overrides = None,
    topologies: Annotated[
        list[str] | None,
        typer.Option(
            "--topology",
            help="Which chips, and how many: v4, v5e, v5p or v6e with a shape, such as v5e:4x4 (v5e:2x2, if "
            "none is given); cpu:8; cuda:8, which is lowered and not compiled. May be given several times.",
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="How many the data has, where the data are not here.", min=2)
    ] = None,
    search: Annotated[bool, typer.Option("--largest", help="Find the largest batch that fits.")] = False,
    multiple: Annotated[int, typer.Option(help="Of images a device, for --largest.", min=1)] = 8,
    savings: Annotated[
        bool, typer.Option("--savings", help="Compile it with bfloat16, remat and accumulation as well.")
    ] = False,
    chips: Annotated[
        str | None, typer.Option(help="Predict the step on so many of the chips, such as 16,256,1024, by a model.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder of a page of training steps; what it has is not compiled again.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile a config's steps for chips that are not here: do they fit, and what do they send and compute?"""
    wanted = topologies or ["v5e:2x2"]
    several = is_study(file) or len(wanted) > 1 or report is not None
    if several and (savings or chips):
        raise ConfigError("--savings and --chips: of one config on one topology, and without --report")
    _alone(wanted)
    if several:
        _survey(file, overrides or [], wanted, classes, multiple if search else None, report, as_json)
        return
    from cnnjax.aot.plan import chips_in, facts_of, largest, plan, predictions, try_savings
    from cnnjax.terminal_aot import print_plan

    numbers = chips_in(chips) if chips else []  # before minutes go into compiling
    config = load_config(file, overrides or [])
    facts = facts_of(config, classes)
    told: dict[str, Any] = plan(config, facts, wanted[0])
    if savings:
        told["savings"] = try_savings(config, facts, wanted[0])
    if search:
        told["largest"] = largest(config, facts, wanted[0], multiple=multiple, first=told)
    if numbers:
        told["predictions"] = [dataclasses.asdict(each) for each in predictions(told, numbers)]
    if as_json:
        print(json.dumps(told))
    else:
        print_plan(told)


def _survey(
    file: Path,
    overrides: list[str],
    topologies: list[str],
    classes: int | None,
    multiple: int | None,
    report: Path | None,
    as_json: bool,
) -> None:
    from cnnjax.aot.survey import survey
    from cnnjax.study.arms import read_study
    from cnnjax.terminal_aot import print_survey, say_row

    if is_study(file):
        _, arms = read_study(file, overrides)
        if not arms:
            raise ConfigError(f"{file} has computations, no runs, and so nothing to compile")
        configs = {arm.name: arm.config for arm in arms}
    else:
        config = load_config(file, overrides)
        configs = {config.name: config}
    rows = survey(configs, topologies, classes, multiple=multiple, folder=report, say=say_row)
    if as_json:
        print(json.dumps(rows))
    else:
        print_survey(rows)


def _alone(topologies: list[str]) -> None:
    """Before JAX is imported: on this machine alone, with as many devices of its own as are asked for.

    JAX's plugin for TPUs would look for a TPU machine's neighbours, who are not there.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    # Its lock is for a machine's own chips, which two processes cannot share.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
    parts = [topology.partition(":") for topology in topologies]
    here = [int(size) for kind, _, size in parts if kind in ("cpu", "cuda") and size.isdecimal()]
    flags = os.environ.get("XLA_FLAGS", "")
    if here and "host_platform_device_count" not in flags:
        # More than a few thousand would take all memory before they could be refused.
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={min(max(here), 1024)}"
