"""A data set of pictures with a bar at one of the four sides, as MNIST's files."""

import struct
from pathlib import Path

import numpy as np

SIDES = ("top", "left", "bottom", "right")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def draw_bar(side: str, height: int = 28, width: int = 28) -> np.ndarray:
    """(height, width) uint8: a white bar along a side of a black picture."""
    picture = np.zeros((height, width), np.uint8)
    if side in ("top", "bottom"):
        picture[: height // 4] = 255
    else:
        picture[:, : width // 4] = 255
    return picture[::-1] if side == "bottom" else picture[:, ::-1] if side == "right" else picture


def write_idx(path: Path, values: np.ndarray) -> None:
    """Writes unsigned bytes in the IDX format."""
    path.write_bytes(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


def write_bars(folder: Path, train: int = 64, test: int = 16) -> Path:
    """Writes the four files of noisy bars into a new folder."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for images, labels, count in ((*FILES[:2], train), (*FILES[2:], test)):
        classes = np.arange(count, dtype=np.uint8) % len(SIDES)
        clean = np.array([draw_bar(SIDES[index]) for index in classes]).reshape(count, 28, 28)
        noise = random.integers(0, 60, clean.shape, np.uint8)
        write_idx(folder / images, np.where(clean > 0, clean - noise, noise))
        write_idx(folder / labels, classes)
    return folder
