"""Where examples come from: every source as uint8 images and int32 labels of one size."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from cnnjax.config_base import expanded
from cnnjax.config_data import (
    ArrayRecordSource,
    DataConfig,
    DigitsOnPhotographsSource,
    DigitsSource,
    FolderSource,
    HfSource,
    IdxSource,
    ImagesSource,
    ManifestSource,
    MasksSource,
    NpzSource,
    SyntheticSource,
    TfdsSource,
)
from cnnjax.data.archives import load_npz
from cnnjax.data.composites import draw_composites
from cnnjax.data.examples import ArrayExamples, Datasets, Examples, require_labels, some_of_each_class, split_by_class
from cnnjax.data.files import Decoding
from cnnjax.data.folders import load_files
from cnnjax.data.huggingface import load_hf
from cnnjax.data.idx import find_idx, read_idx
from cnnjax.data.images import fit_images
from cnnjax.data.random_bits import bell, random_stream, uniform
from cnnjax.data.records import load_records
from cnnjax.data.tfds import load_tfds
from cnnjax.errors import ConfigError, DataError, first_line

Parts = tuple[ArrayExamples, ArrayExamples]
"""The training set and the held-out one."""
_TEMPLATE_CELLS = 4
_BLOCK_PIXELS = 1 << 20


def load(config: DataConfig) -> Datasets:
    """Loads a source and brings its images to `image_size`. The same config gives the same bytes, always.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others.
        ConfigError: the config asks for something that this source cannot give.
    """
    source = config.source
    try:
        datasets = _load_images(source, config) if isinstance(source, ImagesSource) else _load_arrays(source, config)
    except (MemoryError, OverflowError, ValueError) as error:
        # NumPy's words where nobody could have so much.
        if isinstance(error, ValueError) and not re.search("too big|Maximum allowed", str(error)):
            raise
        raise DataError(
            f"the images do not fit into memory ({first_line(error)}); ask for fewer of them, or for smaller ones"
        ) from None
    if config.examples_per_class is not None:
        chosen = some_of_each_class(datasets.train, config.examples_per_class, config.subset_seed)
        datasets = replace(datasets, train=chosen)
    shapes = [examples.image_shape for examples in (datasets.train, datasets.test)]
    if shapes[0] != shapes[1]:
        if shapes[0][2] != shapes[1][2]:
            raise DataError(f"training and test images differ in channels ({shapes[0][2]} and {shapes[1][2]})")
        sizes = " and ".join(f"{height}x{width}" for height, width, _ in shapes)
        raise DataError(f"training and test images differ in size ({sizes}); set data.image_size")
    channels = shapes[0][-1]
    for name, value in (("mean", config.mean), ("std", config.std)):
        if isinstance(value, tuple) and len(value) != channels:
            raise ConfigError(
                f"data.{name} has {len(value)} numbers, expected one, or one for each of {channels} channels"
            )
    return datasets


def _load_images(source: ImagesSource, config: DataConfig) -> Datasets:
    if config.image_size is None:
        raise ConfigError("data.image_size: photographs differ in size; set it to the height and width you want")
    decoding = Decoding(
        config.image_size,
        source.channels,
        config.fit,
        config.shorter_side,
        scaled_decoding=source.scaled_decoding,
        skip_broken=source.broken == "skip",
    )
    if isinstance(source, ArrayRecordSource):
        return load_records(source, decoding)
    if isinstance(source, TfdsSource):
        return load_tfds(source, decoding)
    if isinstance(source, HfSource):
        return load_hf(source, decoding)
    assert isinstance(source, FolderSource | ManifestSource | MasksSource)
    return load_files(source, decoding)


def _load_arrays(
    source: DigitsSource | IdxSource | SyntheticSource | DigitsOnPhotographsSource | NpzSource, config: DataConfig
) -> Datasets:
    if isinstance(source, DigitsSource):
        parts, names = _load_digits(source)
    elif isinstance(source, IdxSource):
        parts, names = _load_idx(source)
    elif isinstance(source, NpzSource):
        parts, names = load_npz(source)
    elif isinstance(source, SyntheticSource):
        parts, names = _make_synthetic(source)
    else:
        digits, digit_names = _load_digits(DigitsSource())
        drawn = draw_composites(source, digits)
        parts, names = (ArrayExamples(*drawn[0]), ArrayExamples(*drawn[1])), ("photograph", *digit_names)
    train, test = (_fit(examples, config) for examples in parts)
    return Datasets(train, test, names)


def _fit(examples: ArrayExamples, config: DataConfig) -> Examples:
    if config.image_size is None:
        return examples
    if config.shorter_side is None and examples.image_shape[:2] == (config.image_size, config.image_size):
        return examples
    if examples.label_shape:
        setting = "" if isinstance(config.source, NpzSource) else ", and data.source.image_size to the size you want"
        raise ConfigError(
            f"data.image_size: {config.image_size} would part the images from their pixels' classes; set it to "
            f"null{setting}"
        )
    images = fit_images(examples.images, config.image_size, config.fit, config.shorter_side)
    return ArrayExamples(images, examples.labels)


def _load_digits(source: DigitsSource) -> tuple[Parts, tuple[str, ...]]:
    # Imported here because it takes as long as all the rest, and other sources do without.
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int32)
    train, test = split_by_class(labels, source.test_fraction, source.split_seed)
    names = tuple(str(name) for name in digits.target_names)
    return (ArrayExamples(images[train], labels[train]), ArrayExamples(images[test], labels[test])), names


def _load_idx(source: IdxSource) -> tuple[Parts, tuple[str, ...]]:
    folder = expanded(source.path)
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
    classes = len(source.class_names)
    parts = _read_pair(train_images, train_labels, classes), _read_pair(test_images, test_labels, classes)
    return parts, source.class_names


def _read_pair(images_path: Path, labels_path: Path, classes: int) -> ArrayExamples:
    images = _read_with_dimensions(images_path, 3, "images", "labels")
    labels = _read_with_dimensions(labels_path, 1, "labels", "images")
    if images.dtype != np.uint8:
        raise DataError(f"'{images_path}' holds {images.dtype} values, expected pixels as unsigned bytes (type 08)")
    if len(images) != len(labels):
        raise DataError(f"'{images_path}' holds {len(images)} images and '{labels_path}' {len(labels)} labels")
    return ArrayExamples(images[..., None], require_labels(labels, classes, f"'{labels_path}'"))


def _read_with_dimensions(path: Path, dimensions: int, kind: str, opposite: str) -> np.ndarray:
    values = read_idx(path)
    if values.ndim != dimensions:
        expected = f"expected {kind} ({dimensions} dimension{'s' if dimensions > 1 else ''})"
        if values.ndim == 4 - dimensions:
            raise DataError(f"'{path}': {expected} and got {opposite}; are the two names swapped?")
        raise DataError(f"'{path}': {expected} and got {values.ndim} dimensions")
    return values


def _make_synthetic(source: SyntheticSource) -> tuple[Parts, tuple[str, ...]]:
    """Each image is its class's template, moved cyclically by up to 1/8 of its size each way, dimmed to 50..100% and
    noised. Templates, training and test images come from random streams of their own."""
    templates = _make_templates(source)
    parts = (
        _draw_synthetic(templates, source, "train", source.train_examples),
        _draw_synthetic(templates, source, "test", source.test_examples),
    )
    return parts, tuple(f"class {index}" for index in range(source.classes))


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


def _draw_synthetic(templates: np.ndarray, source: SyntheticSource, part: str, count: int) -> ArrayExamples:
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
    return ArrayExamples(images, labels)
