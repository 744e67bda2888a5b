"""`cnnjax bench`: parse, call, print."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnjax import cli_bench_loop
from cnnjax.cli_options import Fields, Json, Overrides
from cnnjax.errors import ConfigError

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)


app.command()(cli_bench_loop.overhead)
app.command()(cli_bench_loop.parallel)


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


@app.command()
def photographs(
    workers: Annotated[str, typer.Option(help="Numbers of reading processes, with commas.")] = "0,2",
    with_torch: Annotated[bool, typer.Option("--torch", help="PyTorch's loader too; needs torchvision.")] = False,
    size: Annotated[int, typer.Option(help="Height and width of the images that are made.", min=1)] = 224,
    batch: Annotated[int, typer.Option(help="Images in a batch.", min=1)] = 64,
    rounds: Annotated[int, typer.Option(help="Turns of each reader.", min=1)] = 5,
    report: Annotated[Path | None, typer.Option(help="Folder of a page that the measurement is added to.")] = None,
    as_json: Json = False,
) -> None:
    """Images per second decoded from JPEGs, cut, flipped and normalised."""
    from cnnjax.bench.photographs import add_to_report, measure_photographs

    counts = _numbers(workers, "--workers", least=0)
    row = measure_photographs(counts, with_torch=with_torch, size=size, batch=batch, rounds=rounds)
    if report is not None:
        add_to_report(row, report)
    if as_json:
        print(json.dumps(row))
        return
    for each in row["readers"]:
        scaled = ", scaled decoding" if each["scaled_decoding"] else ""
        print(f"{each['library']}, {each['workers']} workers{scaled}: {each['images_per_second']:,.0f} images/s")


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


@app.command()
def ops(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Networks; by default one of each kind.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="How often each form takes its turn; the median counts.", min=1)] = 5,
    library: Annotated[str, typer.Option(help="Whose routines the forms are compiled to: `xla` or `onednn`.")] = "xla",
    write_table: Annotated[
        bool, typer.Option("--write-table", help="Let the winners lower convolutions on CPUs from now on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Time every form of the networks' convolutions and of their gradients on this machine's CPU."""
    from cnnjax.bench.ops import NETWORKS, achieved, measure_all, measure_peak
    from cnnjax.bench.ops import write_table as write
    from cnnjax.ops.onednn import resolve

    (whose,) = _choices(library, "--library", ("xla", "onednn"))
    resolve(whose, "cpu")
    rows = []
    for row in measure_all(names or NETWORKS, batch_size, rounds, whose):
        rows.append(row)
        if as_json:
            print(json.dumps(row), flush=True)
            continue
        native = row["seconds"]["native"]
        times = ", ".join(f"{name} {1e3 * each:.2f} ms ({native / each:.2f})" for name, each in row["seconds"].items())
        case = " ".join(f"{name}={value}" for name, value in row["case"].items())
        print(f"{row['map']} {case}: {times}; {', '.join(row['networks'])}", flush=True)
    if not as_json:
        peak = measure_peak(whose, rounds)
        print(f"a large matrix product: {peak / 1e9:.0f} GFLOP/s; of all convolutions, each in its fastest form:")
        for (kind, which), speed in achieved(rows).items():
            print(f"{kind} {which}: {speed / 1e9:.0f} GFLOP/s ({speed / peak:.2f})")
    if write_table:
        kept = write(rows, whose)
        if not as_json:
            print(f"the table has {kept} rows")


@app.command()
def models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Networks; by default one of each kind.")
    ] = None,
    peers: Annotated[
        str,
        typer.Option(
            help="Libraries to compare with, by commas: torchvision, timm, torch (plain modules for what they lack), "
            "keras, flax (of flaxmodels), and native (ours with XLA's own convolutions)."
        ),
    ] = "torchvision,timm,torch,keras,native",
    modes: Annotated[
        str, typer.Option("--mode", help="Of `forward`, `train` and `loop`, some, by commas.")
    ] = "forward,train",
    batches: Annotated[str, typer.Option("--batch", help="Images in a batch; several by commas.")] = "8",
    rounds: Annotated[int, typer.Option(help="How many turns each takes; the median counts.", min=1)] = 7,
    report: Annotated[Path | None, typer.Option(help="Folder of a page that the measurements are added to.")] = None,
    as_json: Json = False,
) -> None:
    """Images per second of networks side by side with other libraries' on this machine, each in its own process."""
    from cnnjax.bench.models import NETWORKS, measure_models
    from cnnjax.bench.models_report import add_to_report

    for name in names or NETWORKS:
        for mode in _choices(modes, "--mode", ("forward", "train", "loop")):
            for batch in _numbers(batches, "--batch"):
                rows = measure_models(name, _split(peers), mode=mode, batch=batch, rounds=rounds)
                if report is not None:
                    add_to_report(rows, report)
                if as_json:
                    print(json.dumps(rows), flush=True)
                    continue
                print(f"{name}, {mode}, batch {batch}")
                for row in rows:
                    ratio = rows[0]["images_per_second"] / row["images_per_second"]
                    label = f"{row['name']} {row['lowering']}" if row["name"].startswith("cnnjax/") else row["name"]
                    print(
                        f"  {label}: {_rate(row)} images/s (ours is {ratio:.2f} of it), "
                        f"{_first_step(row)}{row['peak_bytes'] / 2**20:,.0f} MiB",
                        flush=True,
                    )


@app.command()
def scaling(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Networks; by default a ResNet and an EfficientNet."),
    ] = None,
    axes: Annotated[str, typer.Option("--axis", help="Of depth, width, resolution and batch, some, by commas.")] = (
        "depth,width,resolution,batch"
    ),
    modes: Annotated[str, typer.Option("--mode", help="`forward`, `train`, or both by a comma.")] = "train",
    report: Annotated[Path | None, typer.Option(help="Folder of a page that the measurements are added to.")] = None,
    as_json: Json = False,
) -> None:
    """Images per second as networks grow deeper and wider, on larger images and in larger batches."""
    from cnnjax.bench.scaling import AXES, MODELS, add_to_report, measure_in_turns, points

    for name in names or MODELS:
        for mode, axis in itertools.product(
            _choices(modes, "--mode", ("forward", "train")), _choices(axes, "--axis", AXES)
        ):
            for row in measure_in_turns(name, mode, list(points((axis,)))):
                if report is not None:
                    add_to_report(row, report)
                print(
                    json.dumps(row)
                    if as_json
                    else f"{name}, {mode}, {axis} {row['value']:g}: {_rate(row)} images/s, "
                    f"{row['macs'] * row['images_per_second'] / 1e9:.1f} GMACs/s, batch {row['batch']}",
                    flush=True,
                )


@app.command()
def seeds(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Networks; by default three small ones.")
    ] = None,
    count: Annotated[int, typer.Option("--seeds", help="How many at a time.", min=2)] = 4,
    batch: Annotated[int, typer.Option(help="Images of each seed's batch.", min=1)] = 32,
    report: Annotated[Path | None, typer.Option(help="Folder of a page that the measurements are added to.")] = None,
    as_json: Json = False,
) -> None:
    """Several seeds of one network: one after the other, in one program, or over the devices."""
    from cnnjax.bench.seeds import NETWORKS, add_to_report, measure_seeds

    for name in names or NETWORKS:
        row = measure_seeds(name, count, batch)
        if report is not None:
            add_to_report(row, report)
        if as_json:
            print(json.dumps(row), flush=True)
            continue
        print(f"{name}, {count} seeds, batch {batch}, {row['devices']} {row['backend']} devices")
        for each in row["ways"]:
            print(
                f"  {each['way']}: {1000 * each['step_seconds']:.1f} ms a step ({each['ratio']:.2f} of separate), "
                f"compiled in {each['compile_seconds']:.1f} s",
                flush=True,
            )


def _rate(row: Mapping[str, Any]) -> str:
    rate = float(row["images_per_second"])
    return f"{rate:,.1f}" if rate >= 10 else f"{rate:.2f}"


def _first_step(row: Mapping[str, Any]) -> str:
    compiling = row.get("trace_seconds", 0) + row.get("lower_seconds", 0) + row.get("compile_seconds", 0)
    return f"{compiling + row['first_step_seconds']:.1f} s to the first step, " if "first_step_seconds" in row else ""


def _split(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _choices(text: str, option: str, known: tuple[str, ...]) -> list[Any]:
    words = _split(text)
    for word in words:
        if word not in known:
            raise ConfigError(f"{option}: expected some of {', '.join(known)}; got {word!r}")
    return words


def _numbers(text: str, option: str, least: int = 1) -> list[int]:
    words = _split(text)
    for word in words:
        if not word.isdecimal() or int(word) < least:
            raise ConfigError(f"{option}: expected whole numbers from {least}, such as {least},8; got {word!r}")
    return [int(word) for word in words]
