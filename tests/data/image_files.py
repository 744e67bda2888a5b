"""Image files of every kind for tests of sources that hold them, whatever holds the files."""

from pathlib import Path

import numpy as np
from PIL import Image


def photograph(number: int) -> Image.Image:
    """Noise of a size of its own, with edges."""
    height, width = 20 + number, 33 - number
    pixels = np.random.default_rng(number).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
    return Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)[:height, :width])


def write_photograph(path: Path, number: int) -> Path:
    """In the format of the path's ending; every third as grey, and every fifth turned by its EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = photograph(number)
    exif = Image.Exif()
    exif[0x0112] = 6 if number % 5 == 4 else 1
    (picture.convert("L") if number % 3 == 2 else picture).save(path, exif=exif)
    return path


def write_classes(folder: Path, counts: dict[str, int], endings: tuple[str, ...] = ("jpg", "png", "webp")) -> Path:
    """A sub-folder with so many photographs for each class."""
    numbers = iter(range(sum(counts.values())))
    for name, count in counts.items():
        for place in range(count):
            number = next(numbers)
            write_photograph(folder / name / f"{place:02d}.{endings[number % len(endings)]}", number)
    return folder
