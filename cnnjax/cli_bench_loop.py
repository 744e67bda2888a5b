"""`cnnjax bench overhead` and `parallel`: what is around the compiled step."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cnnjax.cli_options import Json, Overrides


def overhead(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file of a run to measure.")],
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(help="Training steps in each measurement.", min=20)] = 300,
    as_json: Json = False,
) -> None:
    """Share of training's wall time that is spent inside the compiled step."""
    from cnnjax.bench.overhead import measure_overhead
    from cnnjax.config_files import load_config

    result = measure_overhead(load_config(config, overrides or []), steps)
    if as_json:
        print(json.dumps(result))
    else:
        print(
            f"{result['model']}, batch {result['batch_size']}: {result['inside']:.1%} of the wall time is inside the "
            f"step; the loop makes {result['loop_images_per_second']:,.0f} images/s, the bare step "
            f"{result['step_images_per_second']:,.0f} (ratio {result['ratio']:.2f})"
        )


def parallel(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file of a run whose step to measure.")],
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(help="Training steps of a turn.", min=1)] = 5,
    rounds: Annotated[int, typer.Option(help="Turns of each way; the median ratio counts.", min=1)] = 200,
    report: Annotated[Path | None, typer.Option(help="Folder of a page that the measurement is added to.")] = None,
    as_json: Json = False,
) -> None:
    """What the way over devices costs on one device, beside the same step under `jax.jit` alone."""
    from cnnjax.bench.parallel import add_to_report, measure_parallel
    from cnnjax.config_files import load_config

    row = measure_parallel(load_config(config, overrides or []), steps, rounds)
    if report is not None:
        add_to_report(row, report)
    if as_json:
        print(json.dumps(row))
        return
    low, high = row["interval"]
    print(
        f"{row['model']}, batch {row['batch_size']}, {row['executor']} on one {row['backend']} device: "
        f"{1000 * row['parallel_seconds']:.2f} ms a step, under jax.jit alone {1000 * row['plain_seconds']:.2f} "
        f"(ratio {row['ratio']:.3f}, 95 % interval {low:.3f} to {high:.3f})"
    )
