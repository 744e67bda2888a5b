"""Images as bytes: brought to a size, and read from files of any format and colour mode."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps

from cnnjax.errors import ConfigError, DataError

Fit = Literal["pad", "resize"]
Size = int | tuple[int, int]

Result = TypeVar("Result")

_BLOCK_BYTES = 1 << 25


def fit_images(images: np.ndarray, size: Size, fit: Fit) -> np.ndarray:
    """Brings images to one size.

    Args:
        images: (N, height, width, channels) uint8.
        size: the new height and width; one number for both.
        fit: `pad` centres the image in a frame of zeros (an odd pixel goes to the right and the bottom); `resize`
            stretches it with `resize_images`.

    Returns:
        (N, new height, new width, channels) uint8; the array itself where it has that size already.

    Raises:
        ConfigError: `pad`, and the images are larger than `size`.
    """
    height, width = _height_and_width(size)
    own_height, own_width = images.shape[1:3]
    if (own_height, own_width) == (height, width):
        return images
    if fit == "resize":
        return resize_images(images, height, width)
    if own_height > height or own_width > width:
        raise ConfigError(
            f"data.fit: pad cannot bring images of {own_height}x{own_width} to data.image_size {height}x{width}; "
            f"choose an image_size of {max(own_height, own_width)} or more, or fit: resize"
        )
    return _pad(images, height, width)


def resize_images(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's bilinear interpolation, which widens its triangle filter when it shrinks (antialiasing).

    Args:
        images: (N, any height, any width, channels) uint8.

    Returns:
        (N, height, width, channels) uint8, byte for byte what Pillow gives for each image alone, first across and then
        down. From its release 13 on, it does some in the other order if asked for both at once: then a byte may differ
        by one or two.
    """
    count, own_height, own_width, channels = images.shape
    resized = np.empty((count, height, width, channels), np.uint8)
    bytes_each = max(own_height * own_width, own_height * width, height * width) * channels
    block = max(1, _BLOCK_BYTES // bytes_each)
    for start in range(0, count, block):
        planes = images[start : start + block].transpose(0, 3, 1, 2)  # (n, channels, height, width)
        # Across and then down, as Pillow does it, but for the rows of all images and channels in one call.
        across = _resize_last_axis(planes, width).swapaxes(2, 3)
        down = _resize_last_axis(across, height)  # (n, channels, new width, new height)
        resized[start : start + block] = down.transpose(0, 3, 2, 1)
    return resized


def read_image(
    path: str | Path, *, size: Size | None, channels: int, fit: Fit = "resize", scaled_decoding: bool = False
) -> np.ndarray:
    """Reads one image file as a network's input.

    The first frame is taken and turned upright as its EXIF orientation says. Transparent parts become black, which is
    the background of the digits and the value that `fit: pad` frames with. 16-bit grey (modes I;16 and I) is scaled to
    8 bits by its full range of 0..65535; floating-point grey (mode F) from 0..1, or from 0..255 where a value is above
    1. Grey from colours is ITU-R 601 luma.

    Args:
        path: a file in any format that Pillow reads.
        size: height and width of the result, one number for both; None keeps the picture's own.
        channels: 1 for grey, 3 for red, green and blue.
        fit: `resize` stretches the picture to `size`; `pad` keeps its proportions: shrunk where it is larger, never
            enlarged, and centred in a frame of zeros.
        scaled_decoding: decode a JPEG at a half, quarter or eighth of its size where that is twice `size` or more:
            several times as fast, and nearly the same.

    Returns:
        (height, width, channels) uint8.

    Raises:
        DataError: the file is missing, empty, a folder, no image, damaged, or suspiciously large.
        ConfigError: `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ConfigError(f"images are read with 1 channel (grey) or 3 (red, green, blue), not with {channels}")
    at_least = None if size is None or not scaled_decoding else 2 * max(_height_and_width(size))
    image = np.asarray(_open(Path(path), lambda image: _convert(image, "L" if channels == 1 else "RGB"), at_least))
    images = image.reshape(1, *image.shape[:2], channels)
    if size is None:
        return images[0]
    height, width = _height_and_width(size)
    if fit == "pad":
        own_height, own_width = images.shape[1:3]
        scale = min(height / own_height, width / own_width)
        if scale < 1:
            shrunk = (max(1, round(own_height * scale)), max(1, round(own_width * scale)))
            images = resize_images(images, *shrunk)
    return fit_images(images, (height, width), fit)[0]


def read_mask(path: str | Path, *, size: Size, fit: Fit = "resize") -> np.ndarray:
    """Reads one image file whose pixels are class indices: of a palette, grey, or 16-bit grey.

    Args:
        size, fit: as of `read_image`, but that a pixel becomes its nearest one, and the frame of `pad` is class 0.

    Returns:
        (height, width) int32.

    Raises:
        DataError: see `read_image`; or it has colours.
    """
    indices = np.asarray(_open(Path(path), _to_indices))
    height, width = _height_and_width(size)
    own_height, own_width = indices.shape
    if fit == "pad":
        scale = min(1.0, height / own_height, width / own_width)
        inner = (max(1, round(own_height * scale)), max(1, round(own_width * scale)))
        return _pad(_nearest(indices, *inner)[None, ..., None], height, width)[0, ..., 0]
    return _nearest(indices, height, width)


def upright_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image file as it is seen, from its header; errors are those of `read_image`."""
    return _open(Path(path), lambda image: image.size[::-1])


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


def _height_and_width(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _pad(images: np.ndarray, height: int, width: int) -> np.ndarray:
    count, own_height, own_width, channels = images.shape
    top, left = (height - own_height) // 2, (width - own_width) // 2
    padded = np.zeros((count, height, width, channels), images.dtype)
    padded[:, top : top + own_height, left : left + own_width] = images
    return padded


def _nearest(indices: np.ndarray, height: int, width: int) -> np.ndarray:
    """(own height, own width) to (height, width): the pixel in which each new one's centre lies."""
    rows, columns = (
        ((2 * np.arange(new) + 1) * own) // (2 * new) for new, own in zip((height, width), indices.shape, strict=True)
    )
    return indices[rows[:, None], columns]


def _resize_last_axis(planes: np.ndarray, length: int) -> np.ndarray:
    """(..., n) to (..., length): all rows as one tall picture whose height stays, so that Pillow leaves it alone."""
    rows = np.ascontiguousarray(planes).reshape(-1, planes.shape[-1])
    picture = Image.fromarray(rows).resize((length, rows.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(*planes.shape[:-1], length)


def _open(path: Path, finish: Callable[[Image.Image], Result], at_least: int | None = None) -> Result:
    """What `finish` makes of an image that is turned upright; it may be decoded smaller, but not below `at_least`."""
    try:
        if path.is_file() and not path.stat().st_size:
            raise DataError(f"image '{path}' is empty")
        with Image.open(path) as image:
            # Pillow only warns about pictures of one to two times its limit, and still decodes them.
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            if at_least is not None:
                image.draft(None, (at_least, at_least))  # does nothing but for JPEG
            ImageOps.exif_transpose(image, in_place=True)
            return finish(image)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = Image.MAX_IMAGE_PIXELS
        raise DataError(f"image '{path}' claims more than {limit:,} pixels; make it smaller first") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"'{path}' is not an image in a format that Pillow reads") from None
    except Exception as error:  # On damaged files Pillow's decoders raise whatever their parsing meets.
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"image '{path}' cannot be read: {os.strerror(error.errno)}") from error
        reason = str(error) or type(error).__name__
        raise DataError(f"image '{path}' is damaged, or of a kind that cannot be converted: {reason}") from error


def _to_indices(image: Image.Image) -> np.ndarray:
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
