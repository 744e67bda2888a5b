"""`cnnjax export`: parse, call, print."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cnnjax.cli_options import Json, RunOrWeights, Which, checkpoint_of
from cnnjax.errors import ConfigError


def export(
    run: RunOrWeights,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="A .safetensors file; a .jaxexport program for JAX alone; with --as also .pth, .pt or .weights.h5.",
        ),
    ],
    peer: Annotated[
        str | None, typer.Option("--as", metavar="LIBRARY/NETWORK", help="Whose names and layouts; else our own.")
    ] = None,
    fold: Annotated[bool, typer.Option("--fold", help="Fold batch normalisation into the convolutions.")] = False,
    platforms: Annotated[str, typer.Option(help="Of a program: where it shall run.")] = "cpu,cuda,tpu",
    checkpoint: Which = "last",
    as_json: Json = False,
) -> None:
    """Write a run's or a file's network: its weights, as ours or another library's, or a program."""
    which = checkpoint_of(checkpoint)
    from cnnjax.train.predict import find_weights
    from cnnjax.weights.fold import fold_batch_norm
    from cnnjax.weights.program import ENDING, export_program
    from cnnjax.weights.transfer import export_weights, require_peer

    if peer is not None:
        require_peer(peer)
        if fold or out.suffix == ENDING:
            raise ConfigError(f"--as {peer}: another library's file has its batch normalisation, and is no program")
    weights = find_weights(run, which)
    weights = fold_batch_norm(weights) if fold else weights
    told = {"out": str(out), "model": weights.model, "as": peer, "origin": weights.origin}
    if out.suffix == ENDING:
        told["description"] = str(export_program(weights, out, platforms=platforms.split(",")))
    else:
        export_weights(weights, out, peer)
    if as_json:
        print(json.dumps(told))
        return
    size = f"{len(weights.arrays)} arrays, {sum(array.size for array in weights.arrays.values()):,} numbers"
    print(f"{out}: {size} of {weights.model}, {weights.origin}{f', as {peer}' if peer else ''}")
    if "description" in told:
        print(told["description"])
