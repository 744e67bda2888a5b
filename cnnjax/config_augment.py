"""How training images are changed: a list of entries, each a kind of change and its range. Imports no JAX."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cnnjax.config_base import Section

Fill = Literal["constant", "nearest", "reflect", "wrap"]


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"expected the lower end first, got {pair[0]:g} and {pair[1]:g}")
    return pair


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""From and to; each value between is as likely as any other."""
Factors = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], AfterValidator(_ascending)]
PositiveFactors = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Section):
    """What all entries share."""

    probability: Probability = 1.0
    """How often it is done; otherwise the image stays."""


class Flip(Section):
    """Mirrors the image, or turns it upside down."""

    kind: Literal["flip"]
    horizontal: Probability = 0.5
    """How often it is mirrored."""
    vertical: Probability = 0.0
    """How often it is turned upside down."""


def _of_whole(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[1] > 1:
        raise ValueError(f"expected parts of the image, of at most 1, got {pair[1]:g}")
    return pair


class ResizedCrop(Section):
    """Cuts a part of any size and aspect out of the image and brings that to the size: Inception's crop.

    It is done where the image is read, and so comes first: a file's at its own size, that of a set in memory at the
    size it is kept at. `data.fit` is for the held-out images.
    """

    kind: Literal["resized_crop"]
    area: Annotated[PositiveFactors, AfterValidator(_of_whole)] = (0.08, 1.0)
    """In parts of the image's."""
    aspect: PositiveFactors = (3 / 4, 4 / 3)
    """Width by height; its logarithm is uniform."""


class RandomCrop(Augmentation):
    """Pads the image on all sides and cuts its size out of it again, anywhere."""

    kind: Literal["crop"]
    padding: PositiveInt = 4
    """Pixels on each side."""
    fill: Fill = "constant"
    value: Probability = 0.0
    """What `fill: constant` pads with; 0 is black and 1 white."""


class Warp(Augmentation):
    """What lies beyond the border of an image that is moved. Warps that follow each other are sampled as one."""

    fill: Fill = "constant"
    """`constant`: `value`; `nearest`: the border's pixels; `reflect`: the mirrored image; `wrap`: the image again."""
    value: Probability = 0.0
    """0 is black and 1 white."""


class Rotation(Warp):
    """Turns it about its middle, counter-clockwise."""

    kind: Literal["rotation"]
    degrees: Range = (-15.0, 15.0)


class Translation(Warp):
    """Moves it."""

    kind: Literal["translation"]
    vertical: Range = (-0.1, 0.1)
    """Downwards, in parts of its height."""
    horizontal: Range = (-0.1, 0.1)
    """To the right, in parts of its width."""


class Shear(Warp):
    """Makes a parallelogram of it."""

    kind: Literal["shear"]
    vertical: Range = (0.0, 0.0)
    """Degrees by which its rows are tilted."""
    horizontal: Range = (-10.0, 10.0)
    """Degrees by which its columns are tilted."""


class Zoom(Warp):
    """Enlarges it, or makes it smaller."""

    kind: Literal["zoom"]
    factor: PositiveFactors = (0.9, 1.1)
    """Above 1 enlarges."""
    aspect: PositiveFactors = (1.0, 1.0)
    """Width by height of what was a square."""


class Brightness(Augmentation):
    """Multiplies all values."""

    kind: Literal["brightness"]
    factor: Factors = (0.8, 1.2)


class Contrast(Augmentation):
    """Multiplies the distances from the mean brightness."""

    kind: Literal["contrast"]
    factor: Factors = (0.8, 1.2)


class Saturation(Augmentation):
    """Multiplies the distances from grey."""

    kind: Literal["saturation"]
    factor: Factors = (0.8, 1.2)


class Hue(Augmentation):
    """Turns the colour wheel."""

    kind: Literal["hue"]
    turns: Range = (-0.05, 0.05)


class ColourJitter(Augmentation):
    """Brightness, contrast, saturation and hue, in any order, each factor within 1 plus and minus its number."""

    kind: Literal["colour_jitter"]
    brightness: Probability = 0.4
    contrast: Probability = 0.4
    saturation: Probability = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Turns of the colour wheel, plus and minus."""


class Greyscale(Augmentation):
    """Takes the colours away."""

    kind: Literal["greyscale"]
    probability: Probability = 0.1


class Lighting(Augmentation):
    """AlexNet's: moves all pixels along the principal components of ImageNet's colours."""

    kind: Literal["lighting"]
    deviation: NonNegativeFloat = 0.1
    """Of the normal weights of the components."""


class ChannelShift(Augmentation):
    """Adds the same amount to all values."""

    kind: Literal["channel_shift"]
    amount: Range = (-0.1, 0.1)
    """In parts of the whole range."""


class RgbShift(Augmentation):
    """Adds an amount of its own to each channel."""

    kind: Literal["rgb_shift"]
    amount: Range = (-0.1, 0.1)
    """In parts of the whole range."""


class Gamma(Augmentation):
    """Raises all values, from 0 to 1, to a power."""

    kind: Literal["gamma"]
    exponent: PositiveFactors = (0.8, 1.25)


class Equalize(Augmentation):
    """Spreads the values of each channel so that all are equally frequent."""

    kind: Literal["equalize"]
    probability: Probability = 0.5


class Sharpen(Augmentation):
    """Smooths at 0, leaves it at 1, sharpens above."""

    kind: Literal["sharpen"]
    factor: Factors = (0.5, 2.0)


class GaussianBlur(Augmentation):
    """Weighs the neighbours by a Gaussian."""

    kind: Literal["gaussian_blur"]
    deviation: PositiveFactors = (0.1, 2.0)
    """In pixels."""


class BoxBlur(Augmentation):
    """Takes the mean of a square."""

    kind: Literal["box_blur"]
    radius: Annotated[tuple[NonNegativeInt, NonNegativeInt], AfterValidator(_ascending)] = (0, 1)
    """Pixels from its middle to its side, from and to."""


class MedianBlur(Augmentation):
    """Takes the median of a square, in each channel."""

    kind: Literal["median_blur"]
    radius: PositiveInt = 1
    """Pixels from its middle to its side."""


class Noise(Augmentation):
    """Adds normal noise."""

    kind: Literal["noise"]
    deviation: Factors = (0.0, 0.05)
    """In parts of the whole range."""


class Cutout(Augmentation):
    """Covers a square anywhere."""

    kind: Literal["cutout"]
    side: Probability = 0.5
    """In parts of the shorter side."""
    value: Probability = 0.5
    """0 is black and 1 white."""


class RandAugment(Augmentation):
    """A few changes of one strength, chosen anew for each image (Cubuk, Zoph, Shlens and Le 2019)."""

    kind: Literal["rand_augment"]
    operations: PositiveInt = 2
    magnitude: Annotated[float, Field(ge=0, le=30)] = 9.0
    """Of 30."""
    value: Probability = 0.5
    """Of what lies beyond the border."""


class TrivialAugment(Augmentation):
    """One change of any strength for each image (Müller and Hutter 2021)."""

    kind: Literal["trivial_augment"]
    value: Probability = 0.5
    """Of what lies beyond the border."""


class Mixup(Augmentation):
    """Blends each image and label with another's of the batch (Zhang, Cisse, Dauphin and Lopez-Paz 2017)."""

    kind: Literal["mixup"]
    alpha: PositiveFloat = 0.2
    """The share is drawn from Beta(alpha, alpha)."""


class CutMix(Augmentation):
    """Puts a rectangle of another image of the batch into each, and mixes labels by area (Yun et al. 2019)."""

    kind: Literal["cutmix"]
    alpha: PositiveFloat = 1.0
    """The share is drawn from Beta(alpha, alpha)."""


ImageAugmentation = (
    Flip | RandomCrop | Rotation | Translation | Shear | Zoom | Brightness | Contrast | Saturation | Hue | ColourJitter
    | Greyscale | Lighting | ChannelShift | RgbShift | Gamma | Equalize | Sharpen | GaussianBlur | BoxBlur | MedianBlur
    | Noise | Cutout | RandAugment | TrivialAugment
)  # fmt: skip
BatchAugmentation = Mixup | CutMix
AnyAugmentation = Annotated[ResizedCrop | ImageAugmentation | BatchAugmentation, Field(discriminator="kind")]
