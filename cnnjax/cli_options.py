"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from cnnjax.errors import ConfigError

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A YAML file, such as configs/train/lenet5_digits.yaml.")
]
RunOrWeights = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, or a file of `cnnjax weights import` or `export`.")
]
ImageFiles = Annotated[list[str], typer.Argument(metavar="IMAGE", help="Picture files of any size and mode.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides, such as schedule.learning_rate=0.1.")
]
Fields = Annotated[
    list[str] | None, typer.Argument(metavar="FIELD=VALUE", help="Fields of the network, as in model.args.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of the output.")]
Which = Annotated[str, typer.Option("--checkpoint", help="last, best, or a step.")]


def checkpoint_of(text: str) -> str | int:
    """What `--checkpoint` names: last, best or a step.

    Raises:
        ConfigError: it is none of them.
    """
    if text in ("last", "best"):
        return text
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"--checkpoint: expected last, best or a step, got '{text}'")
    return int(text)
