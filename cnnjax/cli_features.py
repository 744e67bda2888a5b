"""`cnnjax features`: parse, call, print."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cnnjax.cli_options import Json, Overrides, RunOrWeights, Which, checkpoint_of


def features(
    run: RunOrWeights,
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="A YAML file whose data the network sees; a run has its own."),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The file, a NumPy archive: NAME.npz.")] = Path("features.npz"),
    layer: Annotated[
        str | None, typer.Option(help="Whose output is taken; by default what the network's head reads.")
    ] = None,
    maps: Annotated[bool, typer.Option("--maps", help="Keep a layer's positions; else their mean is taken.")] = False,
    checkpoint: Which = "last",
    as_json: Json = False,
) -> None:
    """Write what a network computes of each example below its head, for other classifiers."""
    which = checkpoint_of(checkpoint)
    from cnnjax.config_files import load_config

    checked = None if config is None else load_config(config, overrides or [])
    from cnnjax.train.features import extract_features, require_archive, save_features

    require_archive(out)
    found = extract_features(run, checked, layer=layer, maps=maps, checkpoint=which)
    save_features(found, out)
    if as_json:
        shapes = {
            name: list(getattr(found, name).shape)
            for name in ("train_features", "train_labels", "test_features", "test_labels")
        }
        told = {"out": str(out), "layer": layer, **shapes, "class_names": list(found.class_names)}
        print(json.dumps({**told, "skipped": found.skipped}))
        return
    of_one = "x".join(map(str, found.train_features.shape[1:]))
    train, test = (f"{len(labels):,}" for labels in (found.train_labels, found.test_labels))
    print(f"{out}: {of_one} numbers of {train} training and {test} held-out examples")
    if found.skipped:
        print(f"{found.skipped:,} files that cannot be read are left out")
