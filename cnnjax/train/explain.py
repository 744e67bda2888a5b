"""Pictures of what a network looks at: attributions, the first layer's filters, a layer's maps."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.analysis.attribution import (
    class_score,
    grad_cam,
    integrated_gradients,
    layer_maps,
    map_layers,
    smooth_gradient,
)
from cnnjax.analysis.layer_outputs import Variables, output_shapes
from cnnjax.data.image_files import read_image
from cnnjax.errors import ConfigError
from cnnjax.registry import did_you_mean
from cnnjax.train.pictures import as_written, new_figure, require_picture, save_picture, show_image
from cnnjax.train.predict import class_name, compile_with, require_preparation
from cnnjax.weights.bundle import Weights

# Of the image's range; the paper has 10 to 20 %.
_NOISE = 0.15
_MOST_MAPS = 64
# A line of the picture has some 230 pixels, and a picture can be no higher than 65,535.
_MOST_IMAGES = 200


def draw_attributions(
    weights: Weights,
    images: Sequence[str | Path],
    path: Path,
    *,
    class_asked: str | None = None,
    layer: str | None = None,
) -> list[dict[str, Any]]:
    """Writes a picture: for each image Grad-CAM, saliency, SmoothGrad and integrated gradients of one class.

    Args:
        path: of a .png, .pdf or .svg.
        class_asked: its name or number; by default each image's likeliest.
        layer: of Grad-CAM; by default the last map of more than one position.

    Returns:
        For each image `image`, `class`, `probability` and `layer`.

    Raises:
        ConfigError: there is no such class or layer, or the network gives each pixel a class.
        DataError: an image cannot be read.
        RunError: the picture cannot be written.
    """
    if weights.network.labels_pixels:
        raise ConfigError(f"{weights.model} gives each pixel a class, and no image one that could be explained")
    require_picture(path)
    preparation = require_preparation(weights)
    chosen = None if class_asked is None else _class_index(weights, class_asked)
    layer = _map_layer(weights, layer, last=True)
    if len(images) > _MOST_IMAGES:
        raise ConfigError(f"expected {_MOST_IMAGES} images at most for one picture, got {len(images)}")
    methods = _methods(weights, layer)
    rows, told = [], []
    for image in images:
        pixels = preparation.fit_size(read_image(image, size=None, channels=weights.input_shape[-1]))
        x = jnp.asarray(preparation.apply(pixels))
        probabilities = np.asarray(methods.probabilities(x))
        index = int(probabilities.argmax()) if chosen is None else chosen
        name = class_name(weights.labels, index)
        told.append({"image": str(image), "class": name, "probability": float(probabilities[index]), "layer": layer})
        baseline = jnp.asarray(preparation.apply(np.zeros_like(pixels)))
        gradient = functools.partial(methods.gradient, index=index)
        deviation = _NOISE * float(x.max() - x.min())
        maps = (
            methods.grad_cam(x, index),
            gradient(x),
            smooth_gradient(gradient, x, jax.random.key(0), deviation=deviation),
            integrated_gradients(gradient, x, baseline),
        )
        rows.append((pixels, f"{name} {probabilities[index]:.0%}", *map(np.asarray, maps)))
    _draw_rows(rows, path)
    return told


_TITLES = ("image", "Grad-CAM", "saliency", "SmoothGrad", "integrated gradients")


@dataclass(frozen=True)
class _Methods:
    """The compiled functions of an image, and of a class's number."""

    probabilities: Callable[..., jax.Array]
    gradient: Callable[..., jax.Array]
    grad_cam: Callable[..., jax.Array]


def _methods(weights: Weights, layer: str) -> _Methods:
    network, options = weights.network.on(jax.default_backend())

    def probabilities(variables: Variables, x: jax.Array) -> jax.Array:
        outputs: Any = network.apply(variables, x[None], train=False)
        return jax.nn.softmax(outputs.logits[0])

    def gradient(variables: Variables, x: jax.Array, index: jax.Array) -> jax.Array:
        return jax.grad(class_score(network, variables, index))(x)

    def cam(variables: Variables, x: jax.Array, index: jax.Array) -> jax.Array:
        return grad_cam(network, variables, x, index, layer)

    return _Methods(*(compile_with(weights.variables, each, options) for each in (probabilities, gradient, cam)))


def draw_filters(weights: Weights, path: Path) -> None:
    """Writes a picture of the first convolution's kernels, each with its own range; colours where it sees three.

    Raises:
        ConfigError: no kernel takes the image's channels.
        RunError: the picture cannot be written.
    """
    require_picture(path)
    kernels = [
        (name, array)
        for name, array in weights.arrays.items()
        if array.ndim == 4 and array.shape[2] == weights.input_shape[-1] and array.shape[0] * array.shape[1] > 1
    ]
    if not kernels:
        raise ConfigError(f"{weights.model} has no convolution of the image's {weights.input_shape[-1]} channels")
    name, kernel = min(kernels, key=lambda pair: _place(weights, pair[0]))
    tiles = [kernel[..., index] for index in range(min(kernel.shape[-1], _MOST_MAPS))]
    tiles = [tile if tile.shape[-1] == 3 else tile.mean(-1, keepdims=True) for tile in tiles]
    _draw_tiles([_stretched(tile) for tile in tiles], f"{name}: {_of(len(tiles), kernel.shape[-1])}", path)


def draw_maps(weights: Weights, image: str | Path, path: Path, *, layer: str | None = None) -> str:
    """Writes a picture of a layer's maps of an image, each with its own range; returns the layer's path.

    Raises:
        ConfigError, DataError, RunError: see `draw_attributions`.
    """
    require_picture(path)
    preparation = require_preparation(weights)
    layer = _map_layer(weights, layer, last=False)
    x = jnp.asarray(preparation.apply(read_image(image, size=None, channels=weights.input_shape[-1])))
    run = compile_with(weights.variables, lambda variables, x: layer_maps(weights.network, variables, x, layer), {})
    maps = np.asarray(run(x))
    tiles = [_stretched(maps[..., index : index + 1]) for index in range(min(maps.shape[-1], _MOST_MAPS))]
    _draw_tiles(tiles, f"{layer}: {_of(len(tiles), maps.shape[-1])} of {maps.shape[0]}x{maps.shape[1]}", path)
    return layer


def _map_layer(weights: Weights, asked: str | None, *, last: bool) -> str:
    """The layer that is asked for, else the first or the last whose positions still tell where something is."""
    shapes = output_shapes(weights.network.clone(lowering="native"), weights.variables, weights.input_shape)
    layers = map_layers(weights.network, weights.variables, weights.input_shape)
    if asked is None:
        return layers[-1 if last else 0]
    if asked in shapes and len(shapes[asked]) != 3:
        raise ConfigError(
            f"layer '{asked}': its output has no positions, expected a layer of maps such as {layers[-1]}"
        )
    return asked


def _place(weights: Weights, name: str) -> int:
    layers = map_layers(weights.network, weights.variables, weights.input_shape)
    module = name.removeprefix("params/").rpartition("/")[0]
    return layers.index(module) if module in layers else len(layers)


def _of(shown: int, whole: int) -> str:
    return f"{whole} channels" if shown == whole else f"the first {shown} of {whole} channels"


def _class_index(weights: Weights, asked: str) -> int:
    if asked in weights.labels:
        return weights.labels.index(asked)
    classes = weights.network.num_classes
    if asked.isascii() and asked.isdigit() and int(asked) < classes:
        return int(asked)
    known = weights.labels or (f"0 to {classes - 1}",)
    raise ConfigError(f"--class '{asked}': no such class; {did_you_mean(asked, known)}")


def _stretched(tile: np.ndarray) -> np.ndarray:
    low, high = float(tile.min()), float(tile.max())
    return (tile - low) / (high - low) if high > low else np.zeros_like(tile)


def _strength(attribution: np.ndarray) -> np.ndarray:
    """(height, width) from 0 to 1: the largest of the channels, the strongest hundredth all at 1."""
    strength = np.abs(attribution).max(-1) if attribution.ndim == 3 else attribution
    top = np.percentile(strength, 99)
    return np.clip(strength / top, 0, 1) if top > 0 else np.zeros_like(strength)


def _draw_rows(rows: Sequence[tuple[Any, ...]], path: Path) -> None:
    figure, panels = new_figure(1.9 * len(_TITLES) + 0.6, 1.9 * len(rows) + 0.6, len(rows), len(_TITLES))
    for axes, title in zip(panels[0], _TITLES, strict=True):
        axes.set_title(title, fontsize=9)
    for line, (pixels, label, cam, *others) in zip(panels, rows, strict=True):
        # The maps are of the image's size, or as small as a layer's.
        extent = (-0.5, pixels.shape[1] - 0.5, pixels.shape[0] - 0.5, -0.5)
        for axes in line[:2]:
            show_image(axes, pixels)
        line[1].imshow(_strength(cam), cmap="viridis", alpha=0.55, extent=extent, interpolation="bilinear")
        for axes, attribution in zip(line[2:], others, strict=True):
            axes.imshow(_strength(attribution), cmap="viridis", extent=extent)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(as_written(label), fontsize=8)
    save_picture(figure, path)


def _draw_tiles(tiles: Sequence[np.ndarray], title: str, path: Path) -> None:
    columns = min(8, len(tiles))
    lines = -(-len(tiles) // columns)
    figure, panels = new_figure(0.9 * columns + 0.6, 0.9 * lines + 0.6, lines, columns)
    for axes in panels.flat[len(tiles) :]:
        axes.set_axis_off()
    for axes, tile in zip(panels.flat, tiles, strict=False):
        show_image(axes, tile)
    figure.suptitle(title, fontsize=9)
    save_picture(figure, path)
