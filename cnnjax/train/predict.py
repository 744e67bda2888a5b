"""What a network says of single images: a trained run's, or one whose weights came from elsewhere."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnjax.analysis.layer_outputs import Variables
from cnnjax.data.image_files import read_image
from cnnjax.errors import ConfigError, DataError, WeightsError
from cnnjax.ops.onednn import CompilerOptions
from cnnjax.train.masks import NO_CLASS, Mask, place_back
from cnnjax.train.run_weights import run_weights
from cnnjax.weights.bundle import Weights, load_weights
from cnnjax.weights.preprocessing import Preprocessing


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, the likeliest first."""

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    """Softmax of the logits."""


def predict(
    source: str | Path | Weights,
    images: Sequence[str | Path | np.ndarray],
    *,
    top: int = 3,
    checkpoint: str | int = "last",
    invert: bool = False,
) -> list[Prediction]:
    """Classifies images.

    Args:
        source: a run folder, whose weights are taken (their moving average, where the run keeps one), a file that
            `cnnjax weights import` or `export` wrote, or what `load_weights` made of it.
        images: picture files of any size, mode and orientation, or uint8 arrays (height, width, channels) of any size.
        top: how many classes to return for each image.
        checkpoint: of a run: "last", "best" or a step.
        invert: swap black and white, for dark ink on a light ground where the training data is the other way round.

    Raises:
        ConfigError: the network gives each pixel a class, not the image.
    """
    if top < 1:
        raise ConfigError(f"top: expected at least 1, got {top}")
    weights = find_weights(source, checkpoint)
    if weights.network.labels_pixels:
        raise ConfigError(f"{weights.model} gives each pixel a class, not the image; predict_masks finds them")
    preparation = require_preparation(weights)
    inputs = np.stack([preparation.apply(pixels) for pixels in _pixels(images, weights, invert)])
    logits = _logits(weights)
    probabilities = np.asarray(jax.nn.softmax(logits(inputs)))
    predictions = []
    for image, row in zip(images, probabilities, strict=True):
        order = np.argsort(-row, kind="stable")[:top]
        classes = tuple(class_name(weights.labels, index) for index in order)
        predictions.append(Prediction(_title(image), classes, tuple(float(row[index]) for index in order)))
    return predictions


def predict_masks(
    source: str | Path | Weights,
    images: Sequence[str | Path | np.ndarray],
    *,
    checkpoint: str | int = "last",
    invert: bool = False,
) -> list[Mask]:
    """Finds the class of each pixel of images, with a network that gives each pixel one.

    An image is prepared as the training data was, and the mask is brought back to the image's own size, each pixel with
    the class of the nearest one that the network saw.

    Args:
        source, images, checkpoint, invert: as in `predict`.

    Raises:
        ConfigError: the network gives each image one class, or has more classes than a mask can hold.
    """
    weights = find_weights(source, checkpoint)
    if not weights.network.labels_pixels:
        raise ConfigError(f"{weights.model} gives the image a class, not each pixel; predict finds it")
    count = weights.network.num_classes
    if count > NO_CLASS:
        raise ConfigError(f"a mask holds {NO_CLASS} classes at most; {weights.model} has {count}")
    preparation, logits = require_preparation(weights), _logits(weights)
    names = tuple(class_name(weights.labels, index) for index in range(count))
    masks = []
    for image, pixels in zip(images, _pixels(images, weights, invert), strict=True):
        # One at a time: segmentation networks see large images, and keep large maps.
        found = np.asarray(logits(preparation.apply(pixels)[None]))[0].argmax(-1).astype(np.uint8)
        masks.append(Mask(_title(image), place_back(found, pixels.shape[:2], preparation), names))
    return masks


def find_weights(source: str | Path | Weights, checkpoint: str | int = "last") -> Weights:
    """The weights of a run folder or of a file of weights; weights are themselves."""
    is_run = not isinstance(source, Weights) and Path(source).suffix != ".safetensors"
    if checkpoint != "last" and not is_run:
        raise ConfigError("a file of weights has no checkpoints to choose from")
    if isinstance(source, Weights):
        return source
    return run_weights(source, checkpoint) if is_run else load_weights(source)


def require_preparation(weights: Weights) -> Preprocessing:
    """How images are prepared for these weights; WeightsError where nobody said."""
    if weights.preprocessing is None:
        raise WeightsError(
            f"the weights ({weights.origin}) do not say how images are prepared; import them again with --prepared-as"
        )
    return weights.preprocessing


def compile_with(variables: Any, function: Callable[..., Any], options: CompilerOptions) -> Callable[..., Any]:
    """A function of variables and more, compiled, and called without them: they lie on the device.

    They are arguments of the program. As its constants they would make it several times as slow to compile.
    """
    return functools.partial(jax.jit(function, compiler_options=options), jax.device_put(variables))


def _logits(weights: Weights) -> Callable[[np.ndarray], jax.Array]:
    network, options = weights.network.on(jax.default_backend())

    def logits(variables: Variables, batch: jax.Array) -> jax.Array:
        return network.apply(variables, batch, train=False).logits  # type: ignore[union-attr]

    return compile_with(weights.variables, logits, options)


def _pixels(images: Sequence[str | Path | np.ndarray], weights: Weights, invert: bool) -> Iterator[np.ndarray]:
    """(height, width, channels) uint8 of each image."""
    channels = weights.input_shape[-1]
    for image in images:
        if not isinstance(image, np.ndarray):
            pixels = read_image(image, size=None, channels=channels)
        elif image.ndim == 3 and image.shape[-1] == channels and image.dtype == np.uint8:
            pixels = image
        else:
            came = f"{image.dtype} of shape {image.shape}"
            raise DataError(f"expected a uint8 array (height, width, {channels}), got {came}")
        yield 255 - pixels if invert else pixels


def _title(image: str | Path | np.ndarray) -> str:
    return "array" if isinstance(image, np.ndarray) else str(image)


def class_name(names: tuple[str, ...], index: int) -> str:
    """A class's name, or its number where it has none."""
    # A network may have more outputs than the data has classes.
    return names[index] if index < len(names) else f"class {index}"
