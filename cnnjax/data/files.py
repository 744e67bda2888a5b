"""Examples that are image files, wherever those are kept, read when they are asked for."""

import multiprocessing
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from cnnjax.data.crops import Crop
from cnnjax.data.examples import ArrayExamples, Datasets, Examples, Read, require_labels
from cnnjax.data.image_files import File, name_of, read_image, read_mask, read_pixels, upright_size
from cnnjax.data.images import Fit, Size, height_and_width
from cnnjax.errors import CnnjaxWarning, DataError


@dataclass(frozen=True)
class Decoding:
    """How image files become inputs of one size; see `read_image`."""

    size: Size
    """Height and width of every image; one number for both."""
    channels: int
    fit: Fit = "resize"
    shorter_side: int | None = None
    scaled_decoding: bool = False
    skip_broken: bool = False
    """Whether a file that cannot be read is left out, or an error."""
    prepare: Callable[[np.ndarray], np.ndarray] | None = None
    """What brings an image, (any height, any width, channels) uint8, to `size` in place of all this."""

    def image(self, file: File, crop: Crop | None) -> np.ndarray:
        """(height, width, channels) uint8."""
        if self.prepare is not None:
            return self.prepare(read_image(file, size=None, channels=self.channels))
        return read_image(
            file, size=self.size, channels=self.channels, fit=self.fit, shorter_side=self.shorter_side,
            scaled_decoding=self.scaled_decoding, crop=crop,
        )  # fmt: skip

    def pixels(self, pixels: np.ndarray, name: str, crop: Crop | None) -> np.ndarray:
        """The same of an image that is an array, which messages call by `name`."""
        if self.prepare is not None:
            return self.prepare(read_pixels(pixels, name, size=None, channels=self.channels))
        return read_pixels(
            pixels, name, size=self.size, channels=self.channels, fit=self.fit, shorter_side=self.shorter_side,
            crop=crop,
        )  # fmt: skip

    def mask(self, file: File, image: File, classes: int, crop: Crop | None) -> np.ndarray:
        """(height, width) int32, the classes of the pixels of an image."""
        sizes = [upright_size(each) for each in (image, file)]
        if sizes[0] != sizes[1]:
            expected, own = (f"{height}x{width}" for height, width in sizes)
            raise DataError(f"{name_of(file)} is {own}, expected the size of its image {name_of(image)}, {expected}")
        mask = read_mask(file, size=self.size, fit=self.fit, shorter_side=self.shorter_side, crop=crop)
        return require_labels(mask, classes, name_of(file))


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodedExamples(ABC):
    """Images that are decoded one by one; a kind of place they come from says how to get the one with a number."""

    classes: int
    decoding: Decoding
    _told: set[str] = field(default_factory=set, repr=False)
    """What warnings have said of broken files."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return *height_and_width(self.decoding.size), self.decoding.channels

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
    def _load(self, index: int, crop: Crop | None) -> tuple[np.ndarray, int | np.ndarray]:
        """The image with this number and its label; DataError where it cannot be read."""

    def read(self, indices: np.ndarray, crops: Sequence[Crop] | None = None) -> Read:
        """The files with these numbers, in this order; DataError for a broken one, unless those are skipped."""
        images = np.zeros((len(indices), *self.image_shape), np.uint8)
        labels = np.zeros((len(indices), *self.label_shape), np.int32)
        mask = np.ones(len(indices), np.float32)

        def read_one(place: int) -> None:
            try:
                images[place], labels[place] = self._load(int(indices[place]), None if crops is None else crops[place])
            except DataError as error:
                if not self.decoding.skip_broken:
                    raise
                mask[place] = 0
                if str(error) not in self._told:
                    self._told.add(str(error))
                    warnings.warn(f"{error}; it is left out", CnnjaxWarning, stacklevel=2)

        in_threads(read_one, range(len(indices)))
        return Read(images, labels, mask)


@dataclass(frozen=True, eq=False)
class FileExamples(DecodedExamples):
    """Image files with a class each, or with a file of classes for their pixels."""

    paths: Sequence[str]
    labels: np.ndarray | Sequence[str]
    """(N,) int32, or the masks' paths."""

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one example's label: () or (height, width)."""
        return () if isinstance(self.labels, np.ndarray) else self.image_shape[:2]

    @property
    def image_labels(self) -> np.ndarray | None:
        """(N,) int32, every example's class; None where each pixel has one."""
        return self.labels if isinstance(self.labels, np.ndarray) else None

    def __len__(self) -> int:
        return len(self.paths)

    def _load(self, index: int, crop: Crop | None) -> tuple[np.ndarray, int | np.ndarray]:
        path = self.paths[index]
        if isinstance(self.labels, np.ndarray):
            return self.decoding.image(path, crop), int(self.labels[index])
        # Before the image, whose size it checks.
        mask = self.decoding.mask(self.labels[index], path, self.classes, crop)
        return self.decoding.image(path, crop), mask


def in_threads(function: Callable[[int], None], items: Sequence[int]) -> None:
    """Calls a function that mostly waits or decodes for each item; raises what the first item in order raised."""
    workers = min(len(items), _threads())
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


def _threads() -> int:
    """As many as there are cores for this process; one in a process that has siblings to read beside it."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_memory(examples: DecodedExamples) -> Examples:
    """The same examples, read now; without those that are broken where they are skipped."""
    read = examples.read(np.arange(len(examples)))
    good = read.mask > 0
    if not good.any():
        strict = replace(examples.decoding, skip_broken=False)
        replace(examples, decoding=strict).read(np.arange(1))  # raises what is wrong with the first of them
    return ArrayExamples(read.images[good], read.labels[good])


def as_datasets(
    train: DecodedExamples, test: DecodedExamples, class_names: tuple[str, ...], *, read_now: bool
) -> Datasets:
    """The two sets, read now or when they are asked for."""
    if read_now:
        return Datasets(in_memory(train), in_memory(test), class_names)
    return Datasets(train, test, class_names)
