"""The class of every pixel of a picture, at the picture's own size, from what a network says of it at its input's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnjax.data.image_files import write_palette_image
from cnnjax.errors import ConfigError
from cnnjax.weights.preprocessing import Preprocessing

# In a file of 8 bits a pixel, the last value; the PASCAL VOC data set uses it in the same way.
NO_CLASS = 255


@dataclass(frozen=True, eq=False)
class Mask:
    """The class of each pixel of one image."""

    image: str
    classes: np.ndarray
    """(height, width) uint8, the image's own size: indices into `names`; NO_CLASS where the network says nothing."""
    names: tuple[str, ...]
    """Of all classes that the network has."""

    @property
    def shares(self) -> dict[str, float]:
        """For each class that was found, the most frequent first, its share of all the image's pixels."""
        counts = np.bincount(self.classes.ravel(), minlength=NO_CLASS + 1)[:NO_CLASS]
        order = np.argsort(-counts, kind="stable")
        return {self.names[index]: float(counts[index] / self.classes.size) for index in order if counts[index]}

    @property
    def unlabelled(self) -> float:
        """The share of the pixels that have no class: the margin that a network without padding leaves."""
        return float((self.classes == NO_CLASS).mean())


def place_back(found: np.ndarray, size: tuple[int, int], preparation: Preprocessing) -> np.ndarray:
    """The classes of a prepared image's pixels, brought to the pixels of the picture that it was made from.

    Args:
        found: (height, width) uint8 of the prepared image, or of its centre for a network without padding.
        size: height and width of the picture.
        preparation: how it became the network's input.

    Returns:
        (height, width) uint8 of the picture: each pixel has the class of the nearest one, NO_CLASS beside the centre.

    Raises:
        ConfigError: the preparation cuts parts of the picture away.
    """
    if preparation.fit == "crop":
        raise ConfigError(
            "a mask needs a preparation that stretches or pads the picture; this one cuts parts of it away"
        )
    frame = np.full(preparation.size, NO_CLASS, np.uint8)
    _centre(frame, found.shape)[:] = found
    if preparation.fit == "pad":
        scale = min(1.0, *(whole / own for whole, own in zip(preparation.size, size, strict=True)))
        frame = _centre(frame, tuple(max(1, round(side * scale)) for side in size))
    # The middle of each of the picture's pixels, and which of the frame's it lies in.
    rows, columns = (
        ((np.arange(own) + 0.5) * whole / own).astype(int) for own, whole in zip(size, frame.shape, strict=True)
    )
    return frame[rows[:, None], columns]


def mask_files(images: Sequence[str | Path], folder: Path, *, overwrite: bool) -> list[Path]:
    """The file for the mask of each image: `folder`/STEM_mask.png.

    Raises:
        ConfigError: two would be the same, or one is an image itself, or exists and may not be overwritten.
    """
    files = [folder / f"{Path(image).stem}_mask.png" for image in images]
    taken = {Path(image).resolve(): image for image in images}
    owners: dict[Path, str | Path] = {}
    for image, file in zip(images, files, strict=True):
        if file in owners:
            raise ConfigError(f"the masks of '{owners[file]}' and '{image}' would both be '{file}'; name them apart")
        if file.resolve() in taken:
            raise ConfigError(
                f"the mask of '{image}' would overwrite the image '{taken[file.resolve()]}'; choose another --out"
            )
        if file.exists() and not overwrite:
            raise ConfigError(f"'{file}' exists already; choose another --out, or give --overwrite")
        owners[file] = image
    return files


def write_mask(path: Path, mask: Mask) -> None:
    """Writes a PNG whose pixels are the classes, in the colours of the PASCAL VOC data set (0 is black).

    Raises:
        DataError: it cannot be written.
    """
    write_palette_image(path, mask.classes, _voc_colours())


def _centre(frame: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A view of the middle of a frame; an odd pixel is left over at the right and the bottom."""
    top, left = ((whole - part) // 2 for whole, part in zip(frame.shape, size, strict=True))
    return frame[top : top + size[0], left : left + size[1]]


def _voc_colours() -> np.ndarray:
    """(256, 3) uint8: red, green and blue take the index's bits in turn, the lowest as the brightest."""
    index, colours = np.arange(256), np.zeros((256, 3), int)
    for bit in range(8):
        colours[:, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return colours.astype(np.uint8)
