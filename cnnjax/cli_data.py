"""`cnnjax data`: parse, call, print."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cnnjax.cli_options import ConfigFile, Json, Overrides

app = typer.Typer(no_args_is_help=True, help="Look at a config's data and at its changes, or convert it.")


@app.command()
def show(config: ConfigFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Count the examples of each class, in the training set and in the held-out one."""
    from cnnjax.config_files import load_config
    from cnnjax.data.sources import load
    from cnnjax.terminal import print_data
    from cnnjax.train.preview import describe_data

    described = describe_data(load(load_config(config, overrides or []).data))
    if as_json:
        print(json.dumps(described))
    else:
        print_data(described)


@app.command()
def preview(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The picture: .png, .pdf or .svg.")] = Path("preview.png"),
    count: Annotated[int, typer.Option(help="How many examples.", min=1)] = 6,
    epochs: Annotated[int, typer.Option(help="How many epochs' changes of each.", min=1)] = 5,
) -> None:
    """Draw the first training images, as they are and as data.augment changes them in the first epochs."""
    from cnnjax.config_files import load_config
    from cnnjax.data.sources import load
    from cnnjax.train.preview import draw_preview

    loaded = load_config(config, overrides or [])
    draw_preview(loaded, load(loaded.data), out, count=count, epochs=epochs)
    print(out)


@app.command()
def convert(
    config: ConfigFile,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, empty or not there yet.")],
    overrides: Overrides = None,
    shard_megabytes: Annotated[int, typer.Option(help="How large a file of records may become.", min=1)] = 256,
    as_json: Json = False,
) -> None:
    """Write the image files of a config as a few large ones, for data.source.kind: arrayrecord."""
    from cnnjax.config_files import load_config
    from cnnjax.data.convert import convert as convert_files
    from cnnjax.data.convert import describe_converted
    from cnnjax.terminal import print_converted

    source = load_config(config, overrides or []).data.source
    described = describe_converted(convert_files(source, out, shard_megabytes=shard_megabytes))
    if as_json:
        print(json.dumps(described))
    else:
        print_converted(described)
