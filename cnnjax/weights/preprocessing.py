"""How a picture becomes a network's input; weights carry it along, for they are worth nothing without."""

from collections.abc import Callable
from typing import Literal, Self

import numpy as np
from PIL import Image
from pydantic import PositiveFloat, PositiveInt, model_validator

from cnnjax.config_base import Section
from cnnjax.errors import DataError

Size = tuple[PositiveInt, PositiveInt]
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class Preprocessing(Section):
    """Bytes to (height, width, channels) float32: resize, crop, order the channels, (pixel / scale - mean) / std."""

    size: Size
    """Height and width that the network sees."""
    fit: Literal["crop", "stretch", "pad"] = "crop"
    """`crop`: the shorter side is resized, the longer one follows, the centre is cut out. `stretch`: both sides are
    resized. `pad`: a larger image is shrunk in proportion, and zeros frame it."""
    shorter_side: PositiveInt | None = None
    """For `crop`, what the shorter side becomes; null for that of `size`."""
    rounding: Literal["down", "nearest"] = "down"
    """For `crop`, how the longer side becomes whole."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """Pillow's; bilinear and bicubic widen their filter when they shrink (antialiasing)."""
    order: Literal["rgb", "bgr"] = "rgb"
    """Of the channels, as the network sees them; mean and std have this order too."""
    scale: PositiveFloat = 255.0
    """What a byte is divided by, first."""
    mean: float | tuple[float, ...] = 0.0
    """Subtracted then; one number, or one a channel."""
    std: PositiveFloat | tuple[PositiveFloat, ...] = 1.0
    """Divides at last."""

    @model_validator(mode="after")
    def _covers_the_crop(self) -> Self:
        if self.fit == "crop" and self.shorter_side is not None and self.shorter_side < max(self.size):
            raise ValueError(f"shorter_side {self.shorter_side} is smaller than the crop of {self.size}")
        return self

    def apply(self, image: np.ndarray) -> np.ndarray:
        """A network's input.

        Args:
            image: (any height, any width, channels) uint8, channels red, green, blue.

        Returns:
            (height, width, channels) float32.

        Raises:
            DataError: an array of another kind or number of channels.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or not image.size:
            raise DataError(f"expected a uint8 array (height, width, channels), got {image.dtype} {image.shape}")
        for values in (self.mean, self.std):
            if isinstance(values, tuple) and len(values) != image.shape[-1]:
                raise DataError(f"expected an image of {len(values)} channels, got {image.shape[-1]}")
        pixels = self.fit_size(image)
        pixels = pixels[..., ::-1] if self.order == "bgr" else pixels
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return np.asarray((pixels.astype(np.float32) / np.float32(self.scale) - mean) / std)

    def fit_size(self, image: np.ndarray) -> np.ndarray:
        """(any height, any width, channels) uint8 to (height, width, channels) uint8."""
        own, (height, width) = image.shape[:2], self.size
        if self.fit == "stretch":
            return self._resize(image, height, width)
        if self.fit == "pad":
            scale = min(height / own[0], width / own[1])
            if scale < 1:
                image = self._resize(image, *(max(1, round(side * scale)) for side in own))
            padded = np.zeros((height, width, image.shape[-1]), np.uint8)
            top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
            padded[top : top + image.shape[0], left : left + image.shape[1]] = image
            return padded
        shorter = self.shorter_side or max(self.size)
        whole: Callable[[float], int] = round if self.rounding == "nearest" else int
        sides = (shorter if side == min(own) else whole(shorter * side / min(own)) for side in own)
        image = self._resize(image, *sides)
        # Python rounds halves to even, as torchvision's crop does.
        top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
        return image[top : top + height, left : left + width]

    def for_channels(self, channels: int) -> "Preprocessing":
        """The same for images of another number of channels.

        One channel gets the average of mean and std; of several, each gets those of the channel that its weights come
        from (`cnnjax.weights.adapt.change_channels`).
        """

        def adapt(values: float | tuple[float, ...]) -> float | tuple[float, ...]:
            if isinstance(values, float) or len(values) == channels:
                return values
            if channels == 1:
                return sum(values) / len(values)
            return tuple(values[channel % len(values)] for channel in range(channels))

        return self.model_copy(update={"mean": adapt(self.mean), "std": adapt(self.std)})

    def _resize(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        if image.shape[:2] == (height, width):
            return image
        # Pillow resizes each channel by itself, but takes no picture of, say, two of them.
        planes = (Image.fromarray(np.ascontiguousarray(image[..., channel])) for channel in range(image.shape[-1]))
        # Across and then down, as when the data are loaded: from release 13 on, Pillow does some the other way round.
        interpolation, own_height = _FILTERS[self.interpolation], image.shape[0]
        across = (plane.resize((width, own_height), interpolation) for plane in planes)
        return np.stack([np.asarray(plane.resize((width, height), interpolation)) for plane in across], axis=-1)
