"""A network and its weights as one program that JAX alone runs: `jax.export`'s file, and a description beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax.errors import ConfigError, WeightsError
from cnnjax.version import __version__
from cnnjax.weights.bundle import Weights

ENDING = ".jaxexport"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_program(weights: Weights, path: str | Path, *, platforms: Sequence[str] = ("cpu", "cuda", "tpu")) -> Path:
    """Writes a program that takes images as bytes and gives logits, and next to it a JSON file that says so.

    `jax.export.deserialize(open(path, "rb").read()).call(images)` runs it where only JAX is installed, for a batch of
    any size: images (batch, height, width, channels) uint8, of the network's size, to (batch, classes) float32, or
    (batch, height, width, classes) of a network that gives each pixel a class.

    Args:
        path: ends in .jaxexport.
        platforms: that it shall run on.

    Returns:
        The path of the description: the image's size, how pictures of other sizes were fitted to it (with Pillow, first
        across and then down), and the classes.

    Raises:
        ConfigError: no such platform, or another ending.
        WeightsError: nobody said how images are prepared, or the files cannot be written.
    """
    path = Path(path)
    for platform in platforms:
        if platform not in PLATFORMS:
            raise ConfigError(f"--platforms: no platform '{platform}'; known: {', '.join(PLATFORMS)}")
    if path.suffix != ENDING:
        raise ConfigError(f"'{path}': expected a name that ends in {ENDING}")
    preparation = weights.preprocessing
    if preparation is None:
        raise WeightsError(
            f"the weights ({weights.origin}) do not say how images are prepared; import them again with --prepared-as"
        )
    # The program does not know what it will run on; only XLA's own convolutions take a batch of any size.
    network = weights.network.clone(lowering="native")
    mean, std = (jnp.asarray(values, jnp.float32) for values in (preparation.mean, preparation.std))

    def logits(images: jax.Array) -> jax.Array:
        pixels = images[..., ::-1] if preparation.order == "bgr" else images
        x = (pixels.astype(jnp.float32) / preparation.scale - mean) / std
        outputs: Any = network.apply(weights.variables, x, train=False)
        return outputs.logits

    height, width = preparation.size
    rows = "batch, height, width" if network.labels_pixels else "batch"
    shape = jax.export.symbolic_shape(f"batch, {height}, {width}, {weights.input_shape[-1]}")
    exported = jax.export.export(jax.jit(logits), platforms=tuple(platforms))(jax.ShapeDtypeStruct(shape, jnp.uint8))
    description = {
        "input": f"images (batch, {height}, {width}, {weights.input_shape[-1]}) uint8",
        "output": f"logits ({rows}, {network.num_classes}) float32",
        "platforms": list(platforms),
        "pictures": preparation.model_dump(mode="json", exclude={"order", "scale", "mean", "std"}),
        "labels": list(weights.labels),
        "model": weights.model,
        "fields": dict(weights.fields),
        "origin": weights.origin,
        "versions": {"cnnjax": __version__, "jax": jax.__version__},
    }
    beside = path.with_name(f"{path.name}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(exported.serialize())
        beside.write_text(json.dumps(description, indent=1) + "\n")
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be written: {error.strerror or error}") from None
    return beside
