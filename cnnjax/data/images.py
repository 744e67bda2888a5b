"""Images and masks as arrays, brought to a size."""

from typing import Literal

import numpy as np
from PIL import Image

from cnnjax.data.crops import Crop
from cnnjax.errors import ConfigError

Fit = Literal["pad", "resize", "crop"]
Size = int | tuple[int, int]

_BLOCK_BYTES = 1 << 25


def fit_images(images: np.ndarray, size: Size, fit: Fit, shorter_side: int | None = None) -> np.ndarray:
    """Brings images to one size.

    Args:
        images: (N, height, width, channels) uint8.
        size: the new height and width; one number for both.
        fit: `pad` centres the image in a frame of zeros (an odd pixel goes to the right and the bottom); `resize`
            stretches it with `resize_images`; `crop` resizes in proportion and cuts the middle out.
        shorter_side: for `crop`, what it becomes first; None for that of `size`.

    Returns:
        (N, new height, new width, channels) uint8; the array itself where it has that size already.

    Raises:
        ConfigError: `pad`, and the images are larger than `size`.
    """
    height, width = height_and_width(size)
    own_height, own_width = images.shape[1:3]
    if fit == "crop":
        new_height, new_width, rows, columns = _middle((own_height, own_width), (height, width), shorter_side)
        return resize_images(images, new_height, new_width)[:, rows, columns]
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


def fit_image(image: np.ndarray, size: Size, fit: Fit, shorter_side: int | None, crop: Crop | None) -> np.ndarray:
    """(any height, any width, channels) uint8 to a size, as `read_image` says."""
    if crop is not None:
        return crop_image(image, crop, size)
    images, (height, width) = image[None], height_and_width(size)
    if fit == "pad":
        own_height, own_width = image.shape[:2]
        scale = min(height / own_height, width / own_width)
        if scale < 1:
            shrunk = (max(1, round(own_height * scale)), max(1, round(own_width * scale)))
            images = resize_images(images, *shrunk)
    return fit_images(images, (height, width), fit, shorter_side)[0]


def fit_mask(indices: np.ndarray, size: Size, fit: Fit, shorter_side: int | None, crop: Crop | None) -> np.ndarray:
    """(any height, any width) integers to a size, as `read_mask` says."""
    if crop is not None:
        return crop_mask(indices, crop, size)
    height, width = height_and_width(size)
    own_height, own_width = indices.shape
    if fit == "crop":
        new_height, new_width, rows, columns = _middle((own_height, own_width), (height, width), shorter_side)
        return _nearest(indices, new_height, new_width)[rows, columns]
    if fit == "pad":
        scale = min(1.0, height / own_height, width / own_width)
        inner = (max(1, round(own_height * scale)), max(1, round(own_width * scale)))
        return _pad(_nearest(indices, *inner)[None, ..., None], height, width)[0, ..., 0]
    return _nearest(indices, height, width)


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


def crop_image(image: np.ndarray, crop: Crop, size: Size) -> np.ndarray:
    """(any height, any width, channels) uint8 to what is cut out of it, stretched to a size."""
    top, left, height, width = crop(*image.shape[:2])
    return resize_images(image[None, top : top + height, left : left + width], *height_and_width(size))[0]


def crop_mask(indices: np.ndarray, crop: Crop, size: Size) -> np.ndarray:
    """(any height, any width) integers to what is cut out, each pixel its nearest one."""
    top, left, height, width = crop(*indices.shape)
    return _nearest(indices[top : top + height, left : left + width], *height_and_width(size))


def height_and_width(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _middle(own: tuple[int, int], size: tuple[int, int], shorter_side: int | None) -> tuple[int, int, slice, slice]:
    """The height and width to which an image is resized in proportion, and the rows and columns of its middle.

    Rounded as torchvision's `Resize` and `CenterCrop` do: the longer side down, the corner to the nearest even.
    """
    (own_height, own_width), (height, width) = own, size
    shorter, least = shorter_side or max(height, width), min(own_height, own_width)
    new_height, new_width = (
        shorter if side == least else int(shorter * side / least) for side in (own_height, own_width)
    )
    top, left = round((new_height - height) / 2), round((new_width - width) / 2)
    return new_height, new_width, slice(top, top + height), slice(left, left + width)


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
