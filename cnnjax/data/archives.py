"""NumPy's archives of arrays as examples."""

from pathlib import Path

import numpy as np

from cnnjax.config_base import expanded
from cnnjax.config_data import NpzSource
from cnnjax.data.examples import ArrayExamples, require_labels
from cnnjax.data.paths import is_special
from cnnjax.errors import DataError, first_line
from cnnjax.registry import did_you_mean

_MOST_CLASSES = 1_000_000
"""Larger labels number something else, and so many names would fill the memory."""


def load_npz(source: NpzSource) -> tuple[tuple[ArrayExamples, ArrayExamples], tuple[str, ...]]:
    """The training set, the held-out one, and the classes' names.

    Raises:
        DataError: the file is missing, damaged or no archive, lacks an array, or the arrays do not fit each other.
    """
    path = expanded(source.path)
    wanted = (source.train_images, source.train_labels, source.test_images, source.test_labels)
    arrays = _read(path, wanted)
    labels = [arrays[name] for name in (source.train_labels, source.test_labels)]
    names = source.class_names
    if names is None:
        largest = max((int(each.max()) for each in labels if each.size and each.dtype.kind in "iu"), default=0)
        if largest >= _MOST_CLASSES:
            raise DataError(
                f"'{path}' holds the label {largest}, expected classes counted from 0, {_MOST_CLASSES:,} at most"
            )
        names = tuple(str(label) for label in range(largest + 1))
    train, test = (
        _pair(path, arrays, images, labels, len(names))
        for images, labels in ((source.train_images, source.train_labels), (source.test_images, source.test_labels))
    )
    if len(train.label_shape) != len(test.label_shape):
        raise DataError(
            f"of '{source.train_labels}' and '{source.test_labels}' of '{path}' one has a label for each image and the "
            "other for each pixel"
        )
    return (train, test), names


def _read(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    if is_special(path):
        raise DataError(f"'{path}' is a pipe or a device, expected a file")
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"'{path}' holds one array, expected an archive of four, as numpy.savez writes it")
        with archive:
            for name in names:
                if name not in archive.files:
                    raise DataError(
                        f"'{path}' has no array '{name}'; {did_you_mean(name, archive.files)}; "
                        "name the four to read in data.source"
                    )
            return {name: archive[name] for name in names}
    except FileNotFoundError:
        raise DataError(f"data.source.path '{path}' does not exist; expected a file that numpy.savez wrote") from None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}") from None
    except DataError:
        raise
    except Exception as error:  # On damaged files NumPy, zipfile and zlib raise whatever their parsing meets.
        raise DataError(f"'{path}' is damaged, or no archive that numpy.savez wrote: {first_line(error)}") from error


def _pair(path: Path, arrays: dict[str, np.ndarray], images_name: str, labels_name: str, classes: int) -> ArrayExamples:
    images, labels = arrays[images_name], arrays[labels_name]
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"'{images_name}' of '{path}' is {images.dtype} with {images.ndim} dimensions, expected uint8 of "
            "(N, height, width) or (N, height, width, channels)"
        )
    images = images[..., None] if images.ndim == 3 else images
    if not images.size:
        raise DataError(f"'{images_name}' of '{path}' is empty: its shape is {arrays[images_name].shape}")
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras has CIFAR's
        labels = labels[:, 0]
    if labels.shape not in (images.shape[:1], images.shape[:3]):
        raise DataError(
            f"'{labels_name}' of '{path}' has the shape {labels.shape}, expected {images.shape[:1]}, a label for each "
            f"image of '{images_name}', or {images.shape[:3]}, one for each pixel"
        )
    return ArrayExamples(images, require_labels(labels, classes, f"'{labels_name}' of '{path}'"))
