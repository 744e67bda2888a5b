"""`cnnjax bench`: parse, call, print."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cnnjax.cli_options import Fields, Json, Overrides

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)


@app.command()
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


@app.command("input")
def input_speed(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file of a run whose data to measure.")],
    overrides: Overrides = None,
    batches: Annotated[int, typer.Option(help="Batches in each measurement.", min=1)] = 200,
    as_json: Json = False,
) -> None:
    """Images per second that a config's data can give, whatever the network."""
    from cnnjax.bench.input import measure_input
    from cnnjax.config_files import load_config

    result = measure_input(load_config(config, overrides or []), batches)
    if as_json:
        print(json.dumps(result))
        return
    print(
        f"{result['source']}, batch {result['batch_size']}, {result['bytes_per_image']:,} bytes an image: "
        f"{result['host_images_per_second']:,.0f} images/s in the host's memory, "
        f"{result['device_images_per_second']:,.0f} on the devices; read in {result['load_seconds']:.1f} s"
    )


@app.command("compile")
def compile_time(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name that `cnnjax models` lists.")],
    fields: Fields = None,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.", min=1)] = 2,
    input_size: Annotated[int, typer.Option("--input", help="Height and width of the images.", min=1)] = 64,
    report: Annotated[Path | None, typer.Option(help="Folder of a page that the measurement is added to.")] = None,
    as_json: Json = False,
) -> None:
    """Time to compile a network's train step, and its memory, with and without scan and remat."""
    from cnnjax.bench.compile_time import measure_compile_time
    from cnnjax.config_files import load_config

    checked = load_config(None, [f"model.name={model}", *(f"model.args.{field}" for field in fields or [])])
    result = measure_compile_time(checked.model.name, checked.model.args, batch_size=batch_size, input_size=input_size)
    if report is not None:
        from cnnjax.bench.compile_report import add_to_report

        add_to_report(result, report)
    if as_json:
        print(json.dumps(result))
        return
    print(f"{model}, batch {batch_size}, {input_size}x{input_size}, compiled for {result['backend']}")
    for setting in result["settings"]:
        switches = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in setting.items() if isinstance(on, bool))
        print(
            f"{switches}: {setting['operations']:,} operations, {setting['lower_seconds']:.1f} s to lower and "
            f"{setting['compile_seconds']:.1f} s to compile (ratio {setting['time_ratio']:.2f}), "
            f"{setting['temporary_bytes'] / 2**20:,.1f} MiB "
            f"(ratio {setting['memory_ratio']:.2f})"
        )
