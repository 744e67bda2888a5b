"""Handwritten digits on photographs, with the class of every pixel: a small segmentation set from what is installed."""

import math
from typing import Any

import numpy as np
from PIL import Image

from cnnjax.config_data import DigitsOnPhotographsSource
from cnnjax.data.random_bits import random_stream, uniform

# Left of this share of a photograph's width lies what training sees, right of it what is held out.
_TRAINING_SHARE = 0.6
# A digit's side, as a share of its cell's.
_SMALLEST, _LARGEST = 0.7, 1.0
# How much steeper than the enlarged digit its edge is.
_STEEPNESS = 2.0
# From this opacity on, a pixel is the digit's.
_INK = 0.4
# Of the range of brightness, how much the colours of light digits span, and those of dark ones.
_COLOURS = 0.4


def draw_composites(
    source: DigitsOnPhotographsSource, digits: tuple[Any, Any]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Images (N, size, size, 3) uint8 and labels (N, size, size) int32, of the training set and of the test set.

    Args:
        digits: the training and the test digits, with `images` (N, 8, 8, 1) uint8 and `labels` (N,).
    """
    # Imported here because it takes as long as all the rest, and other sources do without.
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    cuts = [int(photograph.shape[1] * _TRAINING_SHARE) for photograph in photographs]
    train = [photograph[:, :cut] for photograph, cut in zip(photographs, cuts, strict=True)]
    test = [photograph[:, cut:] for photograph, cut in zip(photographs, cuts, strict=True)]
    return (
        _draw(source, "train", source.train_examples, train, digits[0]),
        _draw(source, "test", source.test_examples, test, digits[1]),
    )


def _draw(
    source: DigitsOnPhotographsSource, part: str, count: int, photographs: list[np.ndarray], digits: Any
) -> tuple[np.ndarray, np.ndarray]:
    size = source.image_size
    # Each digit has a cell of its own, so that none covers another.
    cells = math.ceil(math.sqrt(source.digits))
    room = size // cells
    images, labels = np.zeros((count, size, size, 3), np.uint8), np.zeros((count, size, size), np.int32)
    random = uniform(random_stream(f"composites {part}", source.source_seed), count, 3 + cells**2 + 7 * source.digits)
    for index in range(count):
        place, order, drawn = np.split(random[index], (3, 3 + cells**2))
        photograph = photographs[int(place[0] * len(photographs))]
        y, x = (int(share * (side - size + 1)) for share, side in zip(place[1:], photograph.shape, strict=False))
        image, label = photograph[y : y + size, x : x + size].astype(np.float64), labels[index]
        # There may be more cells than digits.
        for cell, (choice, scale, top, left, *shade) in zip(
            np.argsort(order), drawn.reshape(source.digits, 7), strict=False
        ):
            chosen = int(choice * len(digits.labels))
            side = int(room * (_SMALLEST + scale * (_LARGEST - _SMALLEST)))
            y, x = (
                int(corner * room + share * (room - side + 1))
                for corner, share in zip(divmod(cell, cells), (top, left), strict=True)
            )
            region = (slice(y, y + side), slice(x, x + side))
            opacity = _opacity(digits.images[chosen, ..., 0], side)[..., None]
            image[region] = image[region] * (1 - opacity) + _colour(np.asarray(shade), image[region]) * opacity
            label[region][opacity[..., 0] >= _INK] = digits.labels[chosen] + 1
        images[index] = np.rint(image).astype(np.uint8)
    return images, labels


def _opacity(digit: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float64 of 0 to 1: the digit enlarged, its edge no more blurred than need be."""
    picture = Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR)
    return np.clip((np.asarray(picture, np.float64) / 255 - _INK) * _STEEPNESS + _INK, 0, 1)


def _colour(shade: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """(3,) of 0 to 255 for random numbers (3,): each primary dark where the photograph has much of it, else light."""
    much = ground.mean((0, 1)) >= 255 / 2
    return 255 * np.where(much, _COLOURS * shade, 1 - _COLOURS * shade)
