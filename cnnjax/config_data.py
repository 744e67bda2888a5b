"""Where examples come from, and how they reach the network: that part of a config. Imports no JAX."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cnnjax.config_augment import AnyAugmentation, BatchAugmentation, ImageAugmentation, ResizedCrop
from cnnjax.config_base import Section


class DigitsSource(Section):
    """scikit-learn's 1,797 real handwritten 8x8 digits, embedded in that package."""

    kind: Literal["digits"] = "digits"
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Part of each class that is held out for evaluation."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the stratified split; the training seed does not touch it."""


class IdxSource(Section):
    """MNIST's file format: four IDX files in one folder, gzip-compressed or not."""

    kind: Literal["idx"]
    path: Path
    """The folder; `~` and environment variables are expanded."""
    train_images: str = "train-images-idx3-ubyte"
    """File name, with or without .gz."""
    train_labels: str = "train-labels-idx1-ubyte"
    test_images: str = "t10k-images-idx3-ubyte"
    test_labels: str = "t10k-labels-idx1-ubyte"
    class_names: tuple[str, ...] = tuple("0123456789")
    """One name a class, in the order of the labels."""


class SyntheticSource(Section):
    """Learnable and deterministic images: one smooth random template a class, shifted, dimmed and noised."""

    kind: Literal["synthetic"]
    image_size: Annotated[int, Field(ge=4)] = 32
    """Height and width in pixels."""
    channels: PositiveInt = 1
    classes: Annotated[int, Field(ge=2)] = 10
    train_examples: PositiveInt = 2048
    test_examples: PositiveInt = 512
    noise: Annotated[float, Field(ge=0, le=1000)] = 0.2
    """Standard deviation of the pixel noise; the templates span 0 to 1."""
    source_seed: NonNegativeInt = 0


class DigitsOnPhotographsSource(Section):
    """For segmentation: scikit-learn's handwritten digits on its two photographs, a class for each pixel.

    Class 0 is the photograph, 1 to 10 are the digits 0 to 9. Training and test images share neither a digit nor a part
    of a photograph.
    """

    kind: Literal["digits_on_photographs"]
    image_size: Annotated[int, Field(ge=32, le=192)] = 64
    """Height and width in pixels."""
    digits: Annotated[int, Field(ge=1, le=16)] = 4
    """How many are placed in an image, each in a cell of its own; fewer are larger."""
    train_examples: PositiveInt = 1024
    test_examples: PositiveInt = 256
    source_seed: NonNegativeInt = 0


class ImagesSource(Section):
    """What all sources of encoded images share. They are read as they are needed, and brought to `data.image_size`."""

    channels: Literal[1, 3] = 3
    """Grey, or red, green and blue."""
    broken: Literal["error", "skip"] = "error"
    """A file that cannot be read ends the run with a sentence that names it; or it counts nowhere, like padding."""
    scaled_decoding: bool = False
    """Decode a JPEG at a half of its size or less, where that is still twice what is needed: faster, nearly equal."""
    in_memory: bool = False
    """Read every file once at the start and keep it at its size as bytes: for small sets, many epochs."""


class FilesSource(ImagesSource):
    """What all sources of image files share."""

    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Part of each class that is held out, where the source does not say which files are."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of that choice; the training seed does not touch it."""


class FolderSource(FilesSource):
    """A folder with a sub-folder of images for each class, however deep; the sub-folders' names are the classes'."""

    kind: Literal["folder"]
    path: Path
    """The folder; `~` and environment variables are expanded."""
    train: str | None = None
    """The folder in `path` that holds the classes' folders of the training set; null: `path`, which is split."""
    test: str | None = None
    """The same of the held-out set."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.train is None) != (self.test is None):
            raise ValueError(
                "expected train and test together, or neither: then test_fraction of the images is held out"
            )
        return self


class ManifestSource(FilesSource):
    """A CSV file with a line of column names and a line for each image: its path, its class, and which set it is in."""

    kind: Literal["manifest"]
    path: Path
    """The CSV file; `~` and environment variables are expanded."""
    folder: Path | None = None
    """What the images' paths start from; null for the CSV file's folder."""
    path_column: str = "path"
    label_column: str = "label"
    split_column: str | None = None
    """Holds `train` or `test` in each line; null: test_fraction of the images is held out."""


class MasksSource(FilesSource):
    """For segmentation: two folders with the same names in them, of images and of masks that hold a class a pixel.

    A mask is a PNG (or another format without loss) whose pixels are class indices, with a palette or grey.
    """

    kind: Literal["masks"]
    images: Path
    """The images' folder; `~` and environment variables are expanded."""
    masks: Path
    """The masks' folder; a mask has its image's name, but for the ending."""
    class_names: tuple[str, ...]
    """One name a class, in the order of the indices."""


class ArrayRecordSource(ImagesSource):
    """A folder that `cnnjax data convert` wrote: images as they were encoded, in a few large files instead of many."""

    kind: Literal["arrayrecord"]
    path: Path
    """The folder; `~` and environment variables are expanded."""


class TfdsSource(ImagesSource):
    """A data set of TensorFlow Datasets, prepared for random access (`array_record`); needs the extra `tfds`.

    TensorFlow itself is not needed to read it.
    """

    kind: Literal["tfds"]
    name: str
    """Such as `cifar10`, `name/config` or `name:1.0.0`."""
    path: Path | None = None
    """The folder of prepared data sets; null for the library's own; `~` and environment variables are expanded."""
    train: str = "train"
    """The training set: a split, or a part of one such as `train[:80%]`."""
    test: str = "test"
    """The same of the held-out set."""
    image: str = "image"
    """The feature that holds the images."""
    label: str = "label"
    """The feature that holds their classes."""
    download: bool = False
    """Download and prepare what is not there; otherwise that is an error."""


class HfSource(ImagesSource):
    """A data set of Hugging Face `datasets`, from a folder or by its name; needs the extra `hf`."""

    kind: Literal["hf"]
    path: Path | None = None
    """A folder of `save_to_disk`, or of Parquet or image files; `~` and environment variables are expanded."""
    name: str | None = None
    """Of a data set on the Hub such as `uoft-cs/cifar10`, instead of a folder."""
    configuration: str | None = None
    """Which of a data set's configurations, where it has several."""
    train: str = "train"
    """The training set's split."""
    test: str = "test"
    """The held-out set's split."""
    image: str = "image"
    """The column that holds the images."""
    label: str = "label"
    """The column that holds their classes."""
    download: bool = False
    """Download what a name stands for; otherwise it must be in the library's cache already."""

    @model_validator(mode="after")
    def _folder_or_name(self) -> Self:
        if (self.path is None) == (self.name is None):
            raise ValueError("expected either path, a folder, or name, of a data set on the Hub")
        return self


class NpzSource(Section):
    """A NumPy archive of images and labels, as `numpy.savez` writes it."""

    kind: Literal["npz"]
    path: Path
    """The file; `~` and environment variables are expanded."""
    train_images: str = "x_train"
    """The array's name: (N, height, width) or (N, height, width, channels) uint8."""
    train_labels: str = "y_train"
    """(N,) integers from 0; (N, height, width) where each pixel has one."""
    test_images: str = "x_test"
    test_labels: str = "y_test"
    class_names: tuple[str, ...] | None = None
    """One name a class, in the order of the labels; null: the numbers up to the largest label."""


Source = Annotated[
    DigitsSource
    | IdxSource
    | SyntheticSource
    | DigitsOnPhotographsSource
    | FolderSource
    | ManifestSource
    | MasksSource
    | ArrayRecordSource
    | TfdsSource
    | HfSource
    | NpzSource,
    Field(discriminator="kind"),
]


class DataConfig(Section):
    """Where the examples come from, and how they reach the network."""

    source: Source = DigitsSource()
    batch_size: PositiveInt = 128
    """Examples a step, over all devices and processes."""
    image_size: Annotated[int, Field(ge=4)] | None = 32
    """Height and width that the network sees; null keeps the source's own."""
    fit: Literal["pad", "resize", "crop"] = "resize"
    """How an image becomes `image_size`: a frame of zeros around a smaller one, bilinear interpolation of both sides,
    or of the shorter side, and what then is in the middle of the longer one."""
    shorter_side: PositiveInt | None = None
    """For `fit: crop`, what the shorter side becomes before the middle is cut out; null for image_size."""
    augment: tuple[AnyAugmentation, ...] = ()
    """Changes of the training images, in this order; what is drawn depends on the seed, the epoch and the example."""
    mean: float | tuple[float, ...] = 0.0
    """Subtracted from pixels in 0..1; one number, or one a channel."""
    std: PositiveFloat | tuple[PositiveFloat, ...] = 1.0
    """Divides them afterwards."""
    examples_per_class: PositiveInt | None = None
    """Train on so many of each class; null for all. The choice is `subset_seed`'s, and each larger one contains it."""
    subset_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    prefetch: NonNegativeInt = 2
    """Batches prepared and put on the devices ahead of the step."""
    workers: NonNegativeInt = 0
    """Processes that read and decode files for training; 0: threads of this one. What is read is the same."""

    @property
    def crop(self) -> ResizedCrop | None:
        """What is done to training images where they are read."""
        first = self.augment[0] if self.augment else None
        return first if isinstance(first, ResizedCrop) else None

    @property
    def changes(self) -> tuple[ImageAugmentation | BatchAugmentation, ...]:
        """What is done to them on the device."""
        return tuple(entry for entry in self.augment if not isinstance(entry, ResizedCrop))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if any(isinstance(entry, ResizedCrop) for entry in self.augment[1:]):
            raise ValueError("augment: expected resized_crop first, since it is done where the image is decoded")
        if self.shorter_side is not None and self.fit != "crop":
            raise ValueError(f"shorter_side: it is for fit: crop, and fit is {self.fit}")
        if self.shorter_side is not None and self.shorter_side < (self.image_size or 0):
            raise ValueError(f"shorter_side: {self.shorter_side} is smaller than image_size {self.image_size}")
        if self.fit == "crop" and self.image_size is None:
            raise ValueError("fit: crop needs an image_size")
        return self
