"""Two thousand image files of all kinds, cut from real photographs, and what each should look like."""

import importlib.util
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images
from upright import UPRIGHT

LAID = {**UPRIGHT, 6: UPRIGHT[8], 8: UPRIGHT[6]}
LUMA = np.array([0.299, 0.587, 0.114])

Save = Callable[[np.ndarray, Path], np.ndarray]
"""Saves (height, width, 3) uint8 and returns the picture to be seen, exactly or nearly."""


def saved(mode: str, ending: str, **options) -> tuple[str, Save]:
    """As a picture of that mode, which Pillow turns the colours into."""

    def save(crop: np.ndarray, path: Path) -> np.ndarray:
        Image.fromarray(crop).convert(mode).save(path, **options)
        return grey(crop) if mode == "L" else crop

    return ending, save


def turned(orientation: int, ending: str, **options) -> tuple[str, Save]:
    """Laid so that it is to be turned before it is seen."""

    def save(crop: np.ndarray, path: Path) -> np.ndarray:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(LAID[orientation](crop))).save(path, exif=exif, **options)
        return crop

    return ending, save


def see_through(mode: str, ending: str, **options) -> tuple[str, Save]:
    """Opaque, half transparent and transparent from top to bottom."""

    def save(crop: np.ndarray, path: Path) -> np.ndarray:
        alpha = np.repeat([255, 128, 0], -(-len(crop) // 3))[: len(crop), None].astype(np.uint8)
        alpha = np.broadcast_to(alpha, crop.shape[:2])
        shown = grey(crop) if mode == "LA" else crop
        planes = shown[..., :1] if mode == "LA" else shown
        Image.fromarray(np.concatenate([planes, alpha[..., None]], -1)).save(path, **options)
        return np.rint(shown * (alpha[..., None] / 255)).astype(np.uint8)

    return ending, save


def deep(ending: str, **options) -> tuple[str, Save]:
    """16-bit grey over the full range."""

    def save(crop: np.ndarray, path: Path) -> np.ndarray:
        Image.fromarray(grey(crop)[..., 0].astype(np.uint16) * 257).save(path, **options)
        return grey(crop)

    return ending, save


def palette(transparent: str, ending: str = "png", **options) -> tuple[str, Save]:
    """64 colours, of which one is transparent, or each a little."""

    def save(crop: np.ndarray, path: Path) -> np.ndarray:
        image = Image.fromarray(crop).quantize(64)
        shown = np.asarray(image.convert("RGB")).astype(float)
        alpha = np.full(64, 255)
        if transparent == "one":
            alpha[np.asarray(image)[0, 0]] = 0
            options["transparency"] = int(np.asarray(image)[0, 0])
        elif transparent == "each":
            alpha = np.linspace(60, 255, 64).astype(int)
            options["transparency"] = bytes(alpha.tolist())
        image.save(path, **options)
        return np.rint(shown * alpha[np.asarray(image)][..., None] / 255).astype(np.uint8)

    return ending, save


def bits(ending: str, **options) -> tuple[str, Save]:
    """Black or white."""

    def save(crop: np.ndarray, path: Path) -> np.ndarray:
        white = grey(crop)[..., 0] > 110
        Image.fromarray(white).save(path, **options)
        return np.repeat(white[..., None], 3, -1).astype(np.uint8) * 255

    return ending, save


def key_colour(crop: np.ndarray, path: Path) -> np.ndarray:
    """A PNG without an alpha channel, one colour of which is transparent."""
    colour = crop[0, 0]
    Image.fromarray(crop).save(path, transparency=tuple(map(int, colour)))
    return np.where((crop == colour).all(-1, keepdims=True), 0, crop).astype(np.uint8)


def grey(crop: np.ndarray) -> np.ndarray:
    """ITU-R 601 luma in all three channels."""
    return np.repeat(np.rint(crop @ LUMA).astype(np.uint8)[..., None], 3, -1)


KINDS: dict[str, tuple[str, Save]] = {
    "jpeg": saved("RGB", "jpg", quality=92),
    "progressive": saved("RGB", "jpeg", quality=92, progressive=True),
    "subsampled": saved("RGB", "JPG", quality=85, subsampling=2),
    "grey_jpeg": saved("L", "jpg", quality=92),
    "cmyk_jpeg": saved("CMYK", "jpg", quality=95),
    **{f"turned_{number}": turned(number, "jpg", quality=92) for number in UPRIGHT},
    "turned_png": turned(6, "png"),
    "turned_webp": turned(8, "webp", lossless=True, method=0),
    "turned_tiff": turned(5, "tif"),
    "png": saved("RGB", "png"),
    "grey_png": saved("L", "PNG"),
    "palette": palette("none"),
    "palette_gif": palette("none", "gif"),
    "palette_bmp": palette("none", "bmp"),
    "palette_with_a_hole": palette("one"),
    "palette_with_alphas": palette("each"),
    "rgba": see_through("RGBA", "png"),
    "la": see_through("LA", "png"),
    "rgba_webp": see_through("RGBA", "webp", lossless=True, exact=True, method=0),
    "rgba_tiff": see_through("RGBA", "tiff"),
    "key_colour": ("png", key_colour),
    "bits_png": bits("png"),
    "bits_tiff": bits("tif", compression="group4"),
    "bits_bmp": bits("bmp"),
    "deep_png": deep("png"),
    "deep_tiff": deep("tif"),
    "webp": saved("RGB", "webp", quality=92, method=0),
    "lossless_webp": saved("RGB", "webp", lossless=True, method=0),
    "bmp": saved("RGB", "bmp"),
    "grey_bmp": saved("L", "bmp"),
    "tiff": saved("RGB", "tif"),
    "lzw_tiff": saved("RGB", "tiff", compression="tiff_lzw"),
    "cmyk_tiff": saved("CMYK", "tif"),
    "grey_tiff": saved("L", "tif", compression="tiff_adobe_deflate"),
}


def photographs() -> dict[str, np.ndarray]:
    """(height, width, 3) uint8: scikit-learn's two, and of scikit-image's, if it is installed, three."""
    found = dict(zip(("temple", "flower"), load_sample_images().images, strict=True))
    package = importlib.util.find_spec("skimage")
    if package is not None and package.origin is not None:
        for name in ("chelsea", "coffee", "astronaut"):
            path = Path(package.origin).parent / "data" / f"{name}.png"
            if path.exists():
                found[name] = np.asarray(Image.open(path).convert("RGB"))
    return found


def write_photographs(folder: Path, count: int) -> dict[Path, np.ndarray]:
    """Writes so many files, a folder for each photograph, their sizes and kinds in turn; returns what is to be seen."""
    random, sources = np.random.default_rng(0), photographs()
    for name in sources:
        (folder / name).mkdir(parents=True)
    shown = {}
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        name = list(sources)[number // len(KINDS) % len(sources)]
        photograph, (ending, save) = sources[name], KINDS[kind]
        height, width = random.integers(40, 140, 2)
        top, left = (int(random.integers(0, side - part)) for side, part in zip(photograph.shape, (height, width)))  # noqa: B905
        path = folder / name / f"{number}-{kind}.{ending}"
        shown[path] = save(photograph[top : top + height, left : left + width], path)
    return shown


def write_broken(folder: Path) -> dict[Path, str]:
    """Five files that cannot be read, and what is to be said of each."""
    stream = io.BytesIO()
    Image.fromarray(load_sample_images().images[0][:100, :100]).save(stream, "JPEG")
    size = struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    contents = {
        "empty.png": (b"", "is empty"),
        "cut.jpg": (stream.getvalue()[: stream.tell() // 2], "is damaged"),
        "letter.jpg": (b"Dear reader,\nthis is no picture.\n", "is not an image in a format that Pillow reads"),
        "bomb.png": (bomb, "claims more than"),
    }
    said = {}
    for name, (content, sentence) in contents.items():
        (folder / name).write_bytes(content)
        said[folder / name] = sentence
    (folder / "gone.webp").symlink_to(folder / "nowhere.webp")
    (folder / "folder.png").mkdir()  # holds no image, and is none
    return {**said, folder / "gone.webp": "cannot be read: No such file or directory"}


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
