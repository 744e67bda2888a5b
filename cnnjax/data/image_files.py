"""Image files of any format and colour mode, read as a network's input."""

import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps

from cnnjax.data.crops import Box, Crop
from cnnjax.data.images import Fit, Size, fit_image, fit_mask, height_and_width
from cnnjax.data.paths import is_special
from cnnjax.errors import ConfigError, DataError

Result = TypeVar("Result")

_ORIENTATION = 0x0112
"""EXIF's number of it; from 5 on height and width change places."""
_JPEG = ("JPEG", "MPO")
"""What Pillow calls files of it; the second holds several pictures."""


@dataclass(frozen=True)
class Encoded:
    """What an image file holds, wherever it is kept."""

    content: bytes
    name: str
    """How messages begin that tell of it, such as `record 3 of 'pets.arrayrecord'`."""


File = str | Path | Encoded
"""An image file: its path, or what it holds."""


def read_image(
    file: File,
    *,
    size: Size | None,
    channels: int,
    fit: Fit = "resize",
    shorter_side: int | None = None,
    scaled_decoding: bool = False,
    crop: Crop | None = None,
) -> np.ndarray:
    """Reads one image file as a network's input.

    The first frame is taken and turned upright as its EXIF orientation says. Transparent parts become black, which is
    the background of the digits and the value that `fit: pad` frames with. 16-bit grey (modes I;16 and I) is scaled to
    8 bits by its full range of 0..65535; floating-point grey (mode F) from 0..1, or from 0..255 where a value is above
    1. Grey from colours is ITU-R 601 luma.

    Args:
        file: in any format that Pillow reads.
        size: height and width of the result, one number for both; None keeps the picture's own.
        channels: 1 for grey, 3 for red, green and blue.
        fit: `resize` stretches the picture to `size`; `pad` keeps its proportions: shrunk where it is larger, never
            enlarged, and centred in a frame of zeros; `crop` as of `fit_images`, and so `shorter_side`.
        scaled_decoding: decode a JPEG at a half, quarter or eighth of its size where what is needed of it is twice its
            new size or more then: several times as fast, and nearly the same.
        crop: what is cut out first, and stretched to `size` whatever `fit` says.

    Returns:
        (height, width, channels) uint8.

    Raises:
        DataError: the file is missing, empty, a folder, no image, damaged, or suspiciously large.
        ConfigError: `channels` is neither 1 nor 3.
    """
    mode = _mode_of(channels)

    def needed_part(height: int, width: int) -> float:
        nonlocal crop
        assert size is not None
        used = min(height, width)
        if crop is not None:
            box = crop(height, width)
            crop, used = _scaled(box, height, width), min(box[2:])
        return 2 * max(*height_and_width(size), shorter_side or 0) / used

    scaled = needed_part if scaled_decoding and size is not None else None
    picture = _open(file, lambda image: _convert(image, mode), scaled)
    return _to_input(picture, size, fit, shorter_side, crop)


def read_pixels(
    pixels: np.ndarray,
    name: str,
    *,
    size: Size | None,
    channels: int,
    fit: Fit = "resize",
    shorter_side: int | None = None,
    crop: Crop | None = None,
) -> np.ndarray:
    """Brings an image that is an array already to a network's input, as `read_image` does with a file.

    Args:
        pixels: (height, width) or (height, width, 1, 3 or 4) uint8: grey, colours, or colours with transparency.
        name: how a message begins that tells of it.
        size, channels, fit, shorter_side, crop: as of `read_image`.

    Returns:
        (height, width, channels) uint8.

    Raises:
        DataError: the array is of another type or shape.
        ConfigError: `channels` is neither 1 nor 3.
    """
    mode = _mode_of(channels)
    depth = pixels.shape[2:] or (1,)
    if pixels.dtype != np.uint8 or depth not in ((1,), (3,), (4,)) or not pixels.size:
        raise DataError(
            f"{name} is an array of {pixels.dtype} of {'x'.join(map(str, pixels.shape))}, expected an image as uint8: "
            "height x width, or height x width x 1, 3 or 4"
        )
    image = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and depth == (1,) else pixels)
    return _to_input(_convert(image, mode), size, fit, shorter_side, crop)


def read_mask(
    file: File, *, size: Size, fit: Fit = "resize", shorter_side: int | None = None, crop: Crop | None = None
) -> np.ndarray:
    """Reads one image file whose pixels are class indices: of a palette, grey, or 16-bit grey.

    Args:
        size, fit, shorter_side, crop: as of `read_image`, but that a pixel becomes its nearest one, and the frame of
            `pad` is class 0.

    Returns:
        (height, width) int32.

    Raises:
        DataError: see `read_image`; or it has colours.
    """
    return fit_mask(np.asarray(_open(file, _to_indices)), size, fit, shorter_side, crop)


def upright_size(file: File) -> tuple[int, int]:
    """(height, width) of an image file as it is seen, from its header; errors are those of `read_image`."""
    return _open(file, lambda image: image.size[::-1])


def name_of(file: File) -> str:
    """How a message begins that tells of a file."""
    return file.name if isinstance(file, Encoded) else f"'{file}'"


def write_palette_image(path: Path, indices: np.ndarray, colours: np.ndarray) -> None:
    """Writes a PNG whose pixels are indices, and that is shown in their colours.

    Args:
        indices: (height, width) uint8.
        colours: (256, 3) uint8, red, green and blue of each index.

    Raises:
        DataError: it cannot be written.
    """
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())  # turns it into mode P
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, "PNG")
    except OSError as error:
        raise DataError(f"'{path}' cannot be written: {error.strerror or error}") from error


def _mode_of(channels: int) -> Literal["L", "RGB"]:
    if channels not in (1, 3):
        raise ConfigError(f"images are read with 1 channel (grey) or 3 (red, green, blue), not with {channels}")
    return "L" if channels == 1 else "RGB"


def _scaled(box: Box, height: int, width: int) -> Crop:
    """Of a picture that is decoded smaller, the part that `box` is of the whole one.

    A crop drawn by the smaller sides may be another one, because of their rounding, and no mask would follow it.
    """

    def crop(new_height: int, new_width: int) -> Box:
        top, left = box[0] * new_height // height, box[1] * new_width // width
        bottom, right = (box[0] + box[2]) * new_height / height, (box[1] + box[3]) * new_width / width
        return top, left, max(1, round(bottom) - top), max(1, round(right) - left)

    return crop


def _to_input(
    picture: Image.Image, size: Size | None, fit: Fit, shorter_side: int | None, crop: Crop | None
) -> np.ndarray:
    """A grey or RGB picture as (height, width, channels) uint8 of a size."""
    image = np.asarray(picture)
    image = image.reshape(*image.shape[:2], -1)
    return image if size is None else fit_image(image, size, fit, shorter_side, crop)


def _open(
    file: File, finish: Callable[[Image.Image], Result], needed_part: Callable[[int, int], float] | None = None
) -> Result:
    """What `finish` makes of an image that is turned upright.

    Args:
        needed_part: of a JPEG, from its height and width to the part of them below which it must not be decoded.
    """
    name = name_of(file) if isinstance(file, Encoded) else f"image '{file}'"
    try:
        if _is_empty(file):
            raise DataError(f"{name} is empty")
        if not isinstance(file, Encoded) and is_special(file):
            raise DataError(f"{name} is a pipe or a device, expected a file")
        # Never by its name: Pillow 13 maps such files into memory, and scrambles a TIFF that is turned.
        with (
            io.BytesIO(file.content) if isinstance(file, Encoded) else open(file, "rb") as stream,
            Image.open(stream) as image,
        ):
            # Pillow only warns about pictures of one to two times its limit, and still decodes them.
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            if needed_part is not None and image.format in _JPEG:
                upright = image.size[::-1] if image.getexif().get(_ORIENTATION, 1) < 5 else image.size
                part = needed_part(*upright)
                image.draft(None, (math.ceil(image.width * part), math.ceil(image.height * part)))
            ImageOps.exif_transpose(image, in_place=True)
            return finish(image)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = Image.MAX_IMAGE_PIXELS
        raise DataError(f"{name} claims more than {limit:,} pixels; make it smaller first") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"{name_of(file)} is not an image in a format that Pillow reads") from None
    except Exception as error:  # On damaged files Pillow's decoders raise whatever their parsing meets.
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{name} cannot be read: {os.strerror(error.errno)}") from error
        reason = str(error) or type(error).__name__
        raise DataError(f"{name} is damaged, or of a kind that cannot be converted: {reason}") from error


def _is_empty(file: File) -> bool:
    if isinstance(file, Encoded):
        return not file.content
    return os.path.isfile(file) and not os.path.getsize(file)


def _to_indices(image: Image.Image) -> np.ndarray:
    if image.format in _JPEG:
        raise ValueError("it is a JPEG, which does not keep class indices; expected a format without loss such as PNG")
    if image.mode not in ("P", "L", "1") and not image.mode.startswith("I"):
        raise ValueError(f"its pixels are colours ({image.mode}), expected class indices: a palette or grey")
    return np.asarray(image).astype(np.int32)


def _convert(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_to_bytes(image))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    return image.convert("RGB").convert(mode)


def _to_bytes(image: Image.Image) -> np.ndarray:
    """Grey of more than 8 bits as (height, width) uint8."""
    if image.mode == "F":
        values = np.asarray(image)
        white = 255.0 if values.max() > 1 else 1.0
    else:
        values = np.asarray(image.convert("I"))
        white = 65535.0
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= white:
        raise ValueError(f"values from {low:g} to {high:g}, expected 0 to {white:g}; save it as 8-bit grey first")
    return np.rint(values * (255.0 / white)).astype(np.uint8)
