"""`cnnjax predict`: parse, call, print."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnjax.cli_options import ImageFiles, Json, RunOrWeights, Which, checkpoint_of
from cnnjax.errors import ConfigError


def predict(
    run: RunOrWeights,
    images: ImageFiles,
    top: Annotated[int | None, typer.Option(help="How many classes to show; 3 by default.", min=1)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for masks; by default the working directory.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that exist already.")] = False,
    checkpoint: Which = "last",
    invert: Annotated[bool, typer.Option("--invert", help="Swap black and white first.")] = False,
    as_json: Json = False,
) -> None:
    """Classify pictures with a run's network, or with imported weights.

    A network that gives each pixel a class writes a mask of each picture, NAME_mask.png, instead.
    """
    which = checkpoint_of(checkpoint)
    from cnnjax.terminal import print_predictions
    from cnnjax.train.predict import find_weights
    from cnnjax.train.predict import predict as predict_images

    weights = find_weights(run, which)
    if weights.network.labels_pixels:
        if top is not None:
            raise ConfigError(f"--top: {weights.model} gives each pixel the likeliest class alone; leave --top out")
        return _predict_masks(weights, images, out or Path(), overwrite, invert, as_json)
    if out is not None or overwrite:
        raise ConfigError(f"--out, --overwrite: {weights.model} gives each picture one class, and writes no masks")
    predictions = predict_images(weights, images, top=3 if top is None else top, invert=invert)
    if as_json:
        _print_json(
            {
                "image": each.image,
                "top": [
                    {"class": name, "probability": probability}
                    for name, probability in zip(each.classes, each.probabilities, strict=True)
                ],
            }
            for each in predictions
        )
    else:
        print_predictions(predictions)


def _predict_masks(weights: Any, images: list[str], folder: Path, overwrite: bool, invert: bool, as_json: bool) -> None:
    from cnnjax.train.masks import mask_files, write_mask
    from cnnjax.train.predict import predict_masks

    files = mask_files(images, folder, overwrite=overwrite)
    masks = predict_masks(weights, images, invert=invert)
    for file, mask in zip(files, masks, strict=True):
        write_mask(file, mask)
    if as_json:
        _print_json(
            {
                "image": mask.image,
                "mask": str(file),
                "shares": [{"class": name, "share": share} for name, share in mask.shares.items()],
                "unlabelled": mask.unlabelled,
            }
            for file, mask in zip(files, masks, strict=True)
        )
        return
    for file, mask in zip(files, masks, strict=True):
        shares = [*mask.shares.items(), *([("no class", mask.unlabelled)] if mask.unlabelled else [])]
        print(f"{mask.image} -> {file}: {', '.join(f'{name} ({share:.1%})' for name, share in shares)}")


def _print_json(predictions: Iterable[dict[str, Any]]) -> None:
    print(json.dumps({"predictions": list(predictions)}))
