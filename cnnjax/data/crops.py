"""Which part of an image is cut out before it is brought to its size."""

import math
from collections.abc import Callable

import numpy as np

from cnnjax.config_augment import ResizedCrop
from cnnjax.data.random_bits import random_stream, uniform

Box = tuple[int, int, int, int]
"""Top, left, height and width, in pixels."""
Crop = Callable[[int, int], Box]
"""From an image's height and width to what is cut out of it."""

_TRIES = 10


def draw_crops(config: ResizedCrop | None, *, seed: int, epoch: int, indices: np.ndarray) -> list[Crop] | None:
    """One for each of the examples with these numbers, which follows from the seed, the epoch and the number alone."""
    if config is None:
        return None
    return [_crop(config, uniform(random_stream("crop", seed, epoch, index), _TRIES, 4)) for index in indices.tolist()]


def _crop(config: ResizedCrop, draws: np.ndarray) -> Crop:
    return lambda height, width: random_box(height, width, config.area, config.aspect, draws)


def random_box(
    height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], draws: np.ndarray
) -> Box:
    """Inception's crop (Szegedy et al. 2014, arXiv:1409.4842, section 6), as torchvision's `RandomResizedCrop` has it.

    Args:
        height, width: of the image.
        area: least and largest part of the image.
        aspect: least and largest width by height, whose logarithm is uniform.
        draws: (tries, 4) from 0 to 1: area, aspect, and where it lies vertically and horizontally.

    Returns:
        That of the first try that lies within the image; without one the largest in the middle whose aspect is allowed.
    """
    low, high = (math.log(end) for end in aspect)
    for part, shape, down, right in draws.tolist():
        pixels = height * width * (area[0] + part * (area[1] - area[0]))
        ratio = math.exp(low + shape * (high - low))
        box_height, box_width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = int(down * (height - box_height + 1)), int(right * (width - box_width + 1))
            return top, left, box_height, box_width
    ratio = min(max(width / height, aspect[0]), aspect[1])
    box_height, box_width = min(height, max(1, round(width / ratio))), min(width, max(1, round(height * ratio)))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width
