"""How an image file is to be seen, by Pillow's decoding and the definition of each mode alone."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

# EXIF's orientations: what turns a picture that lies so in its file upright, and what lays it so.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def carefully(file: Path | BinaryIO) -> np.ndarray:
    """(height, width, 3): decoded by Pillow, and all else by the definition of each mode; transparent parts black."""
    with Image.open(file) as image:
        pixels, info = np.asarray(image), image.info
        orientation = image.getexif().get(0x0112, 1)
        if image.mode == "P":
            colours = np.zeros((256, 3))  # what a palette lacks is black
            colours.flat[: len(image.getpalette("RGB"))] = image.getpalette("RGB")
            colours = colours[pixels]
            alphas = np.full(256, 255.0)
            hole = info.get("transparency", b"")
            alphas[[hole] if isinstance(hole, int) else range(len(hole))] = 0 if isinstance(hole, int) else list(hole)
            alpha = alphas[pixels]
        elif image.mode == "CMYK":
            ink, black = pixels[..., :3].astype(float), pixels[..., 3:].astype(float)
            colours, alpha = (255 - ink) * (255 - black) / 255, 255.0
        elif image.mode in ("RGB", "RGBA"):
            colours = pixels[..., :3].astype(float)
            key = (pixels[..., :3] != info["transparency"]).any(-1) * 255.0 if "transparency" in info else 255.0
            alpha = pixels[..., 3].astype(float) if image.mode == "RGBA" else key
        else:
            light = {"1": lambda: pixels * 255.0, "L": lambda: pixels, "LA": lambda: pixels[..., 0]}
            white = light.get(image.mode, lambda: pixels / 257.0)()
            assert image.mode in light or image.mode.startswith("I;16")
            colours = np.repeat(np.asarray(white, float)[..., None], 3, -1)
            alpha = pixels[..., 1].astype(float) if image.mode == "LA" else 255.0
    shown = np.rint(colours * np.broadcast_to(alpha, colours.shape[:2])[..., None] / 255)
    return np.ascontiguousarray(UPRIGHT.get(orientation, UPRIGHT[1])(shown)).astype(np.uint8)
