"""Data sets of TensorFlow Datasets as examples, read without TensorFlow; needs the extra `tfds`."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cnnjax.config_base import expanded
from cnnjax.config_data import TfdsSource
from cnnjax.data.crops import Crop
from cnnjax.data.examples import Datasets
from cnnjax.data.files import DecodedExamples, Decoding, as_datasets
from cnnjax.data.image_files import Encoded
from cnnjax.errors import ConfigError, DataError, first_line
from cnnjax.registry import did_you_mean

_FORMAT = "array_record"
"""Of those that TensorFlow Datasets prepares, the one that can be read in any order without TensorFlow."""


@dataclass(frozen=True, eq=False)
class TfdsExamples(DecodedExamples):
    """A split as examples; images that are kept encoded are decoded as files are."""

    records: Any
    """(N,) bytes, each a whole example."""
    parser: Any
    """The features that make image and label of one of them."""
    decoders: dict[str, Any]
    image: str
    label: str
    where: str
    """The split, as messages name it."""

    @cached_property
    def image_labels(self) -> np.ndarray | None:
        """(N,) int32, every example's class; every record is read for it, and no image decoded."""
        labels = [self._label(self._features(index), index) for index in range(len(self))]
        return np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self.records)

    def _load(self, index: int, crop: Crop | None) -> tuple[np.ndarray, int | np.ndarray]:
        features = self._features(index)
        image, name = features[self.image], f"example {index} of {self.where}"
        if isinstance(image, bytes):
            pixels = self.decoding.image(Encoded(image, name), crop)
        else:
            pixels = self.decoding.pixels(np.asarray(image), name, crop)
        return pixels, self._label(features, index)

    def _features(self, index: int) -> dict[str, Any]:
        try:
            features: dict[str, Any] = self.parser.deserialize_example_np(self.records[index], decoders=self.decoders)
        except Exception as error:  # Its readers and parsers raise whatever damaged bytes make of them.
            raise DataError(f"example {index} of {self.where} is damaged: {error}") from error
        return features

    def _label(self, features: dict[str, Any], index: int) -> int:
        label = int(features[self.label])
        if not 0 <= label < self.classes:
            raise DataError(
                f"example {index} of {self.where} has the label {label}, expected 0 to {self.classes - 1}; a split "
                "without labels cannot be used"
            )
        return label


def load_tfds(source: TfdsSource, decoding: Decoding) -> Datasets:
    """The data sets of a prepared data set, which are read later unless the source says `in_memory`.

    Raises:
        ConfigError: the extra is missing, or the data set has no such split or feature, or none of the kind needed.
        DataError: the data set is unknown, not prepared, prepared in another format, or cannot be downloaded.
    """
    tfds = _library()
    builder = _prepared(tfds, source)
    features = builder.info.features
    names = _class_names(tfds, source, features)
    # The two alone, so that no other is parsed; the library's own way of saying so needs TensorFlow.
    parser = tfds.features.FeaturesDict({name: features[name] for name in (source.image, source.label)})
    encoded = isinstance(features[source.image], tfds.features.Image)
    train, test = (
        TfdsExamples(
            _records(tfds, builder, field, split), parser,
            {source.image: tfds.decode.SkipDecoding()} if encoded else {},
            source.image, source.label, f"'{split}' of {builder.info.full_name}",
            classes=len(names), decoding=decoding,
        )
        for field, split in (("train", source.train), ("test", source.test))
    )  # fmt: skip
    return as_datasets(train, test, names, read_now=source.in_memory)


def _library() -> Any:
    try:
        import tensorflow_datasets
    except ImportError:
        raise ConfigError("data.source.kind: tfds needs the extra `tfds`: pip install 'cnnjax[tfds]'") from None
    return tensorflow_datasets


def _prepared(tfds: Any, source: TfdsSource) -> Any:
    """The data set's builder, whose files are there."""
    folder = None if source.path is None else expanded(source.path)
    where = "TensorFlow Datasets' own folder" if folder is None else f"'{folder}'"
    if re.match(r"\w+:(?!\d)", source.name):
        raise ConfigError(
            f"data.source.name '{source.name}' is of a community, whose data sets come from the network at once; use "
            "data.source.kind: hf, or a data set of TensorFlow Datasets' own"
        )
    try:
        with _without_warnings():
            builder = tfds.builder(source.name, data_dir=folder, try_gcs=False)
            there = builder.is_prepared()
    except tfds.core.registered.DatasetNotFoundError:
        known = did_you_mean(source.name, tfds.list_builders(with_community_datasets=False))
        raise DataError(
            f"data.source.name '{source.name}' is neither prepared in {where} nor known to TensorFlow Datasets; {known}"
        ) from None
    except (
        AssertionError,
        ValueError,
        RuntimeError,
        OSError,
        ImportError,
    ) as error:  # versions, configurations, damage
        raise DataError(f"data.source.name '{source.name}' cannot be used: {first_line(error)}") from None
    if not there:
        if not source.download:
            raise DataError(
                f"data.source.name '{source.name}' is not prepared in {where}; name its folder in data.source.path, or "
                "set data.source.download: true to download it"
            )
        try:
            builder.download_and_prepare(file_format=_FORMAT)
        except Exception as error:  # Networks, disks and other people's parsers: all of it is told, none is ours.
            raise DataError(
                f"data.source.name '{source.name}' could not be downloaded and prepared: {first_line(error)}"
            ) from error
    found = builder.info.file_format.value
    if found != _FORMAT:
        raise DataError(
            f"data.source.name '{source.name}' is prepared in {where} as {found}, which cannot be read in any order; "
            f'prepare it again, with download_and_prepare(file_format="{_FORMAT}") in another folder'
        )
    return builder


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The library logs that a data set is not prepared, which a sentence of ours says."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _class_names(tfds: Any, source: TfdsSource, features: Any) -> tuple[str, ...]:
    for field, name in (("image", source.image), ("label", source.label)):
        if name not in features:
            raise ConfigError(
                f"data.source.{field}: '{source.name}' has no feature '{name}'; {did_you_mean(name, features)}"
            )
    label = features[source.label]
    if not isinstance(label, tfds.features.ClassLabel):
        kind = type(label).__name__
        raise ConfigError(f"data.source.label: feature '{source.label}' is of kind {kind}, expected ClassLabel")
    return tuple(label.names)


def _records(tfds: Any, builder: Any, field: str, split: str) -> Any:
    """A split's whole examples as bytes."""
    try:
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        records = builder.as_data_source(split=split, deserialize_method=raw)
    except (ValueError, KeyError, AssertionError) as error:
        raise ConfigError(f"data.source.{field}: '{split}' is no split: {first_line(error)}") from None
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the files of '{split}' in '{builder.data_path}' cannot be read: {first_line(error)}"
        ) from None
    if not len(records):
        raise ConfigError(f"data.source.{field}: '{split}' holds no example")
    return records
