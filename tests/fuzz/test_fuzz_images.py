"""Image files that are damaged in any way are refused in a sentence, or seen as Pillow sees these very bytes."""

import io
import os
import random
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from campaign import QUICK, THOROUGH, refused, run
from mutations import mutate_bytes
from PIL import Image, ImageOps
from upright import carefully

from cnnjax.data.files import Decoding, FileExamples
from cnnjax.data.image_files import read_image, read_mask
from cnnjax.errors import CnnjaxWarning, DataError

MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "GIF": ("P", "L"),
    "BMP": ("RGB", "L", "P", "1"),
    "TIFF": ("RGB", "RGBA", "L", "CMYK", "I;16", "F", "1", "P"),
    "WEBP": ("RGB", "RGBA"),
}
OPTIONS: dict[str, tuple[dict, ...]] = {
    "JPEG": ({}, {"progressive": True}, {"quality": 30, "subsampling": 2}),
    "PNG": ({}, {"optimize": True}),
    "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "packbits"}),
    "WEBP": ({}, {"lossless": True}),
}
# The modes of pixels that `carefully` knows.
DEFINED = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I;16B")
# Pillow's own limit, in small: what claims more is refused before anything is decoded.
PIXELS = 200_000


def samples() -> Iterator[bytes]:
    """One file of each format, kind of pixels and way of packing, some turned by their EXIF orientation."""
    number = 0
    for kind, modes in MODES.items():
        for mode in modes:
            for options in OPTIONS.get(kind, ({},)):
                number += 1
                height, width = 10 + number % 9, 26 - number % 7
                rows = np.random.default_rng(number).integers(0, 256, (height // 3 + 1, width // 3 + 1, 3), np.uint8)
                picture = Image.fromarray(rows.repeat(3, 0).repeat(3, 1)[:height, :width])
                if mode == "I;16":
                    picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
                elif mode == "F":
                    picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.float32) / 255)
                else:
                    picture = picture.convert("RGBA").convert(mode) if mode in ("RGBA", "LA") else picture.convert(mode)
                exif = Image.Exif()
                exif[0x0112] = number % 9
                turned = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") and number % 2 else {}
                stream = io.BytesIO()
                picture.save(stream, kind, **options, **turned)
                yield stream.getvalue()


SAMPLES = list(samples())


@pytest.fixture(autouse=True)
def _few_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PIXELS)


@pytest.mark.parametrize("total", [QUICK, pytest.param(THOROUGH, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_mutated_image_files(total, tmp_path):
    def mutation(random: random.Random) -> str:
        path = tmp_path / random.choice(("picture.png", "picture.jpg", "picture"))
        path.write_bytes(mutate_bytes(random, random.choice(SAMPLES)))
        with _silence():
            return _judged(random, path)

    run("images", total, mutation)


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing is to be written to standard error but by libtiff, which tells of damage there before Pillow does."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
        file.seek(0)
        told = file.read().decode()
        assert not any(word in told for word in ("Warning", "Error:", "Exception", ".py")), told


def _judged(random: random.Random, path: Path) -> str:
    expected = _seen(path)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        try:
            colours = read_image(path, size=None, channels=3)
            grey = read_image(path, size=None, channels=1)
        except DataError as error:
            outcome = refused(error, str(path))
            _assert_counted_as_broken(path)
            return outcome if expected is None else f"{outcome}, although Pillow reads it"
        _assert_other_ways_end_well(random, path)
        small = read_image(path, size=8, channels=3)
    assert expected is not None, "read what Pillow does not"
    assert colours.shape == expected.shape
    assert np.abs(colours.astype(int) - expected).max() <= 1
    luma = np.asarray(Image.fromarray(colours).convert("L"))
    assert np.abs(grey[..., 0].astype(int) - luma).max() <= 1
    across = Image.fromarray(colours).resize((8, len(colours)), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(small, np.asarray(across.resize((8, 8), Image.Resampling.BILINEAR)))
    return "read"


def _seen(path: Path) -> np.ndarray | None:
    """(height, width, 3) by Pillow; None where it cannot be decoded, or claims more than it may."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(path.read_bytes())) as image:
                if image.width * image.height > PIXELS:
                    return None
                image.load()
                if image.mode in DEFINED:
                    return carefully(io.BytesIO(path.read_bytes()))
                ImageOps.exif_transpose(image, in_place=True)
                if image.mode == "F" or image.mode.startswith("I"):
                    return _light(np.asarray(image).astype(float), image.mode)
                if image.has_transparency_data:
                    rgba = image.convert("RGBA")
                    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba))[..., :3]
                return np.asarray(image.convert("RGB"))
        except Exception:  # Pillow's decoders raise anything.
            return None


def _light(values: np.ndarray, mode: str) -> np.ndarray | None:
    """Grey of more than eight bits as colours; None where some is darker than black or brighter than white."""
    white = 65535 if mode != "F" else 255 if values.max() > 1 else 1
    inside = np.isfinite(values).all() and values.min() >= 0 and values.max() <= white
    return np.repeat(np.rint(values[..., None] * (255 / white)), 3, -1).astype(np.uint8) if inside else None


def _assert_counted_as_broken(path: Path) -> None:
    decoding = Decoding(8, 3, skip_broken=True)
    examples = FileExamples(classes=2, decoding=decoding, paths=[str(path)], labels=np.zeros(1, np.int32))
    with pytest.warns(CnnjaxWarning, match="it is left out"):
        read = examples.read(np.arange(1))
    assert not read.mask.any()
    assert not read.images.any()


def _assert_other_ways_end_well(random: random.Random, path: Path) -> None:
    scaled = read_image(path, size=4, channels=random.choice((1, 3)), fit="crop", scaled_decoding=True)
    assert scaled.shape[:2] == (4, 4)
    try:
        assert read_mask(path, size=8).shape == (8, 8)
    except DataError as error:
        refused(error, str(path))
