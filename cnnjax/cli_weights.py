"""`cnnjax weights`: parse, call, print."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnjax.cli_export import export
from cnnjax.cli_options import Json
from cnnjax.errors import WeightsError

app = typer.Typer(help="Bring weights in from other libraries, hand them on, look at them.", no_args_is_help=True)


@app.command("import")
def import_file(
    peer: Annotated[
        str,
        typer.Argument(
            metavar="LIBRARY/NETWORK[.TAG]", help="Such as keras/ResNet50, or published weights: timm/resnet50.a1_in1k."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="A .safetensors, .pth, .pt, .weights.h5 or .h5 file; without it, the published weights are fetched.",
        ),
    ] = None,
    fields: Annotated[
        list[str] | None, typer.Argument(metavar="FIELD=VALUE", help="Fields of the network, where not the library's.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Names, with * and ?, that may be missing, unexpected or mis-shaped.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Of the network; a new head where the file has others.", min=1)
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Of the images; the first layer is adapted.", min=1)] = None,
    prepared_as: Annotated[
        str | None, typer.Option(help="Published weights that prepare images so, such as timm/resnet50.tv_in1k.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="A text file with the name of one class in each line.")] = None,
    seed: Annotated[int, typer.Option(help="Of parameters that start anew.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Read another library's weights; write them with network, preparation of images and labels as one file."""
    names = _lines(labels) if labels else []
    from cnnjax.config_files import load_config
    from cnnjax.weights.bundle import save_weights
    from cnnjax.weights.transfer import import_weights

    given = load_config(None, [f"model.args.{field}" for field in fields or []]).model.args
    imported = import_weights(
        peer,
        file,
        allow=allow or [],
        fields=given,
        classes=classes,
        channels=channels,
        prepared_as=prepared_as,
        labels=names,
        seed=seed,
    )
    save_weights(out, imported.weights)
    if as_json:
        _print_json({"out": str(out), **_report(imported.report), "notes": list(imported.notes)})
        return
    for note in imported.notes:
        print(note)
    source = f"from {file} as {peer}" if file else f"published as {imported.weights.origin}"
    print(f"{out}: {_size(imported.weights.arrays)} of {imported.weights.model}, {source}")


app.command("export")(export)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors, .pth, .pt, .weights.h5 or .h5 file.")],
    peer: Annotated[
        str | None, typer.Option("--as", metavar="LIBRARY/NETWORK", help="Tell also what does not fit this network.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the names, shapes and types in a file, and what it says of itself."""
    from cnnjax.weights.bundle import read_description
    from cnnjax.weights.transfer import inspect_file

    found, report = inspect_file(file, peer)
    described = read_description(file, found.metadata)
    description = described.model_dump(mode="json") if described else None
    if as_json:
        arrays = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in found.arrays.items()}
        own = {"cnnjax": description} if description else found.metadata
        _print_json({"arrays": arrays, "metadata": own, **(_report(report) if report else {})})
        return
    from cnnjax.terminal import print_arrays

    print_arrays(found.arrays)
    print(_size(found.arrays))
    for key, value in (description or found.metadata).items():
        words = f"{', '.join(value[:3])}, ... ({len(value)})" if key == "labels" and len(value) > 3 else value
        print(f"{key}: {words if isinstance(words, str) else json.dumps(words)}")
    if report:
        for kind, entries in _report(report).items():
            print(f"{kind} as {peer}: {len(entries) or 'none'}")
            for entry in entries:
                print(f"  {entry}")


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise WeightsError(f"{path} cannot be read: {reason}") from None


def _report(report: Any) -> dict[str, list[str]]:
    return {
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
        "mis-shaped": list(report.mis_shaped),
    }


def _size(arrays: dict[str, Any]) -> str:
    return f"{len(arrays):,} arrays, {sum(array.size for array in arrays.values()):,} numbers"


def _print_json(value: Any) -> None:
    print(json.dumps(value))
