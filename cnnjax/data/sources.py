"""Where examples come from: each source as uint8 images and int32 labels, in memory."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnjax.config import DataConfig, DigitsOnPhotographsSource, DigitsSource, IdxSource, SyntheticSource
from cnnjax.data.composites import draw_composites
from cnnjax.data.idx import find_idx, read_idx
from cnnjax.data.images import fit_images
from cnnjax.data.random_bits import bell, random_stream, uniform
from cnnjax.errors import ConfigError, DataError

_TEMPLATE_CELLS = 4
_BLOCK_PIXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class Examples:
    """Images with their classes; the arrays may be read-only."""

    images: np.ndarray
    """(N, height, width, channels) uint8."""
    labels: np.ndarray
    """(N,) int32, indices into the class names; (N, height, width) where each pixel has one."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Datasets:
    """What is trained on, what is held out, and what the labels mean."""

    train: Examples
    test: Examples
    class_names: tuple[str, ...]


def load(config: DataConfig) -> Datasets:
    """Loads a source and brings its images to `image_size`. The same config gives the same bytes, always.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others.
        ConfigError: the config asks for something that this source cannot give.
    """
    if isinstance(config.source, DigitsSource):
        datasets = _load_digits(config.source)
    elif isinstance(config.source, IdxSource):
        datasets = _load_idx(config.source)
    elif isinstance(config.source, DigitsOnPhotographsSource):
        if config.image_size not in (None, config.source.image_size):
            raise ConfigError(
                f"data.image_size: {config.image_size} would part the images from their pixels' classes; set it to "
                f"null, and data.source.image_size to the size that you want"
            )
        digits = _load_digits(DigitsSource())
        parts = draw_composites(config.source, (digits.train, digits.test))
        train, test = (Examples(*part) for part in parts)
        datasets = Datasets(train, test, ("photograph", *digits.class_names))
    else:
        datasets = _make_synthetic(config.source)
    train, test = (_fit(examples, config) for examples in (datasets.train, datasets.test))
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = " and ".join(f"{e.images.shape[1]}x{e.images.shape[2]}" for e in (train, test))
        raise DataError(f"training and test images differ in size ({sizes}); set data.image_size")
    channels = train.images.shape[-1]
    for name, value in (("mean", config.mean), ("std", config.std)):
        if isinstance(value, tuple) and len(value) != channels:
            raise ConfigError(
                f"data.{name} has {len(value)} numbers, expected one, or one for each of {channels} channels"
            )
    return Datasets(train, test, datasets.class_names)


def _fit(examples: Examples, config: DataConfig) -> Examples:
    if config.image_size is None:
        return examples
    return Examples(fit_images(examples.images, config.image_size, config.fit), examples.labels)


def _load_digits(source: DigitsSource) -> Datasets:
    # Imported here because it takes as long as all the rest, and other sources do without.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int32)
    try:
        parts = train_test_split(
            np.arange(len(labels)),
            test_size=source.test_fraction,
            random_state=source.split_seed,
            stratify=labels,
        )
    except ValueError:
        raise ConfigError(
            f"data.source.test_fraction {source.test_fraction} of {len(labels)} digits leaves one side without an "
            "example of each class; choose a fraction nearer to 0.2"
        ) from None
    # In the order of the data set, so that only the choice, not its order, rests on scikit-learn.
    train, test = (np.sort(part) for part in parts)
    names = tuple(str(name) for name in digits.target_names)
    return Datasets(Examples(images[train], labels[train]), Examples(images[test], labels[test]), names)


def _load_idx(source: IdxSource) -> Datasets:
    folder = Path(os.path.expanduser(os.path.expandvars(source.path)))
    names = (source.train_images, source.train_labels, source.test_images, source.test_labels)
    wanted = f"expected a folder with the files {', '.join(names)}, each with or without .gz"
    if not os.path.exists(folder):
        raise DataError(f"data.source.path '{folder}' does not exist; {wanted}")
    if not os.path.isdir(folder):
        raise DataError(f"data.source.path '{folder}' is not a folder; {wanted}")
    paths = []
    for name in names:
        path = find_idx(folder, name)
        if path is None:
            raise DataError(f"'{folder}' has no file {name}; {wanted}")
        paths.append(path)
    train_images, train_labels, test_images, test_labels = paths
    return Datasets(
        _read_pair(train_images, train_labels, len(source.class_names)),
        _read_pair(test_images, test_labels, len(source.class_names)),
        source.class_names,
    )


def _read_pair(images_path: Path, labels_path: Path, classes: int) -> Examples:
    images = _read_with_dimensions(images_path, 3, "images", "labels")
    labels = _read_with_dimensions(labels_path, 1, "labels", "images")
    if images.dtype != np.uint8:
        raise DataError(f"'{images_path}' holds {images.dtype} values, expected pixels as unsigned bytes (type 08)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"'{labels_path}' holds {labels.dtype} values, expected labels as integers")
    if len(images) != len(labels):
        raise DataError(f"'{images_path}' holds {len(images)} images and '{labels_path}' {len(labels)} labels")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        raise DataError(
            f"'{labels_path}' holds the label {labels[outside[0]]} (entry {outside[0]}), expected 0 to {classes - 1}, "
            f"one for each of the {classes} data.source.class_names"
        )
    return Examples(images[..., None], labels.astype(np.int32))


def _read_with_dimensions(path: Path, dimensions: int, kind: str, opposite: str) -> np.ndarray:
    values = read_idx(path)
    if values.ndim != dimensions:
        expected = f"expected {kind} ({dimensions} dimension{'s' if dimensions > 1 else ''})"
        if values.ndim == 4 - dimensions:
            raise DataError(f"'{path}': {expected} and got {opposite}; are the two names swapped?")
        raise DataError(f"'{path}': {expected} and got {values.ndim} dimensions")
    return values


def _make_synthetic(source: SyntheticSource) -> Datasets:
    """Each image is its class's template, moved cyclically by up to 1/8 of its size each way, dimmed to 50..100% and
    noised. Templates, training and test images come from random streams of their own."""
    templates = _make_templates(source)
    return Datasets(
        _draw_synthetic(templates, source, "train", source.train_examples),
        _draw_synthetic(templates, source, "test", source.test_examples),
        tuple(f"class {index}" for index in range(source.classes)),
    )


def _make_templates(source: SyntheticSource) -> np.ndarray:
    """(classes, size, size, channels) float32 that span 0 to 1: random values on a coarse torus, interpolated."""
    cells = _TEMPLATE_CELLS
    stream = random_stream("synthetic templates", source.source_seed)
    coarse = uniform(stream, source.classes, cells, cells, source.channels)
    position = np.arange(source.image_size) * cells / source.image_size
    cell = np.floor(position).astype(int)
    part = (position - cell)[:, None]
    # Smoothstep, so that the slope has no jumps at the cells' borders.
    weight = part * part * (3 - 2 * part)
    interpolate = np.eye(cells)[cell] * (1 - weight) + np.eye(cells)[(cell + 1) % cells] * weight
    smooth = np.einsum("yg,cgkd,xk->cyxd", interpolate, coarse, interpolate)
    low, high = (bound(axis=(1, 2, 3), keepdims=True) for bound in (smooth.min, smooth.max))
    return ((smooth - low) / (high - low)).astype(np.float32)


def _draw_synthetic(templates: np.ndarray, source: SyntheticSource, part: str, count: int) -> Examples:
    size, channels = source.image_size, source.channels
    placing = random_stream(f"synthetic {part} placing", source.source_seed)
    noise = random_stream(f"synthetic {part} noise", source.source_seed)
    labels = np.arange(count, dtype=np.int32) % source.classes
    reach = size // 8
    moves = np.floor(uniform(placing, 2, count, 1) * (2 * reach + 1)).astype(int) - reach
    rows, columns = (np.arange(size) - moves) % size  # (count, size) each
    brightness = (0.5 + 0.5 * uniform(placing, count, 1, 1, 1)).astype(np.float32)
    images = np.empty((count, size, size, channels), np.uint8)
    # In blocks, since a pixel's noise takes eight bytes of random bits.
    block = max(1, _BLOCK_PIXELS // (size * size * channels))
    for start in range(0, count, block):
        here = slice(start, start + block)
        clean = templates[labels[here, None, None], rows[here, :, None], columns[here, None, :]] * brightness[here]
        noisy = clean + np.float32(source.noise) * bell(noise, *clean.shape)
        images[here] = np.rint(np.clip(noisy, 0, 1) * 255)
    return Examples(images, labels)
