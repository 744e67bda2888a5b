"""A trained run's opinion of single images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from cnnjax.data.images import read_image
from cnnjax.errors import ConfigError, DataError
from cnnjax.train.evaluation import load_state
from cnnjax.train.run_folder import read_config, read_facts
from cnnjax.train.step import normalize
from cnnjax.train.step import predict as apply_network
from cnnjax.train.task import make_task


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, the likeliest first."""

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    """Softmax of the logits."""


def predict(
    run_dir: str | Path,
    images: Sequence[str | Path | np.ndarray],
    *,
    top: int = 3,
    checkpoint: str | int = "last",
    invert: bool = False,
) -> list[Prediction]:
    """Classifies images with a run's weights (their moving average, where the run keeps one).

    Args:
        images: picture files of any size, mode and orientation, or uint8 arrays (height, width, channels) that have
            the network's input shape already.
        top: how many classes to return for each image.
        checkpoint: "last", "best" or a step.
        invert: swap black and white, for dark ink on a light ground where the training data is the other way round.
    """
    if top < 1:
        raise ConfigError(f"top: expected at least 1, got {top}")
    path = Path(run_dir)
    config, facts = read_config(path), read_facts(path)
    task = make_task(config, facts)
    pixels = np.stack([_pixels(image, facts.input_shape, config.data.fit) for image in images])
    if invert:
        pixels = 255 - pixels
    state = load_state(path, task, checkpoint)
    weights = state.ema if state.ema is not None else {"params": state.params, "batch_stats": state.batch_stats}

    @jax.jit
    def probabilities(batch: jax.Array) -> jax.Array:
        inputs = normalize(batch, config.data.mean, config.data.std)
        return jax.nn.softmax(apply_network(task.network, weights["params"], weights["batch_stats"], inputs).logits)

    predictions = []
    for image, row in zip(images, np.asarray(probabilities(pixels)), strict=True):
        order = np.argsort(-row, kind="stable")[:top]
        name = "array" if isinstance(image, np.ndarray) else str(image)
        classes = tuple(_name(facts.class_names, index) for index in order)
        predictions.append(Prediction(name, classes, tuple(float(row[index]) for index in order)))
    return predictions


def _pixels(image: str | Path | np.ndarray, shape: tuple[int, int, int], fit: Literal["pad", "resize"]) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return read_image(image, size=shape[:2], channels=shape[2], fit=fit)
    if image.shape != shape or image.dtype != np.uint8:
        raise DataError(f"expected a uint8 array of shape {shape}, got {image.dtype} of shape {image.shape}")
    return image


def _name(names: tuple[str, ...], index: int) -> str:
    # A network may have more outputs than the data has classes.
    return names[index] if index < len(names) else f"class {index}"
