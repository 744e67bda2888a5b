"""`cnnjax aot`: parse, call, print."""

import dataclasses
import json
import os
from typing import Annotated, Any

import typer

from cnnjax.cli_options import ConfigFile, Json, Overrides


def aot(
    config: ConfigFile,
    overrides: Overrides = None,
    topology: Annotated[
        str, typer.Option(help="Which chips, and how many: v4, v5e, v5p or v6e with a shape, such as v5e:4x4; cpu:8.")
    ] = "v5e:2x2",
    classes: Annotated[
        int | None, typer.Option(help="How many the data has, where the data are not here.", min=2)
    ] = None,
    search: Annotated[bool, typer.Option("--largest", help="Find the largest batch that fits.")] = False,
    multiple: Annotated[int, typer.Option(help="Of images a device, for --largest.", min=1)] = 8,
    savings: Annotated[
        bool, typer.Option("--savings", help="Compile it with bfloat16, remat and accumulation as well.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compile a config's steps for chips that are not here: do they fit, and what do they send and compute?"""
    _alone()
    from cnnjax.aot.plan import SAVINGS, facts_of, largest, plan, with_overrides
    from cnnjax.config_files import load_config
    from cnnjax.terminal_aot import print_plan

    checked = load_config(config, overrides or [])
    facts = facts_of(checked, classes)
    told: dict[str, Any] = plan(checked, facts, topology)
    if savings:
        told["savings"] = {
            name: plan(with_overrides(checked, *changes), facts, topology, evaluation=False)["train"]
            for name, changes in SAVINGS.items()
        }
    if search:
        found = largest(checked, facts, topology, multiple=multiple)
        told["largest"] = None if found is None else dataclasses.asdict(found)
    if as_json:
        print(json.dumps(told))
    else:
        print_plan(told)


def _alone() -> None:
    """Before JAX is imported: its TPU plugin must not look for a TPU machine's neighbours, who are not there."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
