"""What batches are drawn from: examples that are counted, and read by their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cnnjax.data.crops import Crop
from cnnjax.data.images import crop_image, crop_mask
from cnnjax.data.random_bits import random_stream
from cnnjax.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Read:
    """Examples as they were read."""

    images: np.ndarray
    """(n, height, width, channels) uint8."""
    labels: np.ndarray
    """(n,) int32, indices into the class names; (n, height, width) where each pixel has one."""
    mask: np.ndarray
    """(n,) float32: 1, or 0 for what could not be read, whose image and label are zeros and count nowhere."""


class Examples(Protocol):
    """A training set or a held-out set."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one example's label: () or (height, width)."""

    @property
    def image_labels(self) -> np.ndarray | None:
        """(N,) int32, every example's class; None where each pixel has one."""

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray, crops: Sequence[Crop] | None = None) -> Read:
        """The examples with these numbers, in this order.

        Args:
            crops: what is cut out of each, and stretched to its size.

        Raises:
            DataError: one must be readable and is not.
        """


@dataclass(frozen=True, eq=False)
class ArrayExamples:
    """Examples in memory; the arrays may be read-only."""

    images: np.ndarray
    """(N, height, width, channels) uint8."""
    labels: np.ndarray
    """(N,) int32, indices into the class names; (N, height, width) where each pixel has one."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one example's label: () or (height, width)."""
        shape: tuple[int, ...] = self.labels.shape[1:]
        return shape

    @property
    def image_labels(self) -> np.ndarray | None:
        """(N,) int32, every example's class; None where each pixel has one."""
        return self.labels if self.labels.ndim == 1 else None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, crops: Sequence[Crop] | None = None) -> Read:
        """The examples with these numbers, in this order."""
        images, labels = self.images[indices], self.labels[indices]
        if crops is not None:
            size = self.image_shape[:2]
            images = np.stack([crop_image(*each, size) for each in zip(images, crops, strict=True)])
            if self.label_shape:
                labels = np.stack([crop_mask(*each, size) for each in zip(labels, crops, strict=True)])
        return Read(images, labels, np.ones(len(indices), np.float32))


@dataclass(frozen=True, eq=False)
class ChosenExamples:
    """Some of others."""

    examples: Examples
    chosen: np.ndarray
    """(N,) integers, their numbers there."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.examples.image_shape

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one example's label: () or (height, width)."""
        return self.examples.label_shape

    @property
    def image_labels(self) -> np.ndarray | None:
        """(N,) int32, every example's class; None where each pixel has one."""
        labels = self.examples.image_labels
        return None if labels is None else labels[self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def read(self, indices: np.ndarray, crops: Sequence[Crop] | None = None) -> Read:
        """The examples with these numbers, in this order."""
        return self.examples.read(self.chosen[indices], crops)


def are_in_memory(examples: Examples) -> bool:
    """Whether reading them is no more than indexing."""
    while isinstance(examples, ChosenExamples):
        examples = examples.examples
    return isinstance(examples, ArrayExamples)


@dataclass(frozen=True, eq=False)
class Datasets:
    """What is trained on, what is held out, and what the labels mean."""

    train: Examples
    test: Examples
    class_names: tuple[str, ...]


def some_of_each_class(examples: Examples, count: int, seed: int) -> ChosenExamples:
    """So many of each class, a seeded choice in the order of the data set.

    Raises:
        ConfigError: a class has fewer, or each pixel has a class.
    """
    labels = examples.image_labels
    if labels is None:
        raise ConfigError("data.examples_per_class: here each pixel has a class, not each image; leave it out")
    shuffled = np.argsort(random_stream("examples of a class", seed).random_raw(len(labels)), kind="stable")
    by_class = [shuffled[labels[shuffled] == number] for number in np.unique(labels)]
    fewest = min(by_class, key=len)
    if len(fewest) < count:
        raise ConfigError(
            f"data.examples_per_class: {count}, and class {labels[fewest[0]]} (counted from 0) has {len(fewest)}; "
            "choose as many or fewer"
        )
    return ChosenExamples(examples, np.sort(np.concatenate([numbers[:count] for numbers in by_class])))


def split_by_class(labels: np.ndarray, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A seeded choice of the same part of every class.

    Args:
        labels: (N,) int.

    Returns:
        The numbers of the training examples and of the held-out ones, each in ascending order.

    Raises:
        ConfigError: one side would lack a class.
    """
    numbers, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ConfigError(
            f"class {numbers[counts.argmin()]} (counted from 0) has a single example, expected one to train on and one "
            "to hold out; add some, or name the held-out examples yourself"
        )
    # Imported here because it takes as long as all the rest, and others do without.
    from sklearn.model_selection import train_test_split

    try:
        parts = train_test_split(np.arange(len(labels)), test_size=test_fraction, random_state=seed, stratify=labels)
    except ValueError:
        parts = [np.zeros(0, int)] * 2
    # In the order of the data set, so that only the choice, not its order, rests on scikit-learn.
    train, test = (np.sort(part) for part in parts)
    if not set(labels[train]) == set(labels[test]) == set(numbers):
        raise ConfigError(
            f"data.source.test_fraction {test_fraction} of {len(labels)} examples leaves one side without an example "
            "of each class; choose a fraction nearer to 0.5, or name the held-out examples yourself"
        )
    return train, test


def require_labels(labels: np.ndarray, classes: int, where: str) -> np.ndarray:
    """The labels as int32; DataError unless they are integers from 0 to `classes` - 1."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where} holds {labels.dtype} values, expected labels as integers")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        raise DataError(
            f"{where} holds the label {labels.flat[outside[0]]} (entry {outside[0]}), expected 0 to {classes - 1}, "
            f"one for each of the {classes} data.source.class_names"
        )
    return labels.astype(np.int32)
