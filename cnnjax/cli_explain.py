"""`cnnjax explain`: parse, call, print."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cnnjax.cli_options import ImageFiles, Json, RunOrWeights, Which, checkpoint_of


def explain(
    run: RunOrWeights,
    images: ImageFiles,
    out: Annotated[Path, typer.Option(help="The folder of the pictures.")] = Path("explained"),
    asked: Annotated[
        str | None, typer.Option("--class", help="Its name or number; by default each image's likeliest.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Whose maps are shown, and weighted by Grad-CAM; by default the first and last.")
    ] = None,
    checkpoint: Which = "last",
    as_json: Json = False,
) -> None:
    """Draw which parts of pictures a network's answer rests on, its first filters, and a layer's maps."""
    which = checkpoint_of(checkpoint)
    from cnnjax.train.explain import draw_attributions, draw_filters, draw_maps
    from cnnjax.train.predict import find_weights

    weights = find_weights(run, which)
    files = {name: out / f"{name}.png" for name in ("attributions", "filters", "maps")}
    told = draw_attributions(weights, images, files["attributions"], class_asked=asked, layer=layer)
    draw_filters(weights, files["filters"])
    draw_maps(weights, images[0], files["maps"], layer=layer)
    if as_json:
        print(json.dumps({"images": told, "pictures": {name: str(file) for name, file in files.items()}}))
        return
    for each in told:
        print(f"{each['image']}: {each['class']} {each['probability']:.1%}, Grad-CAM of {each['layer']}")
    for file in files.values():
        print(file)
