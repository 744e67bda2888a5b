"""Examples that are image files, wherever those are kept, read when they are asked for."""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from cnnjax.data.examples import ArrayExamples, Datasets, Examples, Read, require_labels
from cnnjax.data.images import File, Fit, name_of, read_image, read_mask, upright_size
from cnnjax.errors import CnnjaxWarning, DataError


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodedExamples(ABC):
    """Images that are decoded one by one; a kind of place they come from says how to get the one with a number."""

    classes: int
    size: int
    """Height and width of every image."""
    channels: int
    fit: Fit
    skip_broken: bool
    scaled_decoding: bool
    _told: set[str] = field(default_factory=set, repr=False)
    """What warnings have said of broken files."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.size, self.size, self.channels

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one example's label: () or (height, width)."""
        return ()

    @property
    @abstractmethod
    def image_labels(self) -> np.ndarray | None:
        """(N,) int32, every example's class; None where each pixel has one."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _load(self, index: int) -> tuple[np.ndarray, int | np.ndarray]:
        """The image with this number and its label; DataError where it cannot be read."""

    def read(self, indices: np.ndarray) -> Read:
        """The files with these numbers, in this order; DataError for a broken one, unless those are skipped."""
        images = np.zeros((len(indices), *self.image_shape), np.uint8)
        labels = np.zeros((len(indices), *self.label_shape), np.int32)
        mask = np.ones(len(indices), np.float32)

        def read_one(place: int) -> None:
            index = int(indices[place])
            try:
                images[place], labels[place] = self._load(index)
            except DataError as error:
                if not self.skip_broken:
                    raise
                mask[place] = 0
                if str(error) not in self._told:
                    self._told.add(str(error))
                    warnings.warn(f"{error}; it is left out", CnnjaxWarning, stacklevel=2)

        in_threads(read_one, range(len(indices)))
        return Read(images, labels, mask)

    def _decode(self, file: File) -> np.ndarray:
        return read_image(
            file, size=self.size, channels=self.channels, fit=self.fit, scaled_decoding=self.scaled_decoding
        )

    def _decode_mask(self, file: File, image: File) -> np.ndarray:
        sizes = [upright_size(each) for each in (image, file)]
        if sizes[0] != sizes[1]:
            expected, own = (f"{height}x{width}" for height, width in sizes)
            raise DataError(f"{name_of(file)} is {own}, expected the size of its image {name_of(image)}, {expected}")
        return require_labels(read_mask(file, size=self.size, fit=self.fit), self.classes, name_of(file))


@dataclass(frozen=True, eq=False)
class FileExamples(DecodedExamples):
    """Image files with a class each, or with a file of classes for their pixels."""

    paths: Sequence[str]
    labels: np.ndarray | Sequence[str]
    """(N,) int32, or the masks' paths."""

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one example's label: () or (height, width)."""
        return () if isinstance(self.labels, np.ndarray) else (self.size, self.size)

    @property
    def image_labels(self) -> np.ndarray | None:
        """(N,) int32, every example's class; None where each pixel has one."""
        return self.labels if isinstance(self.labels, np.ndarray) else None

    def __len__(self) -> int:
        return len(self.paths)

    def _load(self, index: int) -> tuple[np.ndarray, int | np.ndarray]:
        path = self.paths[index]
        if isinstance(self.labels, np.ndarray):
            return self._decode(path), int(self.labels[index])
        mask = self._decode_mask(self.labels[index], path)  # before the image, whose size it checks
        return self._decode(path), mask


def in_threads(function: Callable[[int], None], items: Sequence[int]) -> None:
    """Calls a function that mostly waits or decodes for each item; raises what the first item in order raised."""
    workers = min(len(items), os.cpu_count() or 1)
    if workers < 2:
        for item in items:
            function(item)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        for future in [pool.submit(function, item) for item in items]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def in_memory(examples: DecodedExamples) -> Examples:
    """The same examples, read now; without those that are broken where they are skipped."""
    read = examples.read(np.arange(len(examples)))
    good = read.mask > 0
    if not good.any():
        replace(examples, skip_broken=False).read(np.arange(1))  # raises what is wrong with the first of them
    return ArrayExamples(read.images[good], read.labels[good])


def as_datasets(
    train: DecodedExamples, test: DecodedExamples, class_names: tuple[str, ...], *, read_now: bool
) -> Datasets:
    """The two sets, read now or when they are asked for."""
    if read_now:
        return Datasets(in_memory(train), in_memory(test), class_names)
    return Datasets(train, test, class_names)
