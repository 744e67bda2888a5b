"""Examples that are image files, read when they are asked for."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from cnnjax.data.examples import ArrayExamples, Examples, Read, require_labels
from cnnjax.data.images import Fit, read_image, read_mask, upright_size
from cnnjax.errors import CnnjaxWarning, DataError


@dataclass(frozen=True, eq=False)
class FileExamples:
    """Image files with a class each, or with a file of classes for their pixels."""

    paths: Sequence[str]
    labels: np.ndarray | Sequence[str]
    """(N,) int32, or the masks' paths."""
    classes: int
    size: int
    """Height and width of every image."""
    channels: int
    fit: Fit
    skip_broken: bool
    scaled_decoding: bool
    _named: set[str] = field(default_factory=set, repr=False)
    """Broken files that a warning has named."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.size, self.size, self.channels

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

    def read(self, indices: np.ndarray) -> Read:
        """The files with these numbers, in this order; DataError for a broken one, unless those are skipped."""
        return self._read(indices, self._image, self.image_shape)

    def read_as(
        self, indices: np.ndarray, fit: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int, int]
    ) -> Read:
        """The same, but each picture, (own height, own width, channels) uint8, is brought to `shape` by `fit`."""
        return self._read(
            indices, lambda index: fit(read_image(self.paths[index], size=None, channels=self.channels)), shape
        )

    def _read(self, indices: np.ndarray, image: Callable[[int], np.ndarray], shape: tuple[int, int, int]) -> Read:
        images = np.zeros((len(indices), *shape), np.uint8)
        labels = np.zeros((len(indices), *self.label_shape), np.int32)
        mask = np.ones(len(indices), np.float32)

        def read_one(place: int) -> None:
            index = int(indices[place])
            try:
                label = self._label(index)
                images[place] = image(index)
                labels[place] = label
            except DataError as error:
                if not self.skip_broken:
                    raise
                mask[place] = 0
                if self.paths[index] not in self._named:
                    self._named.add(self.paths[index])
                    warnings.warn(f"{error}; it is left out", CnnjaxWarning, stacklevel=2)

        in_threads(read_one, range(len(indices)))
        return Read(images, labels, mask)

    def _image(self, index: int) -> np.ndarray:
        return read_image(
            self.paths[index], size=self.size, channels=self.channels, fit=self.fit,
            scaled_decoding=self.scaled_decoding,
        )  # fmt: skip

    def _label(self, index: int) -> int | np.ndarray:
        if isinstance(self.labels, np.ndarray):
            return int(self.labels[index])
        path = self.labels[index]
        sizes = [upright_size(each) for each in (self.paths[index], path)]
        if sizes[0] != sizes[1]:
            image, mask = (f"{height}x{width}" for height, width in sizes)
            raise DataError(f"'{path}' is {mask}, expected the size of its image '{self.paths[index]}', {image}")
        return require_labels(read_mask(path, size=self.size, fit=self.fit), self.classes, f"'{path}'")


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


def in_memory(examples: FileExamples) -> Examples:
    """The same examples, read now; without those that are broken where they are skipped."""
    read = examples.read(np.arange(len(examples)))
    good = read.mask > 0
    if not good.any():
        replace(examples, skip_broken=False).read(np.arange(1))  # raises what is wrong with the first of them
    return ArrayExamples(read.images[good], read.labels[good])
